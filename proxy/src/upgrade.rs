//! The byte pump after a 101: two connections, bytes both ways, each direction closed on its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Room for bytes on their way, each direction: a terminal needs little, and at this size `kubectl cp` is no longer
/// bound by the number of calls (a tunnel frame).
pub const BUFFER_BYTES: usize = 32 * 1024;

/// What a pump has carried so far.
#[derive(Debug, Default)]
pub struct Pumped {
    from_a: AtomicU64,
    from_b: AtomicU64,
}

impl Pumped {
    /// Bytes read from the first connection.
    pub fn from_a(&self) -> u64 {
        self.from_a.load(Ordering::Relaxed)
    }

    /// Bytes read from the second connection.
    pub fn from_b(&self) -> u64 {
        self.from_b.load(Ordering::Relaxed)
    }
}

/// Once one side has ended, the other may be silent for this long: who half-closes waits for the last words of a
/// command, and a peer that never closes must not be kept for ever.
pub const HALF_CLOSED_IDLE_MAX: Duration = Duration::from_secs(300);

/// Whether a request may make hyper hand over the connection, whatever the answer will be.
///
/// hyper does so at the end of every exchange that asked for it, without closing its side: [`decline`] does that then.
pub fn may_switch<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT
}

/// Ends a connection that was handed over although the answer was no 101: what was written to it still arrives.
pub async fn decline(side: OnUpgrade) {
    if let Ok(mut connection) = side.await {
        // Its other end may be gone already.
        let _ = poll_fn(|cx| hyper::rt::Write::poll_shutdown(Pin::new(&mut connection), cx)).await;
    }
}

/// Copies bytes between `a` and `b` until both have ended, or either breaks, and counts them in `pumped`.
///
/// When one side ends, the other's write side is shut down and its bytes still pass, unless none come for
/// [`HALF_CLOSED_IDLE_MAX`]. What was read is flushed on as soon as no more is there to read. Whoever drops the future
/// closes both.
///
/// # Errors
/// What broke either connection.
pub async fn pump(
    a: impl AsyncRead + AsyncWrite + Unpin,
    b: impl AsyncRead + AsyncWrite + Unpin,
    pumped: &Pumped,
) -> io::Result<()> {
    let progress = Progress::default();
    let mut a = Counted { inner: a, n_read: &pumped.from_a, progress: &progress };
    let mut b = Counted { inner: b, n_read: &pumped.from_b, progress: &progress };
    tokio::select! {
        biased;
        copied = tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER_BYTES, BUFFER_BYTES) => copied.map(|_| ()),
        () = progress.stalled() => Err(io::Error::new(io::ErrorKind::TimedOut, "half-closed and silent")),
    }
}

/// What both directions tell.
#[derive(Default)]
struct Progress {
    /// One side has ended.
    has_ended: AtomicBool,
    /// Bytes came since it was looked at.
    has_moved: AtomicBool,
}

impl Progress {
    /// Resolves when one side has ended and nothing came from the other for a whole period.
    async fn stalled(&self) {
        loop {
            tokio::time::sleep(HALF_CLOSED_IDLE_MAX).await;
            if !self.has_moved.swap(false, Ordering::Relaxed) && self.has_ended.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Counts what is read, which the copy itself tells only when all went well.
struct Counted<'a, T> {
    inner: T,
    n_read: &'a AtomicU64,
    progress: &'a Progress,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        self.n_read.fetch_add(n as u64, Ordering::Relaxed);
        match result {
            Poll::Ready(Ok(())) if n == 0 => self.progress.has_ended.store(true, Ordering::Relaxed),
            Poll::Ready(_) => self.progress.has_moved.store(true, Ordering::Relaxed),
            Poll::Pending => {}
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};

    use super::*;

    #[tokio::test]
    async fn one_side_may_end_long_before_the_other() {
        let (mut caller, a) = duplex(64);
        let (mut upstream, b) = duplex(64);
        let story = async {
            caller.write_all(b"stdin").await.expect("open");
            caller.shutdown().await.expect("open");
            let mut got = String::new();
            upstream.read_to_string(&mut got).await.expect("half-closed");
            assert_eq!(got, "stdin");
            upstream.write_all(b"a late answer").await.expect("the other half is open");
            drop(upstream);
            got.clear();
            caller.read_to_string(&mut got).await.expect("half-closed");
            assert_eq!(got, "a late answer");
        };
        let pumped = Pumped::default();
        let (end, ()) = tokio::join!(pump(a, b, &pumped), story);
        end.expect("a clean end");
        assert_eq!((pumped.from_a(), pumped.from_b()), (5, 13));
    }

    #[tokio::test]
    async fn bytes_are_flushed_while_the_reader_waits_for_more() {
        let (mut caller, a) = duplex(64);
        let (mut upstream, b) = duplex(64);
        let story = async {
            caller.write_all(b"k").await.expect("open");
            assert_eq!(upstream.read_u8().await.expect("a flushed byte"), b'k');
            drop((caller, upstream));
        };
        let pumped = Pumped::default();
        let (end, ()) = tokio::join!(pump(a, BufWriter::new(b), &pumped), story);
        end.expect("a clean end");
        assert_eq!(pumped.from_a(), 1);
    }

    #[tokio::test]
    async fn a_broken_side_ends_the_pump_and_the_bytes_so_far_are_counted() {
        let (mut caller, a) = duplex(64);
        let (upstream, b) = duplex(64);
        caller.write_all(b"12345").await.expect("open");
        drop(upstream);
        let pumped = Pumped::default();
        let end = pump(a, Broken(b), &pumped).await;
        assert_eq!(end.expect_err("broken").kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(pumped.from_a(), 5);
    }

    #[tokio::test]
    async fn megabytes_pass_both_ways_through_small_pipes() {
        const LEN: usize = 1 << 20;
        let (caller, a) = duplex(1000);
        let (upstream, b) = duplex(3000);
        let pumped = Pumped::default();
        let (end, there, back) = tokio::join!(pump(a, b, &pumped), exchange(caller, 1), exchange(upstream, 2));
        end.expect("a clean end");
        assert_eq!((there, back), (vec![2; LEN], vec![1; LEN]));
        assert_eq!((pumped.from_a(), pumped.from_b()), (LEN as u64, LEN as u64));

        async fn exchange(stream: DuplexStream, byte: u8) -> Vec<u8> {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut got = Vec::new();
            let write = async {
                writer.write_all(&vec![byte; LEN]).await.expect("open");
                writer.shutdown().await.expect("open");
            };
            let (read, ()) = tokio::join!(reader.read_to_end(&mut got), write);
            read.expect("whole");
            got
        }
    }

    struct Broken(DuplexStream);

    impl AsyncRead for Broken {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
