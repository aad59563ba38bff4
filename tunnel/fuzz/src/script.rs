//! An input read as a script: a step takes the bytes it needs, and a script that has run out reads as zeros.

use std::time::Duration;

use tunnel::Reason;
use tunnel::frame::{Class, Frame, Open};
use tunnel::id::StreamId;

/// What is left of the input.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// A number of bytes: most are small, and all that two bytes can say are possible.
    pub fn size(&mut self) -> usize {
        let (low, high) = (self.byte(), self.byte());
        usize::from(u16::from_le_bytes([low, high]))
    }

    pub fn word(&mut self) -> u32 {
        let taken = self.take(4);
        taken.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
    }

    /// Up to `n` bytes as they stand.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn class(&mut self) -> Class {
        Class::ALL[usize::from(self.below(4))]
    }

    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.size() as u64)
    }

    /// A frame of either dialect that may well be right, for `stream`.
    pub fn usual_frame(&mut self, stream: StreamId) -> Frame {
        match self.below(14) {
            0 => Frame::Connect { stream, target: String::new() },
            1 => Frame::Connected { stream },
            2..=4 => Frame::Data { stream, payload: vec![self.byte(); self.size() % 1200].into() },
            5 => Frame::Credit { stream, bytes: self.word() >> (self.byte() % 32) },
            6 => Frame::Return { stream, bytes: self.size() as u32 },
            7 => Frame::HalfClose { stream },
            8 => Frame::Close { stream },
            9 => Frame::Error { stream, text: String::new() },
            10 => Frame::Reset { stream, reason: Reason::from_code(self.byte().into()), text: String::new() },
            11 => Frame::Ping { token: Some(self.byte().into()) },
            12 => Frame::Pong { token: Some(self.byte().into()) },
            _ => Frame::Open { stream, open: Open { class: self.class(), not_understood: self.byte() == 7, ..Open::default() } },
        }
    }
}
