//! `Expect: 100-continue` (RFC 9110 section 10.1.1) across a proxy: the sender's body is not asked for until the receiver
//! asks.
//!
//! hyper's server sends "100 Continue" when a body is first polled. So the body is held back, unpolled, until the next
//! leg has answered with a 100 of its own.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::body::{Body, BoxError};

/// Whether a request waits to be asked for its body.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A next leg that has said nothing for this long does not know `Expect`: the body is sent to it then, as RFC 9110
/// allows, or both would wait for ever.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Holds back the body of a request that says `Expect: 100-continue` until the HTTP/1.1 connection that it is sent on
/// answers with 100. A final answer instead leaves the body unsent for good.
pub fn hold_until_continue(request: Request<Body>) -> Request<Body> {
    if !expects_continue(request.headers()) {
        return request;
    }
    let (ask, asked) = oneshot::channel();
    let mut request = request.map(|body| Held { gate: Gate::shut(asked), body }.boxed_unsync());
    let ask = Mutex::new(Some(ask));
    hyper::ext::on_informational(&mut request, move |informational| {
        if informational.status() == StatusCode::CONTINUE
            && let Some(ask) = ask.lock().ok().and_then(|mut ask| ask.take())
        {
            // The body is gone when the caller is.
            let _ = ask.send(());
        }
    });
    request
}

struct Held {
    gate: Gate,
    body: Body,
}

enum Gate {
    /// Until the body is asked for, or nobody has said anything for too long.
    Shut { asked: oneshot::Receiver<()>, too_long: Pin<Box<Sleep>> },
    /// The body flows.
    Open,
    /// The request was answered without a 100: the answer stands, the body is not wanted.
    Closed,
}

impl Gate {
    fn shut(asked: oneshot::Receiver<()>) -> Self {
        Self::Shut { asked, too_long: Box::pin(tokio::time::sleep(WAIT_MAX)) }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Gate::Shut { asked, too_long } = &mut self.gate {
            match (Pin::new(asked).poll(cx), too_long.as_mut().poll(cx)) {
                (Poll::Ready(Ok(())), _) | (Poll::Pending, Poll::Ready(())) => self.gate = Gate::Open,
                (Poll::Ready(Err(_)), _) => self.gate = Gate::Closed,
                (Poll::Pending, Poll::Pending) => {}
            }
        }
        match self.gate {
            Gate::Open => Pin::new(&mut self.body).poll_frame(cx),
            Gate::Shut { .. } | Gate::Closed => Poll::Pending,
        }
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
    use std::future::poll_fn;

    use http::header::EXPECT;

    use super::*;
    use crate::body;

    fn held() -> (oneshot::Sender<()>, Held) {
        let (ask, asked) = oneshot::channel();
        (ask, Held { gate: Gate::shut(asked), body: body::full("body") })
    }

    async fn is_pending(held: &mut Held) -> bool {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *held).poll_frame(cx).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_body_flows_when_it_is_asked_for() {
        let (ask, mut held) = held();
        assert!(is_pending(&mut held).await);
        ask.send(()).expect("it waits");
        assert_eq!(held.collect().await.expect("whole").to_bytes(), "body");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_was_answered_without_being_asked_for_never_flows() {
        let (ask, mut held) = held();
        drop(ask);
        for _ in 0..3 {
            assert!(is_pending(&mut held).await, "asked again and again");
            tokio::time::advance(WAIT_MAX).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_flows_to_who_does_not_know_expect() {
        let (_ask, held) = held();
        assert_eq!(held.collect().await.expect("whole").to_bytes(), "body");
    }

    #[tokio::test]
    async fn a_request_without_expect_is_not_held() {
        let request = hold_until_continue(Request::new(body::full("body")));
        assert_eq!(request.into_body().collect().await.expect("whole").to_bytes(), "body");
        let expecting = HeaderMap::from_iter([(EXPECT, "100-Continue".parse().expect("a value"))]);
        assert!(expects_continue(&expecting));
    }
}
