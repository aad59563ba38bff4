//! The one async loop that owns a session's socket. Reading never waits for writing.
//!
//! Handles and streams touch the session under a short lock and wake the driver when there is something to send; only
//! the driver touches the socket, and it takes a frame from the session only when the socket can take it, so that what
//! waits can still be overtaken by what is urgent.

mod metered;
mod shared;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role as WebSocketRole, WebSocketConfig};

use crate::error::{ProtocolError, Reason, SessionError};
use crate::frame::{Frame, MESSAGE_MAX, PAYLOAD_MAX, V1_MESSAGE_MAX};
use crate::session::{Protocol, Role, Session, SessionConfig};
use metered::Metered;
pub(crate) use shared::Shared;
pub use shared::{Incoming, SessionHandle};

/// Bytes handed to the WebSocket before it must be empty again. Together with the kernel's unsent low-water mark of the
/// same size this is `unsent_max`, 64 KiB: what an urgent frame may have to wait behind.
const BATCH_BYTES: usize = PAYLOAD_MAX;

/// Room left in a batch that is worth another frame: less would cut data into crumbs.
const FILLER_MIN: usize = 1024;

/// Places for messages of a batch that are kept from one to the next.
const BATCH_KEPT: usize = 64;

/// Messages handled in one turn before what waits to be sent, and other tasks, have theirs.
const MESSAGES_PER_TURN: usize = 32;

/// How long the last frames and the WebSocket's own goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How long a peer may take for its hello; a middlebox that accepts and never forwards is found by this.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// The WebSocket's limits: explicit and counted, since its defaults are unbounded.
pub fn websocket_config(protocol: Protocol) -> WebSocketConfig {
    let message_max = match protocol {
        Protocol::V1 => V1_MESSAGE_MAX,
        Protocol::Extended => MESSAGE_MAX,
    };
    WebSocketConfig::default()
        // Allocated for each session, idle ones too, and filled with zeroes before every read, most of which bring little.
        .read_buffer_size(4 * 1024)
        // Never written before the flush that ends a batch.
        .write_buffer_size(BATCH_BYTES + MESSAGE_MAX)
        .max_write_buffer_size(4 * (BATCH_BYTES + MESSAGE_MAX))
        .max_message_size(Some(message_max))
        .max_frame_size(Some(message_max))
}

/// Starts a session over an upgraded connection: a handle to open streams, the streams that the peer opens, and the
/// driver, which must be spawned.
///
/// `early` is what was read behind the upgrade's head.
pub async fn start<S>(config: SessionConfig, io: S, early: Bytes) -> (SessionHandle, Incoming, Driver<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let role = match config.role {
        Role::Server => WebSocketRole::Server,
        Role::Agent => WebSocketRole::Client,
    };
    let protocol = config.protocol;
    let websocket =
        WebSocketStream::from_partially_read(Metered::new(io), early.to_vec(), role, Some(websocket_config(protocol))).await;
    let (shared, incoming) = Shared::new(Session::new(config, now));
    let driver = Driver {
        websocket,
        shared: shared.clone(),
        timer: Box::pin(tokio::time::sleep_until(now)),
        hello_by: now + HELLO_MAX,
        n_messages: 0,
        flushing: false,
        gathered: false,
        batch: Vec::new(),
    };
    (SessionHandle::new(shared), incoming, driver)
}

/// Owns a session's socket until the session ends.
#[must_use = "a session does nothing until its driver runs"]
pub struct Driver<S> {
    websocket: WebSocketStream<Metered<S>>,
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
    hello_by: Instant,
    /// Messages read in this turn.
    n_messages: usize,
    flushing: bool,
    /// Others who were ready have had their turn since there was something to send.
    gathered: bool,
    /// The batch that is being made; kept for its room.
    batch: Vec<Bytes>,
}

/// The reasons for the driver to wake.
enum Wake {
    Timer,
    Message(Message),
    /// Much was read without a pause.
    TurnOver,
    Sent,
    Ended(SessionError),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Runs until the session ends and says how.
    pub async fn run(mut self) -> SessionError {
        let error = self.serve().await;
        self.shared.end(error.clone());
        // The peer may not read any more; the goodbye is a courtesy with a limit.
        let _ = tokio::time::timeout(CLOSE_MAX, self.say_goodbye()).await;
        error
    }

    async fn serve(&mut self) -> SessionError {
        loop {
            match poll_fn(|cx| self.poll_wake(cx)).await {
                Wake::Timer => {
                    if let Err(error) = self.on_timer() {
                        return error;
                    }
                }
                Wake::Message(message) => {
                    if let Err(error) = self.on_message(message) {
                        return error;
                    }
                }
                Wake::TurnOver => tokio::task::yield_now().await,
                Wake::Sent => {}
                Wake::Ended(error) => return error,
            }
        }
    }

    /// In this order: the session's own end, timers, what the peer sent, what we have to send.
    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        self.shared.register_driver(cx.waker());
        let outlook = self.shared.outlook();
        if let Some(error) = outlook.ended {
            return Poll::Ready(Wake::Ended(error));
        }
        let deadline = if outlook.is_established { outlook.deadline } else { outlook.deadline.min(self.hello_by) };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Wake::Timer);
        }
        // A peer that never pauses must not keep us from sending.
        if self.n_messages >= MESSAGES_PER_TURN {
            let was_gathered = self.gathered;
            let sent = self.poll_send(outlook.has_output, cx);
            // While others have their turn, none is had by reading.
            if was_gathered || !self.gathered || self.flushing {
                self.n_messages = 0;
            }
            return match sent {
                Poll::Ready(Err(error)) => Poll::Ready(Wake::Ended(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Wake::TurnOver),
            };
        }
        if let Poll::Ready(next) = Pin::new(&mut self.websocket).poll_next(cx) {
            self.n_messages += 1;
            return Poll::Ready(match next {
                Some(Ok(message)) => Wake::Message(message),
                Some(Err(error)) => Wake::Ended(to_session_error(error)),
                None => Wake::Ended(SessionError::PeerClosed),
            });
        }
        self.n_messages = 0;
        match self.poll_send(outlook.has_output, cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Wake::Sent),
            Poll::Ready(Err(error)) => Poll::Ready(Wake::Ended(error)),
            Poll::Pending if outlook.is_drained && !outlook.has_output && !self.flushing => {
                Poll::Ready(Wake::Ended(SessionError::Closed(Reason::Draining)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ready when a batch has left, pending when there is nothing to send, the socket takes nothing, or others come first.
    fn poll_send(&mut self, has_output: bool, cx: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        if !self.flushing {
            if !has_output {
                return Poll::Pending;
            }
            if !std::mem::take(&mut self.gathered) {
                // Whoever is ready to run may have something to say too: it leaves in the same batch, with one record and one
                // system call. When nobody is, our turn comes at once.
                self.gathered = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let bytes = self.shared.poll_batch(&mut self.batch, BATCH_BYTES, FILLER_MIN);
            if bytes == 0 {
                return Poll::Pending;
            }
            for message in self.batch.drain(..) {
                Pin::new(&mut self.websocket).start_send(Message::Binary(message)).map_err(to_session_error)?;
            }
            // Credit and resets are tiny; a burst of them must not be remembered as room.
            self.batch.shrink_to(BATCH_KEPT);
            // Behind a full batch there is more to come: nobody need be waited for.
            self.gathered = bytes + FILLER_MIN > BATCH_BYTES;
            self.flushing = true;
        }
        ready!(Pin::new(&mut self.websocket).poll_flush(cx)).map_err(to_session_error)?;
        self.flushing = false;
        Poll::Ready(Ok(()))
    }

    fn on_message(&mut self, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Binary(bytes) => self.shared.handle(Frame::decode(bytes)),
            Message::Text(_) => Err(SessionError::Protocol(ProtocolError::Text)),
            Message::Close(_) => Err(SessionError::PeerClosed),
            // The WebSocket's own pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn on_timer(&mut self) -> Result<(), SessionError> {
        let now = Instant::now();
        if let Some(heard_at) = self.websocket.get_mut().take_heard() {
            self.shared.with(|session, _| session.heard(heard_at));
        }
        if !self.shared.is_established() && now >= self.hello_by {
            return Err(SessionError::Protocol(ProtocolError::NoHello));
        }
        self.shared.handle_timeout()
    }

    /// Lets the last frames (go-away, resets) out, closes the WebSocket and waits for the peer to do so: a socket closed
    /// with bytes unread is reset by the kernel, and a reset destroys what was sent and has not arrived.
    async fn say_goodbye(&mut self) {
        poll_fn(|cx| {
            // Data of streams has ended with the session; only control frames are left.
            while let Some(frame) = self.shared.poll_frame(PAYLOAD_MAX) {
                if Pin::new(&mut self.websocket).start_send(Message::Binary(frame.encode())).is_err() {
                    return Poll::Ready(());
                }
            }
            Pin::new(&mut self.websocket).poll_close(cx).map(|_| ())
        })
        .await;
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut self.websocket).poll_next(cx)).await {}
    }
}

impl<S> Drop for Driver<S> {
    /// Without its driver a session moves no more: whoever waits on it is told.
    fn drop(&mut self) {
        self.shared.end(SessionError::Closed(Reason::Cancelled));
    }
}

fn to_session_error(error: tokio_tungstenite::tungstenite::Error) -> SessionError {
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError as WebSocketProtocolError;
    let closed = matches!(
        error,
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(WebSocketProtocolError::ResetWithoutClosingHandshake)
    );
    if closed { SessionError::PeerClosed } else { SessionError::Io(error.to_string()) }
}

#[cfg(test)]
mod tests;
