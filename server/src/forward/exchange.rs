//! One HTTP/1.1 exchange inside one stream, and who keeps it going.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use host::Host;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection};
use hyper_util::rt::TokioIo;
use proxy::body::Body;
use proxy::expect;
use proxy::head::{INNER_FIELDS_MAX, INNER_HEAD_BUFFER};
use tokio::sync::oneshot;
use tunnel::TunnelStream;

/// While it lives, the exchange goes on; dropping it cancels what is not finished.
pub(crate) enum Alive {
    /// A task of its own drives the exchange. An upload moves also while nobody reads the answer, and an upgrade is handed
    /// over whoever waits for it.
    #[expect(dead_code, reason = "held for its drop")]
    Beside(oneshot::Sender<()>),
    /// Whoever waits for the answer drives the exchange, which saves a task and its wake-ups: most requests send nothing
    /// behind their head. None once it has ended.
    Within(Option<Box<Connection<TokioIo<TunnelStream>, Body>>>),
}

impl Alive {
    /// Lets what has come be read. Errors arrive with the answer or its body.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::Within(within) = self
            && let Some(connection) = within
            && Pin::new(connection).poll(cx).is_ready()
        {
            *within = None;
        }
    }
}

/// Sends `request` over `stream` and waits for the head of its answer.
pub(super) async fn exchange(
    host: &Host,
    stream: TunnelStream,
    request: Request<Body>,
    may_upgrade: bool,
) -> Result<(Response<Incoming>, Alive), hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(INNER_FIELDS_MAX)
        .max_buf_size(INNER_HEAD_BUFFER)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await?;
    let has_body = !http_body::Body::is_end_stream(request.body());
    let mut alive = if has_body || may_upgrade { beside(host, connection) } else { Alive::Within(Some(Box::new(connection))) };
    let mut sent = pin!(sender.send_request(expect::hold_until_continue(request)));
    let response = poll_fn(|cx| match sent.as_mut().poll(cx) {
        Poll::Ready(answered) => Poll::Ready(answered),
        Poll::Pending => {
            alive.drive(cx);
            sent.as_mut().poll(cx)
        }
    })
    .await?;
    Ok((response, alive))
}

fn beside(host: &Host, connection: Connection<TokioIo<TunnelStream>, Body>) -> Alive {
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
    Alive::Beside(alive)
}
