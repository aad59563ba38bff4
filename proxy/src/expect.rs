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
    let held = (asked, Box::pin(tokio::time::sleep(WAIT_MAX)));
    let mut request = request.map(|body| Held { until: Some(held), body }.boxed_unsync());
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
    until: Option<(oneshot::Receiver<()>, Pin<Box<Sleep>>)>,
    body: Body,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some((asked, too_long)) = &mut self.until {
            match (Pin::new(asked).poll(cx), too_long.as_mut().poll(cx)) {
                (Poll::Ready(Ok(())), _) | (Poll::Pending, Poll::Ready(())) => self.until = None,
                // Answered without a 100: the answer stands, the body is not wanted.
                (Poll::Ready(Err(_)), _) | (Poll::Pending, Poll::Pending) => return Poll::Pending,
            }
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
