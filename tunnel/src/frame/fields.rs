//! Typed fields of Hello and Open: `tag u16 | length u16 | value`, repeated.
//!
//! An unknown tag is ignored, unless its top bit says that it must be understood.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::FrameError;
use super::{Class, Hello, Open, TEXT_MAX};

/// The bit of a tag that says "do not act on this without understanding me".
const MUST_UNDERSTAND: u16 = 0x8000;

mod hello_tag {
    pub(super) const VERSION_MIN: u16 = 1;
    pub(super) const VERSION_MAX: u16 = 2;
    pub(super) const INITIAL_WINDOW: u16 = 3;
    pub(super) const STREAMS_MAX: u16 = 4;
    pub(super) const STREAMS: u16 = 5;
    pub(super) const NAME: u16 = 6;
    pub(super) const NOTE: u16 = 7;
}

mod open_tag {
    pub(super) const CLASS: u16 = 1;
    pub(super) const REQUEST_ID: u16 = 2;
    pub(super) const TRACE: u16 = 3;
    pub(super) const CALLER: u16 = 4;
    pub(super) const DEADLINE_MS: u16 = 5;
    pub(super) const PROBE: u16 = 6;
}

pub(super) fn put_hello(out: &mut BytesMut, hello: &Hello) {
    put(out, hello_tag::VERSION_MIN, &[hello.version_min]);
    put(out, hello_tag::VERSION_MAX, &[hello.version_max]);
    put(out, hello_tag::INITIAL_WINDOW, &hello.initial_window.to_be_bytes());
    put(out, hello_tag::STREAMS_MAX, &hello.streams_max.to_be_bytes());
    put(out, hello_tag::STREAMS, &hello.streams.to_be_bytes());
    put(out, hello_tag::NAME, cut(&hello.name).as_bytes());
    if !hello.note.is_empty() {
        put(out, hello_tag::NOTE, cut(&hello.note).as_bytes());
    }
}

pub(super) fn get_hello(payload: Bytes) -> Result<Hello, FrameError> {
    let mut hello = Hello::default();
    for field in Fields(payload) {
        let (tag, value) = field?;
        match tag {
            hello_tag::VERSION_MIN => hello.version_min = u8_of(&value)?,
            hello_tag::VERSION_MAX => hello.version_max = u8_of(&value)?,
            hello_tag::INITIAL_WINDOW => hello.initial_window = u32_of(&value)?,
            hello_tag::STREAMS_MAX => hello.streams_max = u32_of(&value)?,
            hello_tag::STREAMS => hello.streams = u32_of(&value)?,
            hello_tag::NAME => hello.name = text_of(&value)?,
            hello_tag::NOTE => hello.note = text_of(&value)?,
            unknown if unknown & MUST_UNDERSTAND != 0 => return Err(FrameError::Hello { tag: unknown }),
            _ => {}
        }
    }
    Ok(hello)
}

pub(super) fn put_open(out: &mut BytesMut, open: &Open) {
    put(out, open_tag::CLASS, &[open.class as u8]);
    for (tag, text) in
        [(open_tag::REQUEST_ID, &open.request_id), (open_tag::TRACE, &open.trace), (open_tag::CALLER, &open.caller)]
    {
        if !text.is_empty() {
            put(out, tag, cut(text).as_bytes());
        }
    }
    if let Some(deadline) = open.deadline {
        put(out, open_tag::DEADLINE_MS, &u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
    }
    if open.is_probe {
        put(out, open_tag::PROBE, &[1]);
    }
}

pub(super) fn get_open(payload: Bytes) -> Result<Open, FrameError> {
    let mut open = Open::default();
    for field in Fields(payload) {
        let (tag, value) = field?;
        match tag {
            // A class that this version does not know is served as an ordinary request.
            open_tag::CLASS => open.class = Class::ALL.get(usize::from(u8_of(&value)?)).copied().unwrap_or_default(),
            open_tag::REQUEST_ID => open.request_id = text_of(&value)?,
            open_tag::TRACE => open.trace = text_of(&value)?,
            open_tag::CALLER => open.caller = text_of(&value)?,
            open_tag::PROBE => open.is_probe = u8_of(&value)? != 0,
            open_tag::DEADLINE_MS => open.deadline = Some(Duration::from_millis(u32_of(&value)?.into())),
            unknown => open.not_understood |= unknown & MUST_UNDERSTAND != 0,
        }
    }
    Ok(open)
}

struct Fields(Bytes);

impl Iterator for Fields {
    type Item = Result<(u16, Bytes), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        if self.0.len() < 4 {
            self.0.clear();
            return Some(Err(FrameError::Fields));
        }
        let (tag, len) = (self.0.get_u16(), usize::from(self.0.get_u16()));
        if len > self.0.len() {
            self.0.clear();
            return Some(Err(FrameError::Fields));
        }
        Some(Ok((tag, self.0.split_to(len))))
    }
}

fn put(out: &mut BytesMut, tag: u16, value: &[u8]) {
    out.put_u16(tag);
    // Every value is at most TEXT_MAX bytes.
    out.put_u16(value.len() as u16);
    out.put_slice(value);
}

/// The beginning of `text` that fits in [`TEXT_MAX`] bytes.
pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or(text)
}

fn u8_of(value: &[u8]) -> Result<u8, FrameError> {
    <[u8; 1]>::try_from(value).map(u8::from_be_bytes).map_err(|_| FrameError::Fields)
}

fn u32_of(value: &[u8]) -> Result<u32, FrameError> {
    <[u8; 4]>::try_from(value).map(u32::from_be_bytes).map_err(|_| FrameError::Fields)
}

pub(super) fn text_of(value: &[u8]) -> Result<String, FrameError> {
    if value.len() > TEXT_MAX {
        return Err(FrameError::Text);
    }
    String::from_utf8(value.to_vec()).map_err(|_| FrameError::Text)
}
