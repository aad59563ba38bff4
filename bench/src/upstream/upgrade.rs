//! What follows a 101: an echo for exec, a flood for port-forwards; raw bytes, no WebSocket frames.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::answer::Refused;
use super::body::{Body, CHUNK_BYTES};

/// Room for what is echoed: a terminal's line, with room for a paste.
const ECHO_BYTES: usize = 16 << 10;

/// How long the other side may take to close once all was sent: a slow link's queue has to empty first.
const CLOSE_MAX: Duration = Duration::from_secs(60);

/// Echoes whatever comes.
pub(super) fn echo(request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    switch(request, async |mut io| {
        let mut buffer = vec![0; ECHO_BYTES];
        loop {
            let n = io.read(&mut buffer).await?;
            if n == 0 {
                return io.shutdown().await;
            }
            io.write_all(&buffer[..n]).await?;
            io.flush().await?;
        }
    })
}

/// Sends `left` bytes as fast as they are taken, and closes.
pub(super) fn pour(request: Request<Incoming>, left: u64, pattern: Bytes) -> Result<Response<Body>, Refused> {
    switch(request, async move |mut io| {
        let mut left = left;
        while left > 0 {
            let n = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            io.write_all(&pattern[..n]).await?;
            left -= n as u64;
        }
        io.shutdown().await?;
        // Closing with unread bytes would reset the connection, and what is still on its way would be lost.
        let _ = timeout(CLOSE_MAX, io::copy(&mut io, &mut io::sink())).await;
        Ok(())
    })
}

/// Answers with 101 and runs `then` on the connection.
fn switch<F>(
    mut request: Request<Incoming>,
    then: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Result<Response<Body>, Refused>
where
    F: Future<Output = io::Result<()>> + Send,
{
    if !request.headers().contains_key(UPGRADE) {
        return Err(Refused(StatusCode::BAD_REQUEST, "this path answers upgrades only".to_owned()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // How it ends is for the caller to judge, who counts what failed.
        if let Ok(upgraded) = upgrade.await {
            let _ = then(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok(response)
}
