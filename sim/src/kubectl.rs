//! kubectl as a caller: what a person types.

use std::ops::Deref;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

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

    /// `kubectl exec -i POD -- COMMAND` in the namespace `default`, over WebSocket, version 5 of the protocol.
    pub async fn exec(&self, cluster: &str, pod: &str, command: &[&str]) -> anyhow::Result<Exec> {
        let command: String = command.iter().map(|word| format!("&command={word}")).collect();
        let path = format!("/api/v1/namespaces/default/pods/{pod}/exec?stdin=true&stdout=true&stderr=true{command}");
        let call = self.get(cluster, &path).header("sec-websocket-version", "13").header("sec-websocket-key", WEBSOCKET_KEY);
        let io = call.header("sec-websocket-protocol", "v5.channel.k8s.io").upgrade("websocket").await?;
        Ok(Exec { socket: WebSocketStream::from_raw_socket(io, Role::Client, None).await })
    }
}

impl Deref for Kubectl {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// A command that runs in a pod.
pub struct Exec {
    socket: WebSocketStream<TokioIo<Upgraded>>,
}

impl Exec {
    /// Types into the command.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let frame: Bytes = [&[STDIN], bytes].concat().into();
        self.socket.send(Message::Binary(frame)).await.context("the command takes no input")
    }

    /// Ends the command's input; its output goes on.
    pub async fn close_stdin(&mut self) -> anyhow::Result<()> {
        self.socket
            .send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN])))
            .await
            .context("the command's input cannot be closed")
    }

    /// The next output: its channel (1 is stdout, 2 stderr, 3 how it ended) and bytes; nothing after the last.
    pub async fn read(&mut self) -> anyhow::Result<Option<(u8, Bytes)>> {
        while let Some(message) = self.socket.next().await {
            match message.context("the command's output broke off")? {
                Message::Binary(mut bytes) if !bytes.is_empty() => {
                    let channel = bytes.split_to(1)[0];
                    return Ok(Some((channel, bytes)));
                }
                Message::Close(_) => return Ok(None),
                Message::Binary(_) | Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(None)
    }
}
