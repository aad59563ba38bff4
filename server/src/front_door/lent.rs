//! Long answers of the server's own, which are whole in memory until they are read: few at once, and not for long.
//!
//! Metrics and the list of clusters are megabytes for a large fleet, and who asks for them and does not read would have the
//! server hold one for each of thousands of connections.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use host::{Host, Place, Places, Source};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use proxy::body::{Body, BoxError};
use proxy::plain::text;
use tokio::sync::oneshot;

/// At once for one source: somebody who looks and something that scrapes.
const OF_SOURCE_MAX: usize = 4;

/// At once for all: 64 of the largest, of four thousand clusters, are about what the tunnels may hold.
const OF_ALL_MAX: usize = 64;

/// How long one may take to be read: 2.5 MB over a megabit a second.
const READ_MAX: Duration = Duration::from_secs(20);

/// What is handed to a connection at once, and so what one that is not read goes on to hold.
const PIECE_BYTES: usize = 16 * 1024;

/// How many such answers there are.
pub(crate) struct Lent {
    of_source: Places<Source>,
    of_all: Places<()>,
}

impl Default for Lent {
    fn default() -> Self {
        Self { of_source: Places::new(OF_SOURCE_MAX), of_all: Places::new(OF_ALL_MAX) }
    }
}

impl Lent {
    /// The answer that `make` makes, unless too many wait to be read.
    pub(super) fn answer(&self, host: &Host, to: Source, make: impl FnOnce() -> Response<Body>) -> Response<Body> {
        let (Some(of_source), Some(of_all)) = (self.of_source.take(&to), self.of_all.take(&())) else {
            let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, "too many such answers wait to be read");
            refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return refused;
        };
        let answer = make();
        if answer.body().is_end_stream() {
            return answer;
        }
        answer.map(|body| {
            let hint = body.size_hint();
            let held = Arc::new(Mutex::new(Some(Held { body, rest: Bytes::new(), _places: (of_source, of_all) })));
            // A connection that cannot write asks for nothing, so that its body never sees the time.
            let (read, reading) = oneshot::channel::<()>();
            let expiring = Arc::downgrade(&held);
            host.spawn("lent answer", async move {
                // Told by being dropped.
                let is_late = tokio::time::timeout(READ_MAX, reading).await.is_err();
                if let Some(held) = expiring.upgrade().filter(|_| is_late) {
                    drop(lock(&held).take());
                }
            });
            Reading { held, hint, is_over: false, _read: read }.boxed_unsync()
        })
    }
}

struct Held {
    body: Body,
    rest: Bytes,
    _places: (Place<Source>, Place<()>),
}

/// An answer that is read piece by piece.
struct Reading {
    held: Arc<Mutex<Option<Held>>>,
    hint: SizeHint,
    is_over: bool,
    _read: oneshot::Sender<()>,
}

fn lock(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut slot = lock(&self.held);
        let Some(held) = slot.as_mut() else {
            drop(slot);
            self.is_over = true;
            return Poll::Ready(Some(Err(format!("it was not read within {READ_MAX:?}").into())));
        };
        if held.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut held.body).poll_frame(cx)) {
                Some(Ok(frame)) => held.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {}
            }
        }
        let n = held.rest.len().min(PIECE_BYTES);
        // A copy: a slice would keep all of it for as long as the piece is not written.
        let piece = Bytes::copy_from_slice(&held.rest.split_to(n));
        if held.rest.is_empty() && held.body.is_end_stream() {
            *slot = None;
            drop(slot);
            self.is_over = true;
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proxy::body::{empty, full};

    use super::*;

    const LEN: usize = 5 * PIECE_BYTES + 7;

    fn source(n: u8) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)))
    }

    fn long() -> Response<Body> {
        Response::new(full(vec![b'x'; LEN]))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_whole_for_who_reads_it_and_gives_its_place_back() {
        let (lent, host) = (Lent::default(), Host::real());
        for _ in 0..3 * OF_SOURCE_MAX {
            let answer = lent.answer(&host, source(1), long);
            assert_eq!(answer.body().size_hint().exact(), Some(LEN as u64));
            assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes().len(), LEN);
        }
        assert!(lent.answer(&host, source(1), || Response::new(empty())).body().is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_holds_few_and_not_for_long_and_nobody_else_waits() {
        let (lent, host) = (Lent::default(), Host::real());
        let mut unread: Vec<_> = (0..OF_SOURCE_MAX).map(|_| lent.answer(&host, source(1), long).into_body()).collect();
        assert_eq!(lent.answer(&host, source(1), long).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(lent.answer(&host, source(2), long).status(), StatusCode::OK);
        unread[0].frame().await.expect("a piece").expect("in time");
        let while_nobody_reads = std::future::pending::<()>();
        assert!(tokio::time::timeout(READ_MAX + Duration::from_secs(1), while_nobody_reads).await.is_err());
        assert_eq!(lent.answer(&host, source(1), long).status(), StatusCode::OK, "the places are free");
        assert!(unread[0].frame().await.expect("a word").is_err(), "what was begun is cut visibly");
    }

    #[tokio::test(start_paused = true)]
    async fn all_sources_together_hold_so_many() {
        let (lent, host) = (Lent::default(), Host::real());
        let ask = |n: usize| lent.answer(&host, source(u8::try_from(n / OF_SOURCE_MAX).expect("few")), long);
        let unread: Vec<_> = (0..OF_ALL_MAX).map(ask).collect();
        assert!(unread.iter().all(|answer| answer.status() == StatusCode::OK));
        assert_eq!(lent.answer(&host, source(200), long).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
