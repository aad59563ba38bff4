//! One request through a version 1 tunnel: Connect, wait for Connected, an HTTP/1.1 exchange, Close.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};

use anyhow::Context;
use bytes::Bytes;
use host::Host;
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::super::{CLOSE, CONNECT, CONNECTED, COPY_BYTES, DATA, ERROR, Frame};
use super::{Body, FRAMES_HELD_MAX, Hub};

/// What it asks agents to dial.
const TARGET: &str = "kubernetes.default.svc:443";

/// A connection id in use. Dropping it says Close, whoever ended the exchange.
struct Exchange {
    id: u32,
    hub: Arc<Hub>,
    agent: mpsc::Sender<Frame>,
    host: Host,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.hub.waiting().remove(&self.id);
        let (agent, close) = (self.agent.clone(), Frame::new(CLOSE, self.id, ""));
        self.host.spawn("version 1 close", async move {
            // The session may be over.
            let _ = agent.send(close).await;
        });
    }
}

/// Sends a request to `path` of `cluster`; its answer's body flows as it comes.
pub(super) async fn through(
    host: &Host,
    hub: Arc<Hub>,
    cluster: &str,
    path: &str,
    mut request: Request<Incoming>,
) -> anyhow::Result<Response<Body>> {
    let agent = hub.agents().get(cluster).cloned().context("no agent")?;
    let id = hub.last_id.fetch_add(1, Ordering::Relaxed) + 1;
    let (sender, mut received) = mpsc::channel(FRAMES_HELD_MAX);
    hub.waiting().insert(id, (cluster.to_owned(), sender));
    let exchange = Exchange { id, hub, agent: agent.clone(), host: host.clone() };
    agent.send(Frame::new(CONNECT, id, TARGET)).await?;
    let connected = received.recv().await.context("no answer to Connect")?;
    anyhow::ensure!(connected.kind == CONNECTED, "{}", String::from_utf8_lossy(&connected.payload));

    let (ours, theirs) = tokio::io::duplex(COPY_BYTES);
    host.spawn("version 1 copier", async move {
        // Either side ended; the exchange says what is missing.
        let _ = pump(theirs, id, &agent, &mut received).await;
    });
    let caller = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (mut sender, driving) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await?;
    host.spawn("version 1 exchange", async move {
        // Errors come with the answer.
        let _ = driving.with_upgrades().await;
    });
    let mut response = sender.send_request(rewritten(request, path)?).await?;
    match caller {
        Some(caller) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let upstream = hyper::upgrade::on(&mut response);
            host.spawn("version 1 upgrade", async move {
                let _exchange = exchange;
                if let (Ok(caller), Ok(upstream)) = (caller.await, upstream.await) {
                    let (mut from_caller, mut to_caller) = tokio::io::split(TokioIo::new(caller));
                    let (mut from_agent, mut to_agent) = tokio::io::split(TokioIo::new(upstream));
                    // The first end ends both: there is no half-close.
                    tokio::select! {
                        biased;
                        _ = tokio::io::copy(&mut from_agent, &mut to_caller) => {}
                        _ = tokio::io::copy(&mut from_caller, &mut to_agent) => {}
                    }
                }
            });
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        }
        Some(_) | None => Ok(response.map(|body| Flowing { body, _sender: sender, _exchange: exchange }.boxed_unsync())),
    }
}

fn rewritten(request: Request<Incoming>, path: &str) -> anyhow::Result<Request<Incoming>> {
    let (mut head, body) = request.into_parts();
    head.uri = path.parse()?;
    head.headers.insert(HOST, HeaderValue::from_static(TARGET));
    head.headers.remove(AUTHORIZATION);
    let option = if head.headers.contains_key(UPGRADE) { "Upgrade" } else { "close" };
    head.headers.insert(CONNECTION, HeaderValue::from_static(option));
    Ok(Request::from_parts(head, body))
}

/// An answer's body; the exchange is over when it is dropped.
struct Flowing {
    body: Incoming,
    _sender: hyper::client::conn::http1::SendRequest<Incoming>,
    _exchange: Exchange,
}

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, anyhow::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of the exchange as frames, and back.
async fn pump(
    io: DuplexStream,
    id: u32,
    agent: &mpsc::Sender<Frame>,
    received: &mut mpsc::Receiver<Frame>,
) -> anyhow::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(io);
    let answer = async {
        loop {
            let frame = received.recv().await.context("the request is over")?;
            match frame.kind {
                DATA => writer.write_all(&frame.payload).await?,
                ERROR => anyhow::bail!("{}", String::from_utf8_lossy(&frame.payload)),
                // A second Connected makes the Go server panic.
                CONNECTED => anyhow::bail!("connected twice"),
                _ => return Ok(()),
            }
        }
    };
    let question = async {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match reader.read(&mut buffer).await? {
                0 => std::future::pending().await,
                n => agent.send(Frame::new(DATA, id, buffer[..n].to_vec())).await?,
            }
        }
    };
    tokio::select! {
        biased;
        ended = answer => ended,
        ended = question => ended,
    }
}
