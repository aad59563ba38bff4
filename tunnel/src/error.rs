//! Why frames, streams and sessions end: one enum per question, and the wire's list of reasons.

use std::fmt;
use std::time::Duration;

use crate::frame::FrameError;
use crate::id::StreamId;

/// The wire's reason codes (PROTOCOL.md "Reasons"). Stable; unknown ones survive the trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// All was said; the sender of this reads no more.
    Done,
    /// The caller went away.
    Cancelled,
    /// Not taken: nothing of the request was acted on.
    Refused,
    /// The limit of streams or memory is reached; nothing of the request was acted on.
    Limit,
    /// The upstream or the caller broke off in the middle.
    Broken,
    /// The peer broke the protocol.
    Protocol,
    /// A field marked must-understand was not understood; nothing of the request was acted on.
    NotUnderstood,
    /// The program is stopping.
    Draining,
    /// The identity of the session is no longer valid.
    Revoked,
    /// A version 1 peer sent more than its stream may hold.
    Overrun,
    /// The sender's rules changed while the request ran, and allow it no longer.
    Forbidden,
    /// A code this version does not know.
    Other(u16),
}

impl Reason {
    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Done => 0,
            Self::Cancelled => 1,
            Self::Refused => 2,
            Self::Limit => 3,
            Self::Broken => 4,
            Self::Protocol => 5,
            Self::NotUnderstood => 6,
            Self::Draining => 7,
            Self::Revoked => 8,
            Self::Overrun => 9,
            Self::Forbidden => 10,
            Self::Other(code) => code,
        }
    }

    /// The reason of a code.
    pub fn from_code(code: u16) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Cancelled,
            2 => Self::Refused,
            3 => Self::Limit,
            4 => Self::Broken,
            5 => Self::Protocol,
            6 => Self::NotUnderstood,
            7 => Self::Draining,
            8 => Self::Revoked,
            9 => Self::Overrun,
            10 => Self::Forbidden,
            other => Self::Other(other),
        }
    }

    /// Whether the peer promises by this reason that nothing of the request was acted on.
    pub fn nothing_was_done(self) -> bool {
        matches!(self, Self::Refused | Self::Limit | Self::NotUnderstood)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Limit => "limit reached",
            Self::Broken => "broken off",
            Self::Protocol => "protocol error",
            Self::NotUnderstood => "not understood",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
            Self::Overrun => "buffer overrun",
            Self::Forbidden => "forbidden by now",
            Self::Other(code) => return write!(f, "reason {code}"),
        };
        f.write_str(text)
    }
}

/// Why a stream cannot be opened. Nothing was sent in any of these cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// One side said go-away.
    #[error("the session is draining")]
    Draining,
    /// The peer's or our own number of streams is reached.
    #[error("the session has its maximum of {max} streams")]
    Streams {
        /// The limit in force.
        max: usize,
    },
    /// The memory budget has no room for another stream.
    #[error("the memory budget has no room for another stream")]
    Budget,
    /// All 2^32 - 1 ids are spent; the session drains from then on.
    #[error("the session has no stream id left")]
    Ids,
}

/// How one stream ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset it.
    #[error("{reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Reset {
        /// The peer's reason.
        reason: Reason,
        /// The peer's words, possibly none.
        text: String,
    },
    /// Its session ended.
    #[error("the session ended: {0}")]
    SessionEnded(SessionError),
    /// It was ended or half-closed on this side before.
    #[error("the stream is closed on this side")]
    Closed,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No byte came for longer than the limit.
    #[error("nothing was heard from the peer for {} s", silence.as_secs())]
    PeerSilent {
        /// How long nothing was heard.
        silence: Duration,
    },
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The peer's bytes are no frames.
    #[error("the peer sent a malformed frame: {0}")]
    Frame(#[from] FrameError),
    /// The peer's frames break the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(String),
    /// This side ended it.
    #[error("closed by this side: {0}")]
    Closed(Reason),
}

impl SessionError {
    /// Every word of [`SessionError::label`].
    pub const LABELS: [&'static str; 8] =
        ["silent", "peer-closed", "malformed", "protocol", "connection", "draining", "revoked", "closed"];

    /// A word for programs, one of [`SessionError::LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::PeerSilent { .. } => "silent",
            Self::PeerClosed => "peer-closed",
            Self::Frame(_) => "malformed",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "connection",
            Self::Closed(Reason::Draining) => "draining",
            Self::Closed(Reason::Revoked) => "revoked",
            Self::Closed(_) => "closed",
        }
    }
}

/// Which rule of PROTOCOL.md a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Something other than a binary WebSocket message.
    #[error("a text message; frames are binary")]
    Text,
    /// A frame before hello, or a version out of range.
    #[error("the first frame was not a usable hello")]
    NoHello,
    /// A frame that this protocol version or direction does not have.
    #[error("frame type {kind:#04x} is not allowed here")]
    NotAllowed {
        /// The frame's type byte.
        kind: u8,
    },
    /// An id that was never opened.
    #[error("stream {0} was never opened")]
    NeverOpened(StreamId),
    /// An open whose id is not above all earlier ones.
    #[error("stream {0} was opened out of order")]
    OutOfOrder(StreamId),
    /// More data than credit.
    #[error("stream {0} sent more than its credit")]
    Overspent(StreamId),
    /// Credit beyond 2^31, or returned beyond what was granted.
    #[error("stream {0} has an impossible credit")]
    Credit(StreamId),
    /// More answers are due than the queue of control frames holds.
    #[error("too many control frames are waiting; the peer does not read")]
    Flood,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_session_has_one_of_the_words_that_are_counted_from_zero() {
        let closed = (0..20).map(|code| SessionError::Closed(Reason::from_code(code)));
        let others = [
            SessionError::PeerSilent { silence: Duration::ZERO },
            SessionError::PeerClosed,
            SessionError::Protocol(ProtocolError::Flood),
            SessionError::Io(String::new()),
        ];
        let labels: Vec<_> = others.into_iter().chain(closed).map(|error| error.label()).collect();
        assert!(labels.iter().all(|label| SessionError::LABELS.contains(label)), "{labels:?}");
        assert_eq!(SessionError::Closed(Reason::Revoked).label(), "revoked");
    }
}
