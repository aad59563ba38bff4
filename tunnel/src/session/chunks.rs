//! Bytes that wait, copied out of the socket's buffers so that what is counted is what is held.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

/// Small payloads share an allocation of this size; a short one alone would otherwise cost its bookkeeping many times.
const CHUNK_MIN: usize = 4 * 1024;

/// A queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    chunks: VecDeque<BytesMut>,
    len: usize,
}

impl Chunks {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `n` bytes of `pieces`, side by side.
    pub(crate) fn push_pieces(&mut self, pieces: &[IoSlice<'_>], mut n: usize) {
        for piece in pieces {
            let taken = piece.get(..n).unwrap_or(piece);
            n -= taken.len();
            self.push_before(taken, n);
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.push_before(bytes, 0);
    }

    /// Makes room for `n_more` bytes that come next.
    fn push_before(&mut self, bytes: &[u8], n_more: usize) {
        self.len += bytes.len();
        let room = self.chunks.back().map_or(0, |tail| tail.capacity() - tail.len());
        let (now, rest) = bytes.split_at(room.min(bytes.len()));
        if let Some(tail) = self.chunks.back_mut() {
            tail.extend_from_slice(now);
        }
        if !rest.is_empty() {
            let mut chunk = BytesMut::with_capacity((rest.len() + n_more).max(CHUNK_MIN));
            chunk.extend_from_slice(rest);
            self.chunks.push_back(chunk);
        }
    }

    /// Up to `max` bytes from the front, of one chunk; empty when there is nothing.
    pub(crate) fn pop(&mut self, max: usize) -> Bytes {
        let Some(front) = self.chunks.front_mut() else { return Bytes::new() };
        let bytes = front.split_to(front.len().min(max)).freeze();
        if front.is_empty() {
            self.chunks.pop_front();
        }
        self.len -= bytes.len();
        bytes
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut chunks = Chunks::default();
        let input: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        input.chunks(37).for_each(|piece| chunks.push(piece));
        assert_eq!(chunks.len(), input.len());
        let mut output = Vec::new();
        while !chunks.is_empty() {
            output.extend_from_slice(&chunks.pop(101));
        }
        assert_eq!(output, input);
    }
}
