//! TunnelStream: one request's two-way bytes as AsyncRead and AsyncWrite.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::driver::Shared;
use crate::error::{Reason, StreamError};
use crate::id::StreamId;
use crate::session::Read;

/// One stream of a session.
///
/// `shutdown` half-closes: what was written still arrives, then the peer reads the end. Dropping without it cancels the
/// stream at both ends, so that a broken body is never taken for a whole one.
pub struct TunnelStream {
    shared: Arc<Shared>,
    id: StreamId,
}

impl TunnelStream {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id }
    }

    /// The id on the wire, for logs.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Accepts a stream that the peer opened, before its first read. Version 1 peers wait for this.
    pub fn accept(&self) {
        self.shared.with(|session, now| session.accept(self.id, now));
    }

    /// Up to `max` bytes as they were received, without a copy; empty at the end.
    ///
    /// # Errors
    /// As of a read: the stream's or the session's untimely end.
    pub fn poll_chunk(&mut self, max: usize, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self.shared.poll_read(self.id, max, cx) {
            Ok(Read::Bytes(bytes)) => Poll::Ready(Ok(bytes)),
            Ok(Read::End) => Poll::Ready(Ok(Bytes::new())),
            Ok(Read::Blocked) => Poll::Pending,
            Err(error) => Poll::Ready(Err(to_io(error))),
        }
    }

    /// Watches for the stream's untimely end, also while nobody reads or writes it.
    pub fn watch(&self) -> StreamWatch {
        StreamWatch { shared: self.shared.clone(), id: self.id }
    }

    /// Ends the stream at once in both directions and tells the peer why.
    pub fn reset(&self, reason: Reason, text: &str) {
        self.shared.with(|session, _| session.reset(self.id, reason, text));
    }
}

/// Tells when the peer, or the session, ended a stream before its time.
///
/// A task that waits for something else than the stream, a slow upstream, say, would not notice.
#[derive(Clone)]
pub struct StreamWatch {
    shared: Arc<Shared>,
    id: StreamId,
}

impl StreamWatch {
    /// Resolves with how the stream was ended; never if it ends well or its owner drops it. Cancel-safe; one waits at
    /// a time.
    pub async fn cut(&self) -> StreamError {
        std::future::poll_fn(|cx| self.shared.poll_cut(self.id, cx)).await
    }

    /// Ends the stream as [`TunnelStream::reset`] does, whoever owns it.
    pub fn reset(&self, reason: Reason, text: &str) {
        self.shared.with(|session, _| session.reset(self.id, reason, text));
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = ready!(self.get_mut().poll_chunk(buf.remaining(), cx))?;
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        match self.shared.poll_write(self.id, pieces, cx) {
            Ok(0) => Poll::Pending,
            Ok(n) => Poll::Ready(Ok(n)),
            Err(error) => Poll::Ready(Err(to_io(error))),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written leaves as credit and schedule allow; there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|session, now| session.finish(self.id, now));
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.shared.detach(self.id);
    }
}

/// The error as hyper and tokio pass it on; `io::Error::get_ref` gives the [`StreamError`] back.
fn to_io(error: StreamError) -> io::Error {
    let kind = match &error {
        StreamError::Reset { reason: Reason::Refused | Reason::Limit | Reason::NotUnderstood, .. } => {
            io::ErrorKind::ConnectionRefused
        }
        StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
        StreamError::SessionEnded(_) => io::ErrorKind::ConnectionAborted,
        StreamError::Closed => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}
