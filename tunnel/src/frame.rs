//! Frames: every kind, its fields, its limits. PROTOCOL.md says the same in prose.

pub(crate) mod codec;
mod fields;

use std::time::Duration;

use bytes::Bytes;

pub use codec::FrameError;

use crate::error::Reason;
use crate::id::StreamId;

/// The longest payload of a Data frame that we send: small enough that an urgent frame waits for at most this much on
/// the wire (2.6 ms at 100 Mbit/s), large enough that WebSocket and TLS overheads vanish (measured flat from 16 KiB up).
pub const PAYLOAD_MAX: usize = 32 * 1024;

/// Type byte and stream id.
pub const HEADER_LEN: usize = 5;

/// The longest message we accept from a peer with extensions: one full Data frame. No control frame is longer.
pub const MESSAGE_MAX: usize = HEADER_LEN + PAYLOAD_MAX;

/// The longest message we accept from a version 1 peer. Its own limit is 16 MiB, but its copy buffer sends 32 KiB; the
/// rest is headroom for other implementations.
pub const V1_MESSAGE_MAX: usize = 1024 * 1024;

/// The longest text in Reset, Error, Hello and Open: a sentence for a log line, not a document.
pub const TEXT_MAX: usize = 512;

/// One unit on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Version 1: opens a stream towards `target`.
    Connect {
        /// The new stream.
        stream: StreamId,
        /// Address as text, `host:port`.
        target: String,
    },
    /// Version 1: the stream is connected.
    Connected {
        /// The stream.
        stream: StreamId,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: StreamId,
        /// At most [`PAYLOAD_MAX`] when we send.
        payload: Bytes,
    },
    /// Version 1: the stream failed.
    Error {
        /// The stream.
        stream: StreamId,
        /// What happened.
        text: String,
    },
    /// Version 1: both sides of the stream end.
    Close {
        /// The stream.
        stream: StreamId,
    },
    /// Asks for a [`Frame::Pong`] with the same token.
    Ping {
        /// Absent in version 1.
        token: Option<u64>,
    },
    /// Answers a [`Frame::Ping`].
    Pong {
        /// The ping's token.
        token: Option<u64>,
    },
    /// The first frame of each side; may come again with a new load.
    Hello(Hello),
    /// Opens a stream; data may follow at once.
    Open {
        /// The new stream.
        stream: StreamId,
        /// What it is for.
        open: Open,
    },
    /// Grants that many more bytes.
    Credit {
        /// The stream.
        stream: StreamId,
        /// Added to what is left.
        bytes: u32,
    },
    /// Gives back credit that an idle sender does not use.
    Return {
        /// The stream.
        stream: StreamId,
        /// Taken from what is left.
        bytes: u32,
    },
    /// No more data follows from the sender of this frame.
    HalfClose {
        /// The stream.
        stream: StreamId,
    },
    /// The stream ends at once in both directions; what had ended with [`Frame::HalfClose`] before stays whole.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: Reason,
        /// For a log line, at most [`TEXT_MAX`] bytes.
        text: String,
    },
    /// The session takes no new streams; the receiver should dial another first.
    GoAway {
        /// Why.
        reason: Reason,
        /// How long running streams may go on.
        grace: Duration,
    },
}

/// Who speaks, and under which limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The lowest protocol version the sender speaks.
    pub version_min: u8,
    /// The highest protocol version the sender speaks.
    pub version_max: u8,
    /// Bytes that the receiver of this hello may send on each new stream before any Credit.
    pub initial_window: u32,
    /// How many streams the sender of this hello is ready to hold at once.
    pub streams_max: u32,
    /// How many streams it holds now, in all its sessions: its load.
    pub streams: u32,
    /// A name for logs: program, version, place.
    pub name: String,
    /// A word of the sender's that the receiver may want to keep; the tunnel does not read it. The latest one counts.
    pub note: String,
}

impl Hello {
    /// Program and version, without the chance in the name, by which its sender is known to be the same again.
    pub fn program(&self) -> &str {
        self.name.split(' ').next().unwrap_or_default()
    }
}

/// What a stream is for. The caller's identity is here and not in a header that somebody could forge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Open {
    /// Its place in the schedule.
    pub class: Class,
    /// The request id in the logs of both ends.
    pub request_id: String,
    /// The W3C `traceparent`, or empty.
    pub trace: String,
    /// Who asks, or empty when nobody was identified.
    pub caller: String,
    /// When the caller gives up, counted from now.
    pub deadline: Option<Duration>,
    /// Nobody asks but the server itself, to know whether its requests are answered.
    pub is_probe: bool,
    /// Version 1 only: the address to connect to.
    pub target: String,
    /// A received field that must be understood was not: the stream is to be reset. Never sent.
    pub not_understood: bool,
}

/// Which streams go first: interactive before watch before small before bulk, fair among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Class {
    /// Upgrades: somebody types.
    Interactive,
    /// Watches: small and awaited.
    Watch,
    /// Everything else, until it has sent much.
    #[default]
    Small,
    /// Known to be large.
    Bulk,
}

impl Class {
    /// All, most urgent first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::Watch, Self::Small, Self::Bulk];

    /// A word for programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Watch => "watch",
            Self::Small => "small",
            Self::Bulk => "bulk",
        }
    }
}
