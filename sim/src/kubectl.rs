//! kubectl as a caller: what a person types.

mod logs;
mod port_forward;

use std::ops::Deref;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

pub use logs::{Logs, LogsFollow};
pub use port_forward::{Forwarded, PortForward};

use crate::caller::Caller;

/// The key of RFC 6455's own example: nobody here guards against caches.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Channels of the remote command protocol (k8s.io/apimachinery, pkg/util/remotecommand).
const STDIN: u8 = 0;
const CLOSE: u8 = 255;

/// kubectl.
#[derive(Clone)]
pub struct Kubectl(Caller);

impl Kubectl {
    pub(crate) fn new(caller: Caller) -> Self {
        Self(caller)
    }

    /// The same with another identity, say.
    pub fn with(&self, change: impl FnOnce(&Caller) -> Caller) -> Self {
        Self(change(&self.0))
    }

    /// `kubectl exec -i POD -- COMMAND` in the namespace `default`, over WebSocket, version 5 of the protocol.
    pub async fn exec(&self, cluster: &str, pod: &str, command: &[&str]) -> anyhow::Result<Exec> {
        let command: String = command.iter().map(|word| format!("&command={word}")).collect();
        let path = format!("/api/v1/namespaces/default/pods/{pod}/exec?stdin=true&stdout=true&stderr=true{command}");
        Ok(Exec { channels: self.channels(cluster, &path, "v5.channel.k8s.io").await? })
    }

    /// `kubectl port-forward POD PORT…` in the namespace `default`, in the channel protocol that an API server speaks over
    /// a plain WebSocket.
    pub async fn port_forward(&self, cluster: &str, pod: &str, ports: &[u16]) -> anyhow::Result<PortForward> {
        let query: Vec<_> = ports.iter().map(|port| format!("ports={port}")).collect();
        let path = format!("/api/v1/namespaces/default/pods/{pod}/portforward?{}", query.join("&"));
        Ok(PortForward::new(self.channels(cluster, &path, "v4.channel.k8s.io").await?, ports))
    }

    /// `kubectl logs -f POD` in the namespace `default`.
    pub fn logs_follow(&self, cluster: &str, pod: &str) -> LogsFollow {
        LogsFollow::new(self, cluster, pod)
    }

    async fn channels(&self, cluster: &str, path: &str, subprotocol: &str) -> anyhow::Result<Channels> {
        let call = self.get(cluster, path).header("sec-websocket-version", "13").header("sec-websocket-key", WEBSOCKET_KEY);
        let io = call.header("sec-websocket-protocol", subprotocol).upgrade("websocket").await?;
        Ok(Channels(WebSocketStream::from_raw_socket(io, Role::Client, None).await))
    }
}

impl Deref for Kubectl {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// A WebSocket whose messages begin with the number of a channel.
struct Channels(WebSocketStream<TokioIo<Upgraded>>);

impl Channels {
    async fn write(&mut self, channel: u8, bytes: &[u8]) -> anyhow::Result<()> {
        let message: Bytes = [&[channel], bytes].concat().into();
        self.0.send(Message::Binary(message)).await.with_context(|| format!("channel {channel} takes nothing"))
    }

    /// The next message's channel and bytes; nothing after the other side's close.
    async fn read(&mut self) -> anyhow::Result<Option<(u8, Bytes)>> {
        while let Some(message) = self.0.next().await {
            match message.context("the channels broke off")? {
                Message::Binary(mut bytes) if !bytes.is_empty() => {
                    let channel = bytes.split_to(1)[0];
                    return Ok(Some((channel, bytes)));
                }
                Message::Close(_) => return Ok(None),
                Message::Binary(_) | Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        anyhow::bail!("the channels broke off without a close")
    }

    /// Says goodbye and waits for the other side's.
    async fn close(&mut self) -> anyhow::Result<()> {
        self.0.close(None).await.context("the channels cannot be closed")?;
        while self.0.next().await.is_some_and(|message| message.is_ok()) {}
        Ok(())
    }
}

/// A command that runs in a pod.
pub struct Exec {
    channels: Channels,
}

impl Exec {
    /// Types into the command.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.channels.write(STDIN, bytes).await
    }

    /// Ends the command's input; its output goes on.
    pub async fn close_stdin(&mut self) -> anyhow::Result<()> {
        self.channels.write(CLOSE, &[STDIN]).await
    }

    /// The next output: its channel (1 is stdout, 2 stderr, 3 how it ended) and bytes; nothing after the last.
    pub async fn read(&mut self) -> anyhow::Result<Option<(u8, Bytes)>> {
        self.channels.read().await
    }
}
