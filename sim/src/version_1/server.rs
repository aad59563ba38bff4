//! The version 1 server: `/connect` for agents, `/tunnel/ID/PATH` for callers, one connection id for each request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt;
use host::{Connection, Host};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{
    CLOSE, CONNECT, CONNECTED, COPY_BYTES, DATA, ERROR, FRAMES_WAITING_MAX, Frame, PING, PING_INTERVAL, PONG, Socket, receive,
    send, unwrapped,
};
use crate::machine::Program;

/// What it asks agents to dial.
const TARGET: &str = "kubernetes.default.svc:443";

type Body = Full<Bytes>;

/// The one agent that is connected.
#[derive(Default)]
struct Hub {
    agent: Mutex<Option<mpsc::Sender<Frame>>>,
    /// Where frames of each connection id go.
    waiting: Mutex<BTreeMap<u32, mpsc::Sender<Frame>>>,
    next_id: AtomicU32,
}

/// A version 1 server on the ports of ours.
pub(crate) fn server(public_port: u16, internal_port: u16) -> Program {
    Arc::new(move |host, mut drain| {
        Box::pin(async move {
            let hub = Arc::new(Hub::default());
            let public = listen(&host, public_port, hub.clone(), |host, hub, request| {
                Box::pin(async move { connect(&host, hub, request) })
            });
            let internal = listen(&host, internal_port, hub, |host, hub, request| Box::pin(tunnel(host, hub, request)));
            tokio::select! {
                biased;
                () = drain.started() => host.tasks().abort_all(),
                ended = async { tokio::try_join!(public, internal) } => {
                    ended.map_err(|error| error.to_string())?;
                }
            }
            Ok(())
        })
    })
}

type Answering = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<Response<Body>>> + Send>>;

async fn listen(
    host: &Host,
    port: u16,
    hub: Arc<Hub>,
    answer: fn(Host, Arc<Hub>, Request<Incoming>) -> Answering,
) -> anyhow::Result<()> {
    let listener = host.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
    loop {
        let connection = listener.accept().await?;
        let (host_, hub) = (host.clone(), hub.clone());
        let service = service_fn(move |request| {
            let answered = answer(host_.clone(), hub.clone(), request);
            async move {
                let failed = |error: anyhow::Error| answer_of(StatusCode::BAD_GATEWAY, format!("bad gateway: {error:#}"));
                Ok::<_, Infallible>(answered.await.unwrap_or_else(failed))
            }
        });
        host.spawn("version 1 door", async move {
            // How it ended, its peer was told.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).with_upgrades().await;
        });
    }
}

fn connect(host: &Host, hub: Arc<Hub>, mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let key = request.headers().get("sec-websocket-key").context("no WebSocket")?;
    let mut response = answer_of(StatusCode::SWITCHING_PROTOCOLS, String::new());
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert("sec-websocket-accept", derive_accept_key(key.as_bytes()).parse()?);
    let upgraded = hyper::upgrade::on(&mut request);
    host.spawn("version 1 session", async move {
        let session = async { session(unwrapped(upgraded.await?)?, &hub).await };
        if let Err(error) = session.await {
            tracing::info!(error = format!("{error:#}"), "the version 1 server lost its agent");
        }
    });
    Ok(response)
}

async fn session(connection: Connection, hub: &Hub) -> anyhow::Result<()> {
    let socket: Socket = Box::new(connection);
    let (mut writer, mut reader) = WebSocketStream::from_raw_socket(socket, Role::Server, None).await.split();
    let (frames, mut waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    *hub.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(frames);
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        tokio::select! {
            biased;
            frame = receive(&mut reader) => match frame? {
                None => return Ok(()),
                Some(frame) if frame.kind == PING => send(&mut writer, Frame::new(PONG, 0, "")).await?,
                Some(frame) => {
                    let of = hub.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(&frame.id).cloned();
                    if let Some(of) = of {
                        // Its request may be over.
                        let _ = of.send(frame).await;
                    }
                }
            },
            Some(frame) = waiting.recv() => send(&mut writer, frame).await?,
            _ = pings.tick() => send(&mut writer, Frame::new(PING, 0, "")).await?,
        }
    }
}

/// One request: Connect, wait for Connected, an HTTP/1.1 exchange with `Connection: close`, Close.
async fn tunnel(host: Host, hub: Arc<Hub>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let path = request.uri().path_and_query().map(|path| path.as_str().to_owned()).context("no path")?;
    let path = path.strip_prefix("/tunnel/edge-1").context("only /tunnel/edge-1 is served")?.to_owned();
    let agent = hub.agent.lock().unwrap_or_else(PoisonError::into_inner).clone().context("no agent")?;
    let id = hub.next_id.fetch_add(1, Ordering::Relaxed) + 1;
    let (sender, mut received) = mpsc::channel(FRAMES_WAITING_MAX);
    hub.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
    agent.send(Frame::new(CONNECT, id, TARGET)).await?;
    let answer = received.recv().await.context("no answer to Connect")?;
    anyhow::ensure!(answer.kind == CONNECTED, "{}", String::from_utf8_lossy(&answer.payload));

    let (ours, theirs) = tokio::io::duplex(COPY_BYTES);
    let to_agent = agent.clone();
    host.spawn("version 1 copier", async move {
        // Either side ended; the exchange says what is missing.
        let _ = pump(theirs, id, &to_agent, &mut received).await;
    });
    let (head, body) = request.into_parts();
    let mut request = Request::builder().method(head.method).uri(path).body(Full::new(body.collect().await?.to_bytes()))?;
    *request.headers_mut() = head.headers;
    request.headers_mut().insert(HOST, HeaderValue::from_static(TARGET));
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut exchange, driving) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await?;
    host.spawn("version 1 exchange", async move {
        // Errors come with the answer.
        let _ = driving.await;
    });
    let response = exchange.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await;
    agent.send(Frame::new(CLOSE, id, "")).await?;
    hub.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    let mut response = Response::new(Full::new(body?.to_bytes()));
    *response.status_mut() = status;
    Ok(response)
}

/// Bytes of the exchange as frames, and back.
async fn pump(
    mut io: DuplexStream,
    id: u32,
    agent: &mpsc::Sender<Frame>,
    received: &mut mpsc::Receiver<Frame>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        tokio::select! {
            biased;
            frame = received.recv() => match frame.context("the request is over")? {
                Frame { kind: DATA, payload, .. } => io.write_all(&payload).await?,
                Frame { kind: ERROR, payload, .. } => anyhow::bail!("{}", String::from_utf8_lossy(&payload)),
                // A second Connected makes the Go server panic.
                Frame { kind: CONNECTED, .. } => anyhow::bail!("connected twice"),
                Frame { .. } => return Ok(()),
            },
            n = io.read(&mut buffer) => match n? {
                0 => std::future::pending().await,
                n => agent.send(Frame::new(DATA, id, buffer[..n].to_vec())).await?,
            },
        }
    }
}

fn answer_of(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
