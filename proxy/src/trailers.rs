//! Trailers: what stands behind a body says nothing that belongs into a head (RFC 9110 section 6.5.1).
//!
//! Whoever joins trailers to the head, as receivers may, would else take them for fields that somebody has checked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::body::{Body, BoxError};
use crate::hygiene;

/// The body without those trailers that [`hygiene::clean_trailers`] removes.
pub fn cleaned(body: Body) -> Body {
    if body.is_end_stream() { body } else { Cleaned(body).boxed_unsync() }
}

/// The same for one frame of a body.
pub fn clean<T>(frame: &mut Frame<T>) {
    if let Some(trailers) = frame.trailers_mut() {
        hygiene::clean_trailers(trailers);
    }
}

struct Cleaned(Body);

impl HttpBody for Cleaned {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            clean(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
