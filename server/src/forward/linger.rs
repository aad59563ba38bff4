//! Lingering: a caller that is answered while it still sends is read for a little while longer.
//!
//! Closing a socket with unread bytes makes the kernel reset it, and the reset can overtake the answer (RFC 9112
//! section 9.6). So what is left of the body is read and dropped, for a while.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use host::Host;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use proxy::body::{self, Body, BoxError};

/// How long: a few round trips, in which the caller notices the answer and stops.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// The body, which is read on for a while when it is dropped before its end.
pub(super) fn lingering(host: &Host, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Lingering { host: host.clone(), body, is_over: false }.boxed_unsync()
}

struct Lingering {
    host: Host,
    body: Body,
    is_over: bool,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.is_over |= matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.is_over || self.body.is_end_stream() {
            return;
        }
        let mut rest = std::mem::replace(&mut self.body, body::empty());
        self.host.spawn("linger", async move {
            // Either it ends, or the caller has had its time.
            let _ = tokio::time::timeout(LINGER_MAX, async { while let Some(Ok(_)) = rest.frame().await {} }).await;
        });
    }
}
