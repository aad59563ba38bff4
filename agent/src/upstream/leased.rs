//! An answer's body that keeps something for as long as it is read: a place on a connection, or the connection itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use proxy::body::BoxError;
use proxy::trailers;

/// Drops `lease` with the body, and tells it before when the body was read to its end.
pub(super) struct Leased<L: Lease> {
    body: Incoming,
    lease: Option<L>,
}

/// What a body holds.
pub(super) trait Lease: Unpin {
    /// The body was read to its end: the connection is free for another request.
    fn whole(self);
}

impl<L: Lease> Leased<L> {
    pub(super) fn new(body: Incoming, lease: L) -> Self {
        Self { body, lease: Some(lease) }
    }
}

impl<L: Lease> HttpBody for Leased<L> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None))
            && let Some(lease) = self.lease.take()
        {
            lease.whole();
        }
        if let Poll::Ready(Some(Ok(frame))) = &mut frame {
            trailers::clean(frame);
        }
        frame.map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<L: Lease> Drop for Leased<L> {
    fn drop(&mut self) {
        // A body of known length is not asked again behind its last byte.
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.whole();
        }
    }
}
