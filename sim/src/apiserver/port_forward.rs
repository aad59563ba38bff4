//! Port-forward over WebSocket, `v4.channel.k8s.io`, as a kubelet speaks it.
//!
//! Each port has two channels, data and errors, and the first message on each is the port's number, two bytes, little
//! endian. In every pod the ports 7 (echo) and 80 (one small HTTP answer, then the end) are open, others refuse.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::ApiServer;
use super::body::Body;
use super::exec::{CLOSE_MAX, handshake, message, switching, websocket_config};
use super::query::Query;
use super::status::Status;

/// The only one that a kubelet serves besides its base64 sibling.
const PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

/// More ports would need more channels than one byte can number.
const PORTS_MAX: usize = 127;

/// What port 80 says.
const PAGE: &str = "a page from inside\n";

/// What listens at a port of the pod.
enum Listener {
    Echo,
    /// The request so far.
    Http(Vec<u8>),
    /// It has said all, or nobody listens.
    Over,
}

struct Session {
    pod: String,
    ports: Vec<(u16, Listener)>,
}

/// Answers `…/pods/NAME/portforward` with a switch of protocols.
pub(crate) fn answer(
    server: &ApiServer,
    pod: &Value,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (protocol, accept) = handshake(request.headers(), &PROTOCOLS)?;
    let texts = query.all("ports");
    let ports = texts.iter().flat_map(|text| text.split(',')).map(|text| match text.parse() {
        Ok(port) if port > 0 => Ok((port, listener(port))),
        Ok(_) | Err(_) => Err(Status::bad_request(format!("unable to parse {text:?} as a port"))),
    });
    let ports: Vec<_> = ports.collect::<Result<_, _>>()?;
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(Status::bad_request(format!("query parameter \"ports\" is required, up to {PORTS_MAX} of them")));
    }
    let session = Session { pod: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), ports };
    let upgrade = hyper::upgrade::on(&mut request);
    let open = server.open_execs().enter();
    server.host().spawn("port-forward", async move {
        if let Err(error) = session.run(upgrade).await {
            tracing::debug!(%error, "a port-forward ended early");
        }
        drop(open);
    });
    Ok(switching(protocol, accept))
}

fn listener(port: u16) -> Listener {
    match port {
        7 => Listener::Echo,
        80 => Listener::Http(Vec::new()),
        _ => Listener::Over,
    }
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

impl Session {
    async fn run(mut self, upgrade: OnUpgrade) -> Result<(), Error> {
        let upgraded = upgrade.await.map_err(|error| Error::Io(std::io::Error::other(error)))?;
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(websocket_config())).await;
        for (n, (port, _)) in self.ports.iter().enumerate() {
            for channel in channels(n) {
                socket.feed(message(channel, &port.to_le_bytes())).await?;
            }
        }
        for (n, (port, listener)) in self.ports.iter().enumerate() {
            if matches!(listener, Listener::Over) {
                let [_, errors] = channels(n);
                let why = format!(
                    "error forwarding port {port} to pod {}: failed to connect to localhost:{port}: connection refused",
                    self.pod
                );
                socket.feed(message(errors, why.as_bytes())).await?;
            }
        }
        socket.flush().await?;
        while self.ports.iter().any(|(_, listener)| !matches!(listener, Listener::Over)) {
            match socket.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(Message::Binary(payload))) => self.receive(&mut socket, &payload).await?,
                Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(error),
            }
        }
        socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
        // The caller's own close, so that ours is not lost in a reset of bytes that nobody has read.
        let drained = async { while socket.next().await.is_some_and(|message| message.is_ok()) {} };
        let _ = tokio::time::timeout(CLOSE_MAX, drained).await;
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, payload: &Bytes) -> Result<(), Error> {
        let Some((channel, bytes)) = payload.split_first() else { return Ok(()) };
        let Some((_, listener)) = self.ports.get_mut(usize::from(*channel / 2)).filter(|_| channel % 2 == 0) else {
            tracing::debug!(channel, "a message on a channel that nobody reads");
            return Ok(());
        };
        match listener {
            Listener::Echo => socket.send(message(*channel, bytes)).await,
            Listener::Http(request) => {
                request.extend_from_slice(bytes);
                if !request.ends_with(b"\r\n\r\n") {
                    return Ok(());
                }
                *listener = Listener::Over;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", PAGE.len());
                socket.send(message(*channel, format!("{head}{PAGE}").as_bytes())).await
            }
            Listener::Over => Ok(()),
        }
    }
}

/// Data and errors of the `n`th port.
fn channels(n: usize) -> [u8; 2] {
    let data = u8::try_from(2 * n).unwrap_or(u8::MAX - 1);
    [data, data + 1]
}
