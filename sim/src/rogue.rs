//! Rogues: ends of a session that speak the wire well and mean ill.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use host::{Connection, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;
use tunnel::{Budget, Incoming, Protocol, Role, SessionConfig, SessionHandle};

use crate::machine::{Program, persistent};
use crate::world::tunnel_token;

/// Between two attempts of an agent.
const PAUSE: Duration = Duration::from_millis(100);

/// What a rogue holds for its peer: more than any peer asks for.
const BUDGET_BYTES: usize = 1 << 30;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Longer than the head of any handshake.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What plays the agents of a cluster instead of ours.
#[derive(Clone)]
pub struct Rogue(Program);

impl Rogue {
    /// Makes one attempt after another; how each ends is its own business.
    pub fn new<F>(attempt: impl Fn(Host) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let attempt = Arc::new(attempt);
        Self(persistent(PAUSE, move |host| {
            let attempt = attempt.clone();
            Box::pin(async move { drop(attempt(host).await) })
        }))
    }

    pub(crate) fn program(&self) -> Program {
        self.0.clone()
    }
}

impl fmt::Debug for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rogue")
    }
}

/// Dials the hub with a good token of `cluster` and holds a session, which calls itself `name`.
///
/// # Errors
/// The hub wants none.
pub async fn dial(host: &Host, cluster: &str, name: &str) -> anyhow::Result<(SessionHandle, Incoming)> {
    let (io, early) = upgrade(host, cluster).await?;
    hold(host, Role::Agent, Protocol::Extended, name, (io, early)).await
}

/// The same up to the end of the handshake, for frames that no session would send.
///
/// # Errors
/// The hub wants none.
pub async fn dial_raw(host: &Host, cluster: &str) -> anyhow::Result<WebSocketStream<Connection>> {
    let (io, early) = upgrade(host, cluster).await?;
    Ok(WebSocketStream::from_partially_read(io, early.to_vec(), WebSocketRole::Client, None).await)
}

/// Takes an agent that dials, and holds a session over `protocol` with it.
///
/// # Errors
/// It is no agent, or it left.
pub async fn accept(host: &Host, io: Connection, protocol: Protocol) -> anyhow::Result<(SessionHandle, Incoming)> {
    let taken = switch(io, protocol).await?;
    hold(host, Role::Server, protocol, "a rogue", taken).await
}

/// The same up to the end of the handshake, for frames that no session would send.
///
/// # Errors
/// It is no agent, or it left.
pub async fn accept_raw(io: Connection, protocol: Protocol) -> anyhow::Result<WebSocketStream<Connection>> {
    let (io, early) = switch(io, protocol).await?;
    Ok(WebSocketStream::from_partially_read(io, early.to_vec(), WebSocketRole::Server, None).await)
}

async fn upgrade(host: &Host, cluster: &str) -> anyhow::Result<(Connection, Bytes)> {
    let mut io = host.dial("hub", 8443).await?;
    let token = tunnel_token(cluster);
    let request = format!(
        "GET /connect HTTP/1.1\r\nhost: hub:8443\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {KEY}\r\npostern-tunnel: 2\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    let (head, early) = head(&mut io).await?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    Ok((io, early))
}

async fn switch(mut io: Connection, protocol: Protocol) -> anyhow::Result<(Connection, Bytes)> {
    let (head, early) = head(&mut io).await?;
    let key =
        head.lines().find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim()));
    let accept = derive_accept_key(key.context("no WebSocket")?.as_bytes());
    let version = if protocol == Protocol::Extended { "postern-tunnel: 2\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n{version}\r\n"
    );
    io.write_all(answer.as_bytes()).await?;
    Ok((io, early))
}

async fn head(io: &mut Connection) -> anyhow::Result<(String, Bytes)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let early = Bytes::from(bytes.split_off(end + 4));
            return Ok((String::from_utf8(bytes)?, early));
        }
        ensure!(bytes.len() < HEAD_BYTES_MAX && io.read_buf(&mut bytes).await? > 0, "half a handshake");
    }
}

async fn hold(
    host: &Host,
    role: Role,
    protocol: Protocol,
    name: &str,
    (io, early): (Connection, Bytes),
) -> anyhow::Result<(SessionHandle, Incoming)> {
    let budget = Arc::new(Budget::new(BUDGET_BYTES));
    let config = SessionConfig { name: name.to_owned(), ..SessionConfig::new(role, protocol, budget) };
    let (handle, incoming, driver) = tunnel::start(config, io, early).await;
    host.spawn("rogue", async move {
        // Who is thrown out dials again.
        let _ = driver.run().await;
    });
    handle.established().await?;
    Ok((handle, incoming))
}
