//! Bodies whose every byte is known beforehand: they arrive once and in order, whoever reads them.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::apiserver::pattern;

/// Bytes of the pattern to compare with: a multiple of its period of 251, and longer than any piece of a body is often.
const PATTERN_BYTES: usize = 251 * 512;

/// Longer uploads are compared by length alone: a digest costs a debug build more than the upload.
const DIGEST_MAX: usize = 1 << 20;

/// What a caller sent.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    Whole(Bytes),
    /// So many bytes of the pattern.
    Generated(usize),
}

/// What the body of an answer must be.
#[derive(Debug)]
pub(super) enum Expected {
    Anything,
    /// So many bytes of the pattern; fewer if it breaks off.
    Pattern(Option<usize>),
    /// What was sent.
    Echo(Sent),
    /// An account of what was sent.
    Account(Sent),
    /// Numbered lines: the beginning of one, and the number of the next.
    Lines(Vec<u8>, Option<u64>),
}

impl Sent {
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Generated(n) => *n,
        }
    }

    fn is_at(&self, position: usize, data: &[u8]) -> bool {
        match self {
            Self::Whole(bytes) => bytes.get(position..position + data.len()) == Some(data),
            Self::Generated(n) => position + data.len() <= *n && is_pattern(position, data),
        }
    }

    fn digest(&self) -> String {
        let digest = match self {
            Self::Whole(bytes) => Sha256::digest(bytes),
            Self::Generated(n) => Sha256::digest(pattern_of(*n)),
        };
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Expected {
    /// What the answer to a request for `target` must be, given a success.
    pub(super) fn of(target: &str, status: StatusCode, sent: Sent) -> Self {
        let Some(path) = target.strip_prefix("/tunnel/").and_then(|rest| rest.split_once('/')).map(|(_, path)| path) else {
            return Self::Anything;
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let number = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        match path {
            _ if status != StatusCode::OK => Self::Anything,
            "bulk" => Self::Pattern(number("bytes")),
            "abort" => Self::Pattern(None),
            "upload" => Self::Account(sent),
            _ if path.starts_with("echo") && sent.len() > 0 => Self::Echo(sent),
            _ if path.ends_with("/log") => Self::Lines(Vec::new(), None),
            _ => Self::Anything,
        }
    }

    /// Whether `data` may stand at `position`.
    pub(super) fn takes(&mut self, position: usize, data: &[u8]) -> Result<(), String> {
        match self {
            Self::Anything | Self::Account(_) => Ok(()),
            Self::Pattern(_) if is_pattern(position, data) => Ok(()),
            Self::Echo(sent) if sent.is_at(position, data) => Ok(()),
            Self::Pattern(_) | Self::Echo(_) => Err(format!("{} bytes at {position} are not those that were sent", data.len())),
            Self::Lines(begun, next) => {
                for byte in data {
                    if *byte != b'\n' {
                        begun.push(*byte);
                        continue;
                    }
                    let line = String::from_utf8_lossy(&std::mem::take(begun)).into_owned();
                    let number: Option<u64> = line.rsplit(' ').next().and_then(|word| word.parse().ok());
                    let Some(number) = number.filter(|number| next.is_none_or(|next| *number == next)) else {
                        return Err(format!("the line {line:?} came where number {next:?} should"));
                    };
                    *next = Some(number + 1);
                }
                Ok(())
            }
        }
    }

    /// Whether a body that HTTP calls whole may end after `n_bytes`, of which the first are `kept`.
    pub(super) fn ends(&self, n_bytes: usize, kept: &[u8]) -> Result<(), String> {
        match self {
            Self::Pattern(Some(wanted)) if n_bytes != *wanted => Err(format!("{n_bytes} bytes came of {wanted}")),
            Self::Echo(sent) if n_bytes != sent.len() => Err(format!("{n_bytes} bytes came back of {}", sent.len())),
            Self::Lines(begun, _) if !begun.is_empty() => Err("the last line is not whole".to_owned()),
            Self::Account(sent) => {
                let told: Value = serde_json::from_slice(kept).unwrap_or_default();
                let right = told["bytes"] == sent.len() && (sent.len() > DIGEST_MAX || told["sha256"] == sent.digest());
                if right { Ok(()) } else { Err(format!("of {} bytes arrived {told}", sent.len())) }
            }
            Self::Anything | Self::Pattern(_) | Self::Echo(_) | Self::Lines(..) => Ok(()),
        }
    }
}

/// The first `n` bytes of the pattern.
pub(super) fn pattern_of(n: usize) -> Vec<u8> {
    (0..n as u64).map(pattern).collect()
}

fn is_pattern(position: usize, data: &[u8]) -> bool {
    thread_local! {
        static PATTERN: Vec<u8> = pattern_of(2 * PATTERN_BYTES);
    }
    PATTERN.with(|pattern| {
        let mut at = position;
        data.chunks(PATTERN_BYTES).all(|piece| {
            let from = at % PATTERN_BYTES;
            at += piece.len();
            &pattern[from..from + piece.len()] == piece
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_lost_doubled_or_swapped_is_seen() {
        let sent = pattern_of(1000);
        let expected = |target: &str| Expected::of(target, StatusCode::OK, Sent::Generated(1000));
        for target in ["/tunnel/edge-1/bulk?bytes=1000", "/tunnel/edge-1/echo/x"] {
            let mut right = expected(target);
            assert_eq!((right.takes(0, &sent[..300]), right.takes(300, &sent[300..])), (Ok(()), Ok(())), "{target}");
            assert_eq!((right.ends(1000, &[]), right.ends(999, &[]).is_err()), (Ok(()), true), "{target}");
            assert!(expected(target).takes(0, &sent[1..]).is_err(), "{target}");
            assert!(expected(target).takes(300, &sent[299..]).is_err(), "{target}");
        }
    }

    #[test]
    fn a_line_lost_or_doubled_is_seen() {
        let mut lines = Expected::of("/tunnel/edge-1/api/v1/pods/web-0/log?follow=true", StatusCode::OK, Sent::Generated(0));
        assert_eq!(lines.takes(0, b"web line 8\nweb li"), Ok(()));
        assert!(lines.ends(17, &[]).is_err());
        assert_eq!(lines.takes(17, b"ne 9\n"), Ok(()));
        assert_eq!(lines.ends(22, &[]), Ok(()));
        assert!(lines.takes(22, b"web line 9\n").is_err());
    }
}
