//! Bodies that may not stop coming: an upload of which nothing arrives holds a stream at both ends.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep};

use super::{Body, BoxError};

/// Nothing of a body came for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing of the body came for {max:?}")]
pub struct Stalled {
    /// How long.
    pub max: Duration,
}

/// A body that ends with [`Stalled`] when whoever reads it has to wait longer than `max` for its next piece.
///
/// A reader that takes its time does not count: only while it asks does time pass.
pub fn patient(body: Body, max: Duration) -> Body {
    if body.is_end_stream() { body } else { Patient { body, max, until: Box::pin(sleep(max)), waits: false }.boxed_unsync() }
}

/// The [`Stalled`] that an error is or stems from.
pub fn stalled(error: &(dyn Error + 'static)) -> Option<Stalled> {
    error.downcast_ref().copied().or_else(|| error.source().and_then(stalled))
}

struct Patient {
    body: Body,
    max: Duration,
    until: Pin<Box<Sleep>>,
    waits: bool,
}

impl HttpBody for Patient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waits = false;
            return Poll::Ready(frame);
        }
        if !self.waits {
            self.waits = true;
            let end = Instant::now() + self.max;
            self.until.as_mut().reset(end);
        }
        ready!(self.until.as_mut().poll(cx));
        Poll::Ready(Some(Err(Stalled { max: self.max }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::body::full;

    const MAX: Duration = Duration::from_secs(300);

    struct Trickle(mpsc::Receiver<Bytes>);

    impl HttpBody for Trickle {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_ends_and_one_that_trickles_does_not() {
        let (send, receive) = mpsc::channel(1);
        let mut body = patient(Trickle(receive).boxed_unsync(), MAX);
        for _ in 0..3 {
            let frame = tokio::join!(biased; body.frame(), async {
                tokio::time::advance(MAX - Duration::from_secs(1)).await;
                send.send(Bytes::from_static(b"x")).await.expect("a reader");
            });
            frame.0.expect("not the end").expect("no error");
        }
        let began = Instant::now();
        let error = body.frame().await.expect("not the end").expect_err("nothing came");
        assert!(stalled(&*error) == Some(Stalled { max: MAX }) && began.elapsed() >= MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_take_its_time() {
        let (send, receive) = mpsc::channel(1);
        let mut body = patient(Trickle(receive).boxed_unsync(), MAX);
        for _ in 0..3 {
            send.send(Bytes::from_static(b"x")).await.expect("a reader");
            tokio::time::advance(2 * MAX).await;
            body.frame().await.expect("not the end").expect("no error");
        }
        assert!(patient(full(""), MAX).is_end_stream());
    }
}
