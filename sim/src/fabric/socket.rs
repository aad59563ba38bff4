//! A socket as a program holds it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Fabric;

/// One end of a connection. Dropping it closes it, as a kernel does for a program that ends.
pub struct Socket {
    fabric: Fabric,
    conn: u64,
    side: usize,
}

impl Socket {
    pub(super) fn new(fabric: Fabric, conn: u64, side: usize) -> Self {
        Self { fabric, conn, side }
    }

    /// Ends the connection with a reset: what was not sent is lost.
    pub(crate) fn reset(self) {
        self.fabric.with(|state| state.traffic.abandon(self.conn, self.side, Instant::now()));
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.fabric.with(|state| state.traffic.poll_read(self.conn, self.side, cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.fabric.with(|state| state.traffic.poll_write(self.conn, self.side, cx, data))
    }

    /// The kernel has no flush: what it took, it sends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fabric.with(|state| state.traffic.finish(self.conn, self.side));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.fabric.with(|state| state.traffic.close(self.conn, self.side));
    }
}
