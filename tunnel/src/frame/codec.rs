//! Bytes to frames and back. Total: every input is a frame or an error, never a panic.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::fields::{cut, get_hello, get_open, put_hello, put_open, text_of};
use super::{Frame, HEADER_LEN, TEXT_MAX};
use crate::error::Reason;
use crate::id::StreamId;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header.
    #[error("{len} bytes are less than a header of {HEADER_LEN}")]
    Short {
        /// The message's length.
        len: usize,
    },
    /// A type byte that no version has.
    #[error("unknown frame type {kind:#04x}")]
    Kind {
        /// The type byte.
        kind: u8,
    },
    /// A payload of another length than its type has.
    #[error("frame type {kind:#04x} with a payload of {len} bytes")]
    Length {
        /// The type byte.
        kind: u8,
        /// The payload's length.
        len: usize,
    },
    /// A frame of one stream on id 0, or a session's frame on another.
    #[error("frame type {kind:#04x} on stream {stream}")]
    Stream {
        /// The type byte.
        kind: u8,
        /// The id it came on.
        stream: u32,
    },
    /// Fields that do not fill the payload exactly.
    #[error("malformed fields")]
    Fields,
    /// A text that is too long or not UTF-8.
    #[error("a text that is not UTF-8 or longer than {TEXT_MAX} bytes")]
    Text,
    /// A hello with a field that must be understood.
    #[error("hello field {tag:#06x} must be understood and is not")]
    Hello {
        /// The unknown tag.
        tag: u16,
    },
}

impl Frame {
    /// The type byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Connect { .. } => kind::CONNECT,
            Self::Connected { .. } => kind::CONNECTED,
            Self::Data { .. } => kind::DATA,
            Self::Error { .. } => kind::ERROR,
            Self::Close { .. } => kind::CLOSE,
            Self::Ping { .. } => kind::PING,
            Self::Pong { .. } => kind::PONG,
            Self::Hello(_) => kind::HELLO,
            Self::Open { .. } => kind::OPEN,
            Self::Credit { .. } => kind::CREDIT,
            Self::HalfClose { .. } => kind::HALF_CLOSE,
            Self::Reset { .. } => kind::RESET,
            Self::GoAway { .. } => kind::GO_AWAY,
            Self::Return { .. } => kind::RETURN,
        }
    }

    /// The stream it is about, [`StreamId::SESSION`] for the session's own.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Connect { stream, .. }
            | Self::Connected { stream }
            | Self::Data { stream, .. }
            | Self::Error { stream, .. }
            | Self::Close { stream }
            | Self::Open { stream, .. }
            | Self::Credit { stream, .. }
            | Self::Return { stream, .. }
            | Self::HalfClose { stream }
            | Self::Reset { stream, .. } => *stream,
            Self::Ping { .. } | Self::Pong { .. } | Self::Hello(_) | Self::GoAway { .. } => StreamId::SESSION,
        }
    }

    /// The frame as one message.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.payload_hint());
        out.put_u8(self.kind());
        out.put_u32(self.stream().0);
        match self {
            Self::Connect { target: text, .. } | Self::Error { text, .. } => out.put_slice(cut(text).as_bytes()),
            Self::Data { payload, .. } => out.put_slice(payload),
            Self::Connected { .. } | Self::Close { .. } | Self::HalfClose { .. } => {}
            Self::Ping { token } | Self::Pong { token } => {
                if let Some(token) = token {
                    out.put_u64(*token);
                }
            }
            Self::Hello(hello) => put_hello(&mut out, hello),
            Self::Open { open, .. } => put_open(&mut out, open),
            Self::Credit { bytes, .. } | Self::Return { bytes, .. } => out.put_u32(*bytes),
            Self::Reset { reason, text, .. } => {
                out.put_u16(reason.code());
                out.put_slice(cut(text).as_bytes());
            }
            Self::GoAway { reason, grace } => {
                out.put_u16(reason.code());
                out.put_u32(u32::try_from(grace.as_millis()).unwrap_or(u32::MAX));
            }
        }
        out.freeze()
    }

    /// One message as a frame.
    pub fn decode(mut message: Bytes) -> Result<Self, FrameError> {
        let len = message.len();
        if len < HEADER_LEN {
            return Err(FrameError::Short { len });
        }
        let (kind, id) = (message.get_u8(), message.get_u32());
        if !kind::is_known(kind) {
            return Err(FrameError::Kind { kind });
        }
        if kind::is_of_session(kind) != (id == StreamId::SESSION.0) {
            return Err(FrameError::Stream { kind, stream: id });
        }
        decode_payload(kind, StreamId(id), message)
    }

    fn payload_hint(&self) -> usize {
        if let Self::Data { payload, .. } = self { payload.len() } else { 32 }
    }
}

fn decode_payload(kind: u8, stream: StreamId, mut payload: Bytes) -> Result<Frame, FrameError> {
    let len = payload.len();
    let exactly = |wanted: usize| if len == wanted { Ok(()) } else { Err(FrameError::Length { kind, len }) };
    Ok(match kind {
        kind::CONNECT => Frame::Connect { stream, target: text_of(&payload)? },
        kind::CONNECTED => {
            exactly(0)?;
            Frame::Connected { stream }
        }
        kind::DATA => Frame::Data { stream, payload },
        // A version 1 peer's error text is cut, not refused: the stream's end must not end the session.
        kind::ERROR => Frame::Error { stream, text: cut(&String::from_utf8_lossy(&payload)).to_owned() },
        kind::CLOSE => {
            exactly(0)?;
            Frame::Close { stream }
        }
        kind::PING => Frame::Ping { token: token(kind, &mut payload)? },
        kind::PONG => Frame::Pong { token: token(kind, &mut payload)? },
        kind::HELLO => Frame::Hello(get_hello(payload)?),
        kind::OPEN => Frame::Open { stream, open: get_open(payload)? },
        kind::CREDIT => {
            exactly(4)?;
            Frame::Credit { stream, bytes: payload.get_u32() }
        }
        kind::RETURN => {
            exactly(4)?;
            Frame::Return { stream, bytes: payload.get_u32() }
        }
        kind::HALF_CLOSE => {
            exactly(0)?;
            Frame::HalfClose { stream }
        }
        kind::RESET => {
            if len < 2 {
                return Err(FrameError::Length { kind, len });
            }
            let reason = Reason::from_code(payload.get_u16());
            Frame::Reset { stream, reason, text: text_of(&payload)? }
        }
        kind::GO_AWAY => {
            exactly(6)?;
            let reason = Reason::from_code(payload.get_u16());
            Frame::GoAway { reason, grace: Duration::from_millis(payload.get_u32().into()) }
        }
        unknown => return Err(FrameError::Kind { kind: unknown }),
    })
}

fn token(kind: u8, payload: &mut Bytes) -> Result<Option<u64>, FrameError> {
    match payload.len() {
        0 => Ok(None),
        8 => Ok(Some(payload.get_u64())),
        len => Err(FrameError::Length { kind, len }),
    }
}

/// The type bytes. 0x01 to 0x07 are version 1.
mod kind {
    pub(super) const CONNECT: u8 = 0x01;
    pub(super) const CONNECTED: u8 = 0x02;
    pub(super) const DATA: u8 = 0x03;
    pub(super) const ERROR: u8 = 0x04;
    pub(super) const CLOSE: u8 = 0x05;
    pub(super) const PING: u8 = 0x06;
    pub(super) const PONG: u8 = 0x07;
    pub(super) const HELLO: u8 = 0x10;
    pub(super) const OPEN: u8 = 0x11;
    pub(super) const CREDIT: u8 = 0x12;
    pub(super) const HALF_CLOSE: u8 = 0x13;
    pub(super) const RESET: u8 = 0x14;
    pub(super) const GO_AWAY: u8 = 0x15;
    pub(super) const RETURN: u8 = 0x16;

    pub(super) fn is_known(kind: u8) -> bool {
        matches!(kind, CONNECT..=PONG | HELLO..=RETURN)
    }

    pub(super) fn is_of_session(kind: u8) -> bool {
        matches!(kind, PING | PONG | HELLO | GO_AWAY)
    }
}

#[cfg(test)]
pub(crate) mod tests;
