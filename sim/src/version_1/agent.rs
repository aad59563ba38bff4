//! The version 1 agent: a TCP connection for each Connect, bytes copied both ways, its token put into the head.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{
    CLOSE, CONNECT, CONNECTED, COPY_BYTES, DATA, ERROR, FRAMES_WAITING_MAX, Frame, PING, PING_INTERVAL, PONG, Socket, receive,
    send,
};
use crate::machine::{Program, persistent};
use crate::world::{service_account_token, tunnel_token};

/// The one address it dials.
const TARGET: (&str, u16) = ("kubernetes.default.svc", 443);

/// The pause before it dials the hub again.
const REDIAL: Duration = Duration::from_millis(500);

/// Where bytes for each connection go, and whether it stands already; a closed one has none.
type Connections = BTreeMap<u32, (mpsc::Sender<Bytes>, bool)>;

/// The agent of `cluster`.
pub(crate) fn agent(cluster: &str) -> Program {
    let cluster = cluster.to_owned();
    persistent(REDIAL, move |host| {
        let cluster = cluster.clone();
        Box::pin(async move {
            if let Err(error) = serve(&host, &cluster).await {
                tracing::info!(error = format!("{error:#}"), "the version 1 agent lost its hub");
            }
        })
    })
}

async fn serve(host: &Host, cluster: &str) -> anyhow::Result<()> {
    let socket: Socket = Box::new(host.dial("hub", 8443).await?);
    let mut request = "ws://hub:8443/connect".into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {}", tunnel_token(cluster)).parse()?);
    let (websocket, response) = client_async(request, socket).await?;
    anyhow::ensure!(!response.headers().contains_key("postern-tunnel"), "extensions that were not asked for");
    let (mut writer, mut reader) = websocket.split();
    let (frames, mut waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    let mut connections = Connections::new();
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        tokio::select! {
            biased;
            frame = receive(&mut reader) => {
                let Some(frame) = frame? else { return Ok(()) };
                if let Some(answer) = take(host, cluster, frame, &mut connections, &frames).await {
                    send(&mut writer, answer).await?;
                }
            }
            Some(frame) = waiting.recv() => {
                if frame.kind == CONNECTED && let Some((_, is_connected)) = connections.get_mut(&frame.id) {
                    *is_connected = true;
                }
                send(&mut writer, frame).await?;
            }
            _ = pings.tick() => send(&mut writer, Frame::new(PING, 0, "")).await?,
        }
    }
}

async fn take(
    host: &Host,
    cluster: &str,
    frame: Frame,
    connections: &mut Connections,
    frames: &mpsc::Sender<Frame>,
) -> Option<Frame> {
    match frame.kind {
        CONNECT => {
            if frame.payload != format!("{}:{}", TARGET.0, TARGET.1) {
                return Some(Frame::new(ERROR, frame.id, "address not allowed"));
            }
            let (bytes, received) = mpsc::channel(FRAMES_WAITING_MAX);
            connections.insert(frame.id, (bytes, false));
            let (frames, host_, cluster) = (frames.clone(), host.clone(), cluster.to_owned());
            host.spawn("version 1 connection", async move {
                if let Err(error) = connection(&host_, &cluster, frame.id, received, &frames).await {
                    // The session is over if nobody takes it.
                    let _ = frames.send(Frame::new(ERROR, frame.id, error.to_string())).await;
                }
            });
            None
        }
        DATA => {
            // Data that comes before Connected is dropped in silence.
            if let Some((bytes, true)) = connections.get(&frame.id) {
                // The connection may have ended meanwhile.
                let _ = bytes.send(frame.payload).await;
            }
            None
        }
        // Its end of the bytes goes, the copier of the answer stays: it sends Data into the closed connection.
        CLOSE => connections.remove(&frame.id).map(|_| Frame::new(CLOSE, frame.id, "")),
        PING => Some(Frame::new(PONG, 0, "")),
        _ => None,
    }
}

/// One connection to the API server.
async fn connection(
    host: &Host,
    cluster: &str,
    id: u32,
    mut received: mpsc::Receiver<Bytes>,
    frames: &mpsc::Sender<Frame>,
) -> anyhow::Result<()> {
    let upstream = host.dial(TARGET.0, TARGET.1).await?;
    let (reader, mut writer) = tokio::io::split(upstream);
    frames.send(Frame::new(CONNECTED, id, "")).await?;
    let copier = frames.clone();
    host.spawn("version 1 copier", async move {
        // The session is over if nobody takes its frames.
        let _ = copy(reader, id, &copier).await;
    });
    let (head, body) = head(&mut received).await?;
    let (line, rest) = head.split_once("\r\n").context("a head without a line")?;
    let token = service_account_token(cluster);
    writer.write_all(format!("{line}\r\nAuthorization: Bearer {token}\r\n{rest}").as_bytes()).await?;
    writer.write_all(&body).await?;
    while let Some(bytes) = received.recv().await {
        writer.write_all(&bytes).await?;
    }
    // Not shut down: the Go agent leaves the API server speaking.
    std::future::pending().await
}

/// The request's head, and what of its body came with it.
async fn head(received: &mut mpsc::Receiver<Bytes>) -> anyhow::Result<(String, BytesMut)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = BytesMut::new();
    loop {
        if let Some(at) = head.windows(END.len()).position(|end| end == END) {
            let body = head.split_off(at + END.len());
            return Ok((String::from_utf8(head.to_vec())?, body));
        }
        head.extend_from_slice(&received.recv().await.context("closed before a head")?);
    }
}

async fn copy(mut reader: ReadHalf<host::Connection>, id: u32, frames: &mpsc::Sender<Frame>) -> anyhow::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let n = reader.read(&mut buffer).await?;
        if n == 0 {
            // It says nothing at the end: the server sees it in the answer's framing and sends Close.
            return Ok(());
        }
        frames.send(Frame::new(DATA, id, buffer[..n].to_vec())).await?;
    }
}
