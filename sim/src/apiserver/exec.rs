//! exec and attach over WebSocket, `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of a message is its channel: 0 stdin, 1 stdout, 2 stderr, 3 the closing `Status`, 4 terminal sizes;
//! in v5 a message on 255 closes the channel that its second byte names. One task reads a message, lets the program
//! work on it and writes what it said, so a caller that does not read stops the reading, not the memory.

mod program;
mod terminal;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::ApiServer;
use super::body::{self, Body};
use super::logs::container_of;
use super::query::Query;
use super::status::Status;
use program::{Output, Program};
use terminal::{Key, Terminal};

/// In the order of preference.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The largest message taken: clients send 32 KiB at a time, and some more than that.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a WebSocket's buffers, each way.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a caller may take to answer the close: what a kubelet's stream creation allows.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(10);

/// One exec or attach session.
struct Session {
    program: Program,
    terminal: Option<Terminal>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    /// v5: a channel can be closed by itself.
    half_close: bool,
    wake_at: Option<Instant>,
}

/// Answers `…/pods/NAME/exec` and `…/attach` with a switch of protocols.
pub(crate) fn answer(
    server: &ApiServer,
    pod: &Value,
    attach: bool,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    container_of(pod, query)?;
    let command = query.all("command");
    if !attach && command.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command for the container"));
    }
    let (protocol, accept) = handshake(request.headers(), &PROTOCOLS)?;
    let tty = query.flag("tty");
    let (program, first) = if attach { (Program::Cat, Output::default()) } else { Program::start(&command, tty) };
    let session = Session {
        program,
        terminal: tty.then(Terminal::default),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr") && !tty,
        half_close: protocol == PROTOCOLS[0],
        wake_at: None,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let open = server.open_execs().enter();
    server.host().spawn("exec", async move {
        if let Err(error) = session.run(upgrade, first).await {
            tracing::debug!(%error, "an exec session ended early");
        }
        drop(open);
    });
    Ok(switching(protocol, accept))
}

/// The 101 of a [`handshake`].
pub(crate) fn switching(protocol: &'static str, accept: HeaderValue) -> Response<Body> {
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    response
}

/// The first of `protocols` that is offered, and the answer to the key (RFC 6455 section 4.2.2).
pub(crate) fn handshake(headers: &HeaderMap, protocols: &[&'static str]) -> Result<(&'static str, HeaderValue), Status> {
    let all = |name: header::HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        values.join(",")
    };
    let upgrade = all(header::UPGRADE);
    if upgrade.is_empty() {
        return Err(Status::bad_request("Upgrade request required"));
    }
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return Err(Status::bad_request(format!(
            "upgrading to {upgrade} is not simulated, only WebSocket ({}); use a newer kubectl or a real API server",
            protocols.join(", ")
        )));
    }
    let offered = all(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = protocols.iter().copied().find(|protocol| offered.split(',').any(|offer| offer.trim() == *protocol));
    let protocol = protocol.ok_or_else(|| {
        Status::bad_request(format!("none of the WebSocket subprotocols {offered:?} is served, only {}", protocols.join(", ")))
    })?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is a header value");
    Ok((protocol, accept))
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

impl Session {
    async fn run(mut self, upgrade: OnUpgrade, first: Output) -> Result<(), Error> {
        let upgraded = upgrade.await.map_err(|error| Error::Io(std::io::Error::other(error)))?;
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(websocket_config())).await;
        tokio::time::sleep(START_TIME).await;
        // A kubelet's first message is empty, on the lowest channel that it writes: the session stands.
        let lowest = if self.stdout { STDOUT } else { ERROR };
        socket.send(message(lowest, &[])).await?;
        let mut exit = self.say(&mut socket, first).await?;
        if exit.is_none() && !self.stdin {
            let output = self.program.end_of_input();
            exit = self.say(&mut socket, output).await?;
        }
        while exit.is_none() {
            let Some(output) = self.next(&mut socket).await? else { return Ok(()) };
            exit = self.say(&mut socket, output).await?;
        }
        let status = exit_status(exit.unwrap_or_default());
        socket.send(message(ERROR, status.to_string().as_bytes())).await?;
        socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
        // The caller's own close, so that ours is not lost in a reset of bytes that nobody has read.
        let drained = async { while socket.next().await.is_some_and(|message| message.is_ok()) {} };
        let _ = tokio::time::timeout(CLOSE_MAX, drained).await;
        Ok(())
    }

    /// What the program says next; none when the caller is gone.
    async fn next(&mut self, socket: &mut Socket) -> Result<Option<Output>, Error> {
        let wake_at = self.wake_at;
        let wake = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = wake => {
                self.wake_at = None;
                Ok(Some(self.program.wake()))
            }
            message = socket.next() => match message {
                None | Some(Ok(Message::Close(_))) => Ok(None),
                Some(Ok(Message::Binary(payload))) => Ok(Some(self.receive(&payload))),
                Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Some(Output::default())),
                Some(Err(error)) => Err(error),
            },
        }
    }

    fn receive(&mut self, payload: &Bytes) -> Output {
        match (payload.first().copied(), payload.get(1..)) {
            (Some(STDIN), Some(bytes)) if self.stdin => self.input(bytes),
            (Some(CLOSE), Some([STDIN])) if self.half_close && self.stdin => self.program.end_of_input(),
            (Some(RESIZE), _) => Output::default(),
            _ => {
                tracing::debug!(channel = payload.first(), "a message on a channel that nobody reads");
                Output::default()
            }
        }
    }

    fn input(&mut self, bytes: &[u8]) -> Output {
        let Some(terminal) = &mut self.terminal else { return self.program.input(bytes) };
        let mut output = Output::default();
        for key in terminal.keys(bytes) {
            match key {
                Key::Echo(text) => output.stdout.extend(text),
                Key::Line(line) => output.append(self.program.input(&line)),
                Key::End => output.append(self.program.end_of_input()),
                Key::Interrupt => output.append(self.program.interrupt()),
            }
        }
        output
    }

    /// Sends what the program said; its exit code when it has ended.
    async fn say(&mut self, socket: &mut Socket, mut output: Output) -> Result<Option<u8>, Error> {
        if self.terminal.is_some() {
            // A terminal has one stream, in which a line ends with CR LF.
            output.stdout.append(&mut output.stderr);
            output.stdout = terminal::with_carriage_returns(&output.stdout);
        }
        if self.stdout && !output.stdout.is_empty() {
            socket.feed(message(STDOUT, &output.stdout)).await?;
        }
        if self.stderr && !output.stderr.is_empty() {
            socket.feed(message(STDERR, &output.stderr)).await?;
        }
        socket.flush().await?;
        if let Some(sleep) = output.sleep {
            self.wake_at = Some(Instant::now() + sleep.min(SLEEP_MAX));
        }
        Ok(output.exit)
    }
}

/// What a container runtime needs to start a command, at least. kubectl up to 1.32 drops what comes before it has set up
/// its channels ("Unknown stream id"), which against a real kubelet nobody sees.
const START_TIME: Duration = Duration::from_millis(100);

/// The longest sleep of a program, so that adding it to the time cannot overflow.
const SLEEP_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Limits of a WebSocket, each with a value of its own in place of no limit.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(2 * BUFFER_BYTES + 2 * MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// `bytes` on `channel`.
pub(crate) fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut payload = BytesMut::with_capacity(1 + bytes.len());
    payload.put_u8(channel);
    payload.put_slice(bytes);
    Message::Binary(payload.freeze())
}

/// What a kubelet sends when a command has ended.
fn exit_status(code: u8) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}
