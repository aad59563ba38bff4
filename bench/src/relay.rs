//! `postern-bench relay`: TCP over a link with distance: latency, a rate that all connections share, a bounded queue.
//!
//! `clock` says when bytes leave and arrive, `carry` moves them. One thread, for a wake-up across threads costs more than a chunk.

mod carry;
mod clock;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::task::{Carried, Relay};
use carry::{Link, carry};

/// Connections waiting to be accepted: all agents of a storm.
const BACKLOG: i32 = 4096;

/// A pause after an accept that failed, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the kernel holds between an endpoint and the relay, as time at the link's rate: long enough that the relay may come late by
/// a tick of its timer, short beside the queue, to which it adds a delay that the task does not name.
const KERNEL_BUFFER: Duration = Duration::from_millis(4);

/// Under this, loopback's segments of 64 KiB no longer fit and the kernel waits for its own timers.
const KERNEL_BUFFER_MIN: usize = 128 << 10;

/// Above this, more brings nothing even on a link without a rate.
const KERNEL_BUFFER_MAX: usize = 1 << 20;

pub(crate) fn run_verb(task: Relay) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = listen(&task)?;
        let links = Arc::new((Link::new(&task), Link::new(&task)));
        println!("{{}}");
        tokio::select! {
            biased;
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            () = serve(listener, task, links.clone()) => {}
        }
        println!("{}", serde_json::to_string(&Carried { there: links.0.carried(), back: links.1.carried() })?);
        Ok(())
    });
    runtime.shutdown_background();
    result
}

fn listen(task: &Relay) -> Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(task.listen), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Accepted connections have those of their listener, and announce their window by them from the first segment on.
        bound_buffers(SockRef::from(&socket), task)?;
        socket.bind(&task.listen.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("failed to listen on {}; the task's `listen` names another", task.listen))
}

/// Without it the kernel would hold megabytes in front of the link, and nobody would feel its queue.
fn bound_buffers(socket: SockRef<'_>, task: &Relay) -> io::Result<()> {
    let bytes = task.bits_per_second.map_or(KERNEL_BUFFER_MAX, |rate| {
        let bytes = u128::from(rate / 8) * KERNEL_BUFFER.as_micros() / 1_000_000;
        usize::try_from(bytes).unwrap_or(KERNEL_BUFFER_MAX).clamp(KERNEL_BUFFER_MIN, KERNEL_BUFFER_MAX)
    });
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}

/// Carries whoever connects, for ever.
async fn serve(listener: TcpListener, task: Relay, links: Arc<(Link, Link)>) {
    let task = Arc::new(task);
    loop {
        match listener.accept().await {
            Ok((socket, _)) => drop(tokio::spawn(connect_and_carry(socket, task.clone(), links.clone()))),
            Err(error) => {
                eprintln!("postern-bench relay: failed to accept: {error}; `ulimit -n` may be too low");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect_and_carry(mut near: TcpStream, task: Arc<Relay>, links: Arc<(Link, Link)>) {
    // TCP's own handshake takes a round trip before the first byte may go.
    links.0.pass().await;
    let far = dial(&task).await;
    links.1.pass().await;
    let far = match far {
        Ok(mut far) => match carry(&mut near, &mut far, &links).await {
            Ok(()) => return,
            Err(_) => Some(far),
        },
        Err(error) => {
            eprintln!("postern-bench relay: failed to reach {}: {error}", task.to);
            None
        }
    };
    for socket in [Some(near), far].iter().flatten() {
        // What one end did to the connection, the other end gets: a reset rather than an end.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
}

async fn dial(task: &Relay) -> io::Result<TcpStream> {
    let socket = if SocketAddr::is_ipv4(&task.to) { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    bound_buffers(SockRef::from(&socket), task)?;
    socket.connect(task.to).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// More than fits into the link, its queue and all buffers of the kernel.
    const LONG: usize = 24 << 20;

    const LATENCY: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn bytes_pass_unchanged_both_ways_and_each_direction_ends_on_its_own() {
        let (mut near, mut far) = pair(Some(1_000_000_000)).await;
        let sent: Vec<u8> = (0..LONG).map(|n| (n % 251) as u8).collect();
        for bytes in [&sent[..], &sent[1..]] {
            let mut got = Vec::new();
            let (written, read) = tokio::join!(
                async {
                    near.write_all(bytes).await?;
                    near.shutdown().await
                },
                far.read_to_end(&mut got)
            );
            written.expect("written");
            read.expect("read to its end");
            assert!(got == bytes);
            // The other direction is still open, and has its turn.
            std::mem::swap(&mut near, &mut far);
        }
    }

    #[tokio::test]
    async fn nothing_arrives_before_its_time() {
        let begun = Instant::now();
        let (mut near, mut far) = pair(None).await;
        assert!(begun.elapsed() >= 2 * LATENCY, "the handshake");
        let sent = Instant::now();
        near.write_all(b"a").await.expect("written");
        far.read_u8().await.expect("read");
        assert!(sent.elapsed() >= LATENCY, "a byte");
    }

    #[tokio::test]
    async fn a_reset_passes_also_when_nobody_reads() {
        let (near, mut far) = pair(Some(100_000_000)).await;
        // Fills everything on the way, so that the relay does not read either.
        let stuffed = async {
            loop {
                far.write_all(&[0; 64 << 10]).await?;
            }
        };
        let reset = async {
            near.readable().await.expect("something came");
            SockRef::from(&near).set_linger(Some(Duration::ZERO)).expect("an option");
            drop(near);
        };
        let (error, ()): (io::Result<()>, ()) = tokio::join!(stuffed, reset);
        let kind = error.expect_err("a reset").kind();
        assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{kind}");
    }

    /// Two ends of a connection over a relay of their own, once a byte has passed.
    async fn pair(bits_per_second: Option<u64>) -> (TcpStream, TcpStream) {
        let behind = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let task = Relay {
            listen: "127.0.0.1:0".parse().expect("an address"),
            to: behind.local_addr().expect("bound"),
            latency_ms: LATENCY.as_secs_f64() * 1000.0,
            bits_per_second,
            queue_bytes: 256 << 10,
        };
        let listener = listen(&task).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let links = Arc::new((Link::new(&task), Link::new(&task)));
        tokio::spawn(serve(listener, task, links));
        let mut near = TcpStream::connect(addr).await.expect("it listens");
        near.write_all(b"x").await.expect("written");
        let (mut far, _) = behind.accept().await.expect("dialled");
        far.read_u8().await.expect("the first byte");
        (near, far)
    }
}
