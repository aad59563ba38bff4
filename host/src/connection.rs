//! A connection of any origin, boxed at the door so that signatures stay short.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A two-way byte stream with its peer's address.
pub struct Connection {
    io: Box<dyn Io>,
    peer: SocketAddr,
    /// Read to be looked at and not yet given to the reader.
    held: BytesMut,
}

impl Connection {
    /// Boxes `io`; `peer` is the address at the other end.
    pub fn new(io: impl Io, peer: SocketAddr) -> Self {
        Self { io: Box::new(io), peer, held: BytesMut::new() }
    }

    /// The address at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Waits for the first byte and leaves it to be read; none when the peer ends without one.
    pub async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        if self.held.is_empty() {
            self.hold_more(1).await?;
        }
        Ok(self.held.first().copied())
    }

    /// The same connection, whose other end turned out to be elsewhere.
    pub(crate) fn of_peer(self, peer: SocketAddr) -> Self {
        Self { peer, ..self }
    }

    /// Bytes that were read to be looked at.
    pub(crate) fn held(&mut self) -> &mut BytesMut {
        &mut self.held
    }

    /// Reads at most `max` bytes and leaves them to be read; returns how many, 0 when the peer has ended.
    pub(crate) async fn hold_more(&mut self, max: usize) -> io::Result<usize> {
        let (before, mut bytes) = (self.held.len(), std::mem::take(&mut self.held));
        bytes.resize(before + max, 0);
        let n = self.io.read(&mut bytes[before..]).await?;
        bytes.truncate(before + n);
        self.held = bytes;
        Ok(n)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() > 0 && !self.held.is_empty() {
            let n = buf.remaining().min(self.held.len());
            buf.put_slice(&self.held[..n]);
            self.held.advance(n);
            if self.held.is_empty() {
                // Most connections live long after their first bytes.
                self.held = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
