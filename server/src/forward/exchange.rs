//! A request that sends a body, or may switch protocols, as one HTTP/1.1 exchange in one stream.

use host::Host;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy::body::Body;
use proxy::expect;
use proxy::head::{INNER_FIELDS_MAX, INNER_HEAD_BUFFER};
use tokio::sync::oneshot;
use tunnel::TunnelStream;

/// While it lives, the exchange goes on; dropping it cancels what is not finished.
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Alive(oneshot::Sender<()>);

/// Sends `request` over `stream` and waits for the head of its answer. A task of its own drives the exchange: an upload
/// moves also while nobody reads the answer, and an upgrade is handed over whoever waits for it.
pub(super) async fn exchange(
    host: &Host,
    stream: TunnelStream,
    request: Request<Body>,
) -> Result<(Response<Incoming>, Alive), hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(INNER_FIELDS_MAX)
        .max_buf_size(INNER_HEAD_BUFFER)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await?;
    let (alive, gone) = oneshot::channel();
    host.spawn("forward", async move {
        tokio::select! {
            biased;
            // Whoever held the answer dropped it: dropping the stream cancels the request at the far end.
            _ = gone => {}
            // Errors arrive with the answer or its body.
            _ = connection.with_upgrades() => {}
        }
    });
    let response = sender.send_request(expect::hold_until_continue(request)).await?;
    Ok((response, Alive(alive)))
}
