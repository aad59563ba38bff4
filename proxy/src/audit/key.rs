//! Key: what signs checkpoints, so that who cannot read it cannot write a history anew.

use std::fmt;

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use host::watched::Contents;

use super::chain::hex;
use crate::flags::ConfigError;

/// A key shorter than this could be guessed: 128 bits, if they are chance.
const KEY_BYTES_MIN: usize = 16;

/// What stands between what is signed and its signature.
pub(super) const SIGNATURE: &[u8] = b",\"hmac\":\"";

/// A key for HMAC-SHA256 (RFC 2104).
pub(super) struct Key {
    key: hmac::Key,
    /// Which of several it is: the first 32 bits of its SHA-256.
    pub(super) id: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// A key from the bytes of a file; white space at its end is not part of it.
    pub(super) fn new(file: &[u8]) -> Result<Self, String> {
        let bytes = file.trim_ascii_end();
        if bytes.len() < KEY_BYTES_MIN {
            return Err(format!("has a key of {} bytes, at least {KEY_BYTES_MIN} are needed", bytes.len()));
        }
        let id = hex(&digest::digest(&SHA256, bytes).as_ref()[..4]);
        Ok(Self { key: hmac::Key::new(HMAC_SHA256, bytes), id })
    }

    /// The key that a file holds among what was read.
    pub(super) fn of(contents: &Contents, path: &str) -> Result<Self, ConfigError> {
        let mistake = |problem: String| ConfigError::new(format!("--audit-key {path}"), problem);
        let bytes = contents.of(path).map_err(|unread| mistake(format!("cannot be read: {unread}")))?;
        Self::new(bytes).map_err(mistake)
    }

    /// The end of a line that begins with `line`, whose last byte is the object's brace: its signature, and the brace.
    pub(super) fn sign(&self, line: &[u8]) -> String {
        let signed = line.strip_suffix(b"}").unwrap_or(line);
        format!("{}{}\"}}", String::from_utf8_lossy(SIGNATURE), hex(hmac::sign(&self.key, signed).as_ref()))
    }

    /// Whether `line` ends as [`Key::sign`] has it end.
    pub(super) fn has_signed(&self, line: &[u8]) -> bool {
        let at = line.windows(SIGNATURE.len()).rposition(|part| part == SIGNATURE);
        let signed = at.and_then(|at| {
            let hmac = line[at + SIGNATURE.len()..].strip_suffix(b"\"}")?;
            Some((&line[..at], hmac))
        });
        // The text is compared and no secret is learnt from how long that takes: verification is no oracle.
        signed.is_some_and(|(signed, hmac)| hex(hmac::sign(&self.key, signed).as_ref()).as_bytes() == hmac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_line_and_its_key_alone() {
        let (key, other) = (Key::new(b"0123456789abcdef\n").expect("a key"), Key::new(b"fedcba9876543210").expect("a key"));
        let line = b"{\"seq\":1,\"kind\":\"checkpoint\"}";
        let signed = [&line[..line.len() - 1], key.sign(line).as_bytes()].concat();
        assert!(key.has_signed(&signed) && !other.has_signed(&signed) && !key.has_signed(line));
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            assert!(!key.has_signed(&changed), "byte {at}");
        }
    }

    #[test]
    fn a_signature_is_rfc_2104_over_what_stands_before_it() {
        // Computed with `openssl dgst -sha256 -hmac 0123456789abcdef`.
        let key = Key::new(b"0123456789abcdef").expect("a key");
        let end = key.sign(b"{\"seq\":1}");
        assert_eq!(end, ",\"hmac\":\"b5ddef04308e31d8ea63a9efbd8c5886c04470ad27c7b7880c78594fa5a70005\"}");
    }

    #[test]
    fn a_short_key_is_none_and_white_space_at_its_end_counts_for_nothing() {
        assert_eq!(Key::new(b"short\n").expect_err("short"), "has a key of 5 bytes, at least 16 are needed");
        assert_eq!(Key::new(b"0123456789abcdef\r\n").expect("a key").id, Key::new(b"0123456789abcdef").expect("a key").id);
    }
}
