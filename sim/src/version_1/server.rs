//! The version 1 server: `/connect` for agents, `/tunnel/ID/PATH` for callers, one connection id for each request.
//!
//! Its wart is kept: the end of any session of a cluster forgets the cluster's agent, also a newer one's.

mod exchange;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt;
use host::{Connection, Host};
use http::header::{AUTHORIZATION, CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{FRAMES_WAITING_MAX, Frame, PING, PING_INTERVAL, PONG, Socket, receive, send, unwrapped};
use crate::machine::Program;
use crate::world::tunnel_token;

/// After this long without a pong the Go server gives a session up.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The Go server holds 64 MiB of an answer for its reader, here in frames of the size that agents send.
const FRAMES_HELD_MAX: usize = (64 << 20) / super::COPY_BYTES;

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// The agents that are connected.
struct Hub {
    /// The clusters by the `Authorization` of their agents.
    clusters: BTreeMap<String, String>,
    agents: Mutex<BTreeMap<String, mpsc::Sender<Frame>>>,
    /// Where frames of each connection id go, with the cluster that it leads to.
    waiting: Mutex<BTreeMap<u32, (String, mpsc::Sender<Frame>)>>,
    last_id: AtomicU32,
}

/// A version 1 server on the ports of ours.
pub(crate) fn server(public_port: u16, internal_port: u16, clusters: &[String]) -> Program {
    let clusters: BTreeMap<_, _> = clusters.iter().map(|id| (format!("Bearer {}", tunnel_token(id)), id.clone())).collect();
    Arc::new(move |host, mut drain| {
        let hub =
            Hub { clusters: clusters.clone(), agents: Mutex::default(), waiting: Mutex::default(), last_id: AtomicU32::new(0) };
        Box::pin(async move {
            let hub = Arc::new(hub);
            let public = listen(&host, public_port, hub.clone(), |host, hub, request| {
                Box::pin(async move { connect(&host, hub, request) })
            });
            let internal = listen(&host, internal_port, hub, |host, hub, request| Box::pin(answer(host, hub, request)));
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
            let _ = http1::Builder::new()
                .auto_date_header(false)
                .serve_connection(TokioIo::new(connection), service)
                .with_upgrades()
                .await;
        });
    }
}

fn connect(host: &Host, hub: Arc<Hub>, mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(cluster) = hub.clusters.get(token).cloned() else {
        return Ok(answer_of(StatusCode::UNAUTHORIZED, "unauthorized".to_owned()));
    };
    let Some(key) = request.headers().get("sec-websocket-key") else {
        // As gorilla's upgrader says it.
        let why = "Bad Request\nwebsocket: the client is not using the websocket protocol: 'upgrade' token not found in 'Connection' header";
        let mut response = answer_of(StatusCode::BAD_REQUEST, why.to_owned());
        response.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
        return Ok(response);
    };
    let mut response = answer_of(StatusCode::SWITCHING_PROTOCOLS, String::new());
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert("sec-websocket-accept", derive_accept_key(key.as_bytes()).parse()?);
    let upgraded = hyper::upgrade::on(&mut request);
    host.spawn("version 1 session", async move {
        let session = async { session(unwrapped(upgraded.await?)?, &hub, &cluster).await };
        let ended = session.await;
        hub.agents().remove(&cluster);
        // Those that wait for this cluster's frames find their channel closed.
        hub.waiting().retain(|_, (of, _)| *of != cluster);
        if let Err(error) = ended {
            tracing::info!(error = format!("{error:#}"), "the version 1 server lost its agent");
        }
    });
    Ok(response)
}

async fn session(connection: Connection, hub: &Hub, cluster: &str) -> anyhow::Result<()> {
    let socket: Socket = Box::new(connection);
    let (mut writer, mut reader) = WebSocketStream::from_raw_socket(socket, Role::Server, None).await.split();
    let (frames, mut waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    hub.agents().insert(cluster.to_owned(), frames);
    let mut pings = tokio::time::interval(PING_INTERVAL);
    let mut ponged_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(ponged_at + SILENCE_MAX) => anyhow::bail!("no pong for {SILENCE_MAX:?}"),
            frame = receive(&mut reader) => match frame? {
                None => return Ok(()),
                Some(frame) if frame.kind == PING => send(&mut writer, Frame::new(PONG, 0, "")).await?,
                Some(frame) if frame.kind == PONG => ponged_at = Instant::now(),
                Some(frame) => {
                    let id = frame.id;
                    let of = hub.waiting().get(&id).map(|(_, of)| of.clone());
                    // A reader that is 64 MiB behind is cut; one that has left is no longer waiting.
                    if of.is_some_and(|of| of.try_send(frame).is_err()) {
                        hub.waiting().remove(&id);
                    }
                }
            },
            Some(frame) = waiting.recv() => send(&mut writer, frame).await?,
            _ = pings.tick() => send(&mut writer, Frame::new(PING, 0, "")).await?,
        }
    }
}

async fn answer(host: Host, hub: Arc<Hub>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).context("no path")?;
    if target == "/metrics" {
        return Ok(answer_of(StatusCode::OK, format!("agents_connected {}\n", hub.agents().len())));
    }
    let (cluster, path) = target.strip_prefix("/tunnel/").and_then(|rest| rest.split_once('/')).context("no tunnel")?;
    exchange::through(&host, hub, cluster, &format!("/{path}"), request).await
}

impl Hub {
    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, mpsc::Sender<Frame>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u32, (String, mpsc::Sender<Frame>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_of(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
