//! Version 1 peers: an agent and a server that behave as the recorded Go programs do, warts included.
//!
//! Written from the wire, not from our own tunnel: they share no code with it, so that they can disagree with it.

mod agent;
mod server;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use host::Connection;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

pub(crate) use agent::agent;
pub(crate) use server::server;

const CONNECT: u8 = 0x01;
const CONNECTED: u8 = 0x02;
const DATA: u8 = 0x03;
const ERROR: u8 = 0x04;
const CLOSE: u8 = 0x05;
const PING: u8 = 0x06;
const PONG: u8 = 0x07;

/// What the Go programs copy at a time.
const COPY_BYTES: usize = 32 * 1024;

/// How often both Go programs ping.
const PING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(15);

/// Frames that wait for the socket; a copier that finds this full waits.
const FRAMES_WAITING_MAX: usize = 16;

type Writer = SplitSink<WebSocketStream<Socket>, Message>;
type Reader = SplitStream<WebSocketStream<Socket>>;

/// The agent dials, the server takes an upgraded connection.
type Socket = Box<dyn host::Io>;

/// One version 1 frame.
#[derive(Debug, Clone)]
struct Frame {
    kind: u8,
    id: u32,
    payload: Bytes,
}

impl Frame {
    fn new(kind: u8, id: u32, payload: impl Into<Bytes>) -> Self {
        Self { kind, id, payload: payload.into() }
    }
}

async fn send(writer: &mut Writer, frame: Frame) -> anyhow::Result<()> {
    let mut message = BytesMut::with_capacity(5 + frame.payload.len());
    message.put_u8(frame.kind);
    message.put_u32(frame.id);
    message.put_slice(&frame.payload);
    Ok(writer.send(Message::Binary(message.freeze())).await?)
}

/// The next frame; none when the peer has closed.
async fn receive(reader: &mut Reader) -> anyhow::Result<Option<Frame>> {
    loop {
        let message = match reader.next().await {
            Some(Ok(Message::Binary(message))) => message,
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Ok(Message::Text(text))) => anyhow::bail!("a text message: {text}"),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(error)) => return Err(error.into()),
        };
        anyhow::ensure!(message.len() >= 5, "a frame of {} bytes", message.len());
        let id = u32::from_be_bytes(message[1..5].try_into()?);
        let kind = message[0];
        anyhow::ensure!((CONNECT..=PONG).contains(&kind), "frame type {kind:#04x}, which version 1 does not have");
        return Ok(Some(Frame { kind, id, payload: message.slice(5..) }));
    }
}

/// An upgraded server connection without hyper's wrapping.
fn unwrapped(upgraded: hyper::upgrade::Upgraded) -> anyhow::Result<Connection> {
    let parts = upgraded.downcast::<TokioIo<Connection>>().map_err(|_| anyhow::anyhow!("not a fabric connection"))?;
    anyhow::ensure!(parts.read_buf.is_empty(), "frames before the upgrade");
    Ok(parts.io.into_inner())
}
