//! A hostile agent: it has a good token, says hello, and then sends frames that no peer should.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::{SinkExt, StreamExt};
use host::Host;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::machine::{Program, persistent};
use crate::world::tunnel_token;

/// Messages of one attempt; by then the server has hung up.
const MESSAGES: usize = 200;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The agent of `cluster`: connects again and again.
pub(crate) fn agent(cluster: &str) -> Program {
    let cluster = cluster.to_owned();
    persistent(PAUSE, move |host| {
        let cluster = cluster.clone();
        // How an attempt ends is the server's business.
        Box::pin(async move { drop(attack(&host, &cluster).await) })
    })
}

async fn attack(host: &Host, cluster: &str) -> anyhow::Result<()> {
    let socket = host.dial("hub", 8443).await?;
    let mut request = "ws://hub:8443/connect".into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {}", tunnel_token(cluster)).parse()?);
    request.headers_mut().insert("postern-tunnel", "2".parse()?);
    let (mut websocket, _) = client_async(request, socket).await?;
    // Half of the time it lets the server believe in it first.
    if host.chance().is_multiple_of(2) {
        websocket.send(Message::Binary(hello())).await?;
        let _hello = websocket.next().await;
    }
    for _ in 0..MESSAGES {
        websocket.send(any_message(host)).await?;
    }
    // It never reads: what the server says piles up on its side of the wire.
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

/// Version 2, a huge window, a million streams.
fn hello() -> bytes::Bytes {
    let mut hello = BytesMut::from(&[0x10, 0, 0, 0, 0][..]);
    for (tag, value) in [(1u16, &[2u8][..]), (2, &[2]), (3, &[0x40, 0, 0, 0]), (4, &[0, 0x0f, 0x42, 0x40])] {
        hello.put_u16(tag);
        hello.put_u16(value.len() as u16);
        hello.put_slice(value);
    }
    hello.freeze()
}

/// A frame of any type on a low stream with any payload, a text, or noise.
fn any_message(host: &Host) -> Message {
    let dice = host.chance();
    let noise: Vec<u8> = (0..dice >> 8 & 0x3f).flat_map(|_| host.chance().to_be_bytes()).collect();
    match dice & 0x0f {
        0 => Message::text("what is this?"),
        1 => Message::binary(noise),
        // Shorter than a frame's header.
        2 | 3 => Message::binary(noise[..noise.len().min((dice >> 40 & 0x03) as usize + 1)].to_vec()),
        _ => {
            let mut frame = BytesMut::new();
            frame.put_u8((dice >> 16) as u8 & 0x17);
            frame.put_u32((dice >> 24) as u32 & 0x03);
            frame.put_slice(&noise);
            Message::Binary(frame.freeze())
        }
    }
}
