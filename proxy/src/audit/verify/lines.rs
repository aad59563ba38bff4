//! Lines of a file of any length, in bounded memory.

use std::io;

use host::Host;

use crate::audit::line::LINE_BYTES_MAX;

/// What is read at once: few calls, and little beside a line.
const CHUNK_BYTES: usize = 256 * 1024;

/// A line as it stands in a file.
pub(super) struct RawLine<'a> {
    /// From 1.
    pub(super) number: u64,
    /// Without its newline; empty when it is too long.
    pub(super) bytes: &'a [u8],
    /// With its newline.
    pub(super) n_bytes: u64,
    /// Whether it has a newline.
    pub(super) is_whole: bool,
    /// Whether it is longer than a record can be.
    pub(super) is_too_long: bool,
}

/// Hands every line of a file to `each`, the last one also without a newline.
pub(super) fn read(host: &Host, path: &str, mut each: impl FnMut(RawLine<'_>)) -> io::Result<()> {
    let (mut offset, mut number) = (0, 0);
    let mut held: Vec<u8> = Vec::new();
    // Of the line that is too long.
    let mut skipped = 0;
    loop {
        let chunk = host.read_file_at(path, offset, CHUNK_BYTES)?;
        offset += chunk.len() as u64;
        let is_end = chunk.is_empty();
        held.extend_from_slice(&chunk);
        let mut begin = 0;
        while let Some(length) = held[begin..].iter().position(|byte| *byte == b'\n') {
            number += 1;
            let is_too_long = skipped > 0 || length > LINE_BYTES_MAX;
            let bytes = if is_too_long { &[] } else { &held[begin..begin + length] };
            each(RawLine { number, bytes, n_bytes: skipped + length as u64 + 1, is_whole: true, is_too_long });
            begin += length + 1;
            skipped = 0;
        }
        held.drain(..begin);
        if is_end {
            let n_bytes = skipped + held.len() as u64;
            if n_bytes > 0 {
                let is_too_long = skipped > 0;
                each(RawLine { number: number + 1, bytes: &held, n_bytes, is_whole: false, is_too_long });
            }
            return Ok(());
        }
        if held.len() > LINE_BYTES_MAX {
            skipped += held.len() as u64;
            held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_told_whatever_its_length() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file").to_str().expect("text").to_owned();
        let (long, longer) = ("x".repeat(LINE_BYTES_MAX), "y".repeat(3 * CHUNK_BYTES));
        std::fs::write(&path, format!("one\n\n{long}\n{longer}\nend")).expect("written");
        let mut told = Vec::new();
        read(&Host::real(), &path, |line| {
            told.push((line.number, line.bytes.len(), line.n_bytes, line.is_whole, line.is_too_long));
        })
        .expect("read");
        let (long, longer) = (LINE_BYTES_MAX, 3 * CHUNK_BYTES as u64);
        assert_eq!(
            told,
            [
                (1, 3, 4, true, false),
                (2, 0, 1, true, false),
                (3, long, long as u64 + 1, true, false),
                (4, 0, longer + 1, true, true),
                (5, 3, 3, false, false)
            ]
        );
    }
}
