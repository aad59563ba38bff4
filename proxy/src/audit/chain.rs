//! Chain: what makes one line follow another, and a head that says where a chain has come to.
//!
//! A line names the SHA-256 of the line before it, so whoever knows a head knows whether anything before it is as it was.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::SystemTime;

use aws_lc_rs::digest::{self, SHA256};
use jiff::Timestamp;

/// The SHA-256 of a line without its newline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Hash([u8; 32]);

impl Hash {
    /// What the first line of a chain follows.
    pub(super) const NONE: Self = Self([0; 32]);

    pub(super) fn of(line: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&SHA256, line).as_ref());
        Self(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Hash {
    type Err = ();

    /// 64 hexadecimal digits in lower case.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut hash = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(is_hex) {
            return Err(());
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ())?;
        }
        Ok(Self(hash))
    }
}

pub(super) fn is_hex(digit: &u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

/// Bytes in hexadecimal, lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// The name of a chain: 16 hexadecimal digits of chance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ChainId(pub(super) u64);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ChainId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 16 || !text.bytes().all(|digit| is_hex(&digit)) {
            return Err(());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

/// Where a chain has come to: `CHAIN:SEQ:HASH`, as ends tell each other and people note it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Head {
    pub(super) chain: ChainId,
    /// Of its last line.
    pub(super) seq: u64,
    pub(super) hash: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.chain, self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(());
        let (chain, seq, hash) = (part()?.parse()?, part()?, part()?.parse()?);
        let is_number = seq.bytes().all(|digit| digit.is_ascii_digit());
        Ok(Self { chain, seq: seq.parse().ok().filter(|_| is_number).ok_or(())?, hash })
    }
}

/// A chain that grows.
#[derive(Clone)]
pub(super) struct Chain {
    pub(super) head: Head,
}

impl Chain {
    /// A new chain behind `seq`, the last number that an earlier one has used.
    pub(super) fn new(id: u64, seq: u64) -> Self {
        Self { head: Head { chain: ChainId(id), seq, hash: Hash::NONE } }
    }

    /// Adds a line to `out`. `body` is the rest of its object without the first brace; of a line that is signed, `sign` makes
    /// the end of what stands before.
    pub(super) fn seal(&mut self, time: SystemTime, body: &str, sign: impl FnOnce(&[u8]) -> Option<String>, out: &mut Vec<u8>) {
        let begin = out.len();
        let mut line = String::with_capacity(body.len() + 192);
        // Writing to a text cannot fail.
        let _ = write!(line, "{{\"seq\":{},\"prev\":\"{}\",\"time\":\"{}\",", self.head.seq + 1, self.head.hash, stamp(time));
        line.push_str(body);
        out.extend_from_slice(line.as_bytes());
        if let Some(end) = sign(&out[begin..]) {
            // In front of the closing brace.
            out.pop();
            out.extend_from_slice(end.as_bytes());
        }
        self.head.seq += 1;
        self.head.hash = Hash::of(&out[begin..]);
        out.push(b'\n');
    }
}

/// A moment as records tell it: RFC 3339, UTC, to the millisecond.
pub(super) fn stamp(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_hash_of_the_one_before() {
        let (mut chain, mut out) = (Chain::new(7, 0), Vec::new());
        for kind in ["one", "two"] {
            chain.seal(SystemTime::UNIX_EPOCH, &format!("\"kind\":\"{kind}\"}}"), |_| None, &mut out);
        }
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            format!("{{\"seq\":1,\"prev\":\"{}\",\"time\":\"1970-01-01T00:00:00.000Z\",\"kind\":\"one\"}}", "0".repeat(64))
        );
        assert!(lines[1].starts_with(&format!("{{\"seq\":2,\"prev\":\"{}\",", Hash::of(lines[0].as_bytes()))));
        assert_eq!(chain.head.hash, Hash::of(lines[1].as_bytes()));
    }

    #[test]
    fn a_head_is_read_as_it_is_told_and_nothing_else_is() {
        let head = Head { chain: ChainId(0xab), seq: 12, hash: Hash::of(b"x") };
        let told = head.to_string();
        assert_eq!(told.parse(), Ok(head));
        let hash = Hash::of(b"x");
        for wrong in [
            String::new(),
            "a:1:b".to_owned(),
            told.to_uppercase(),
            format!("{told} "),
            format!("00000000000000ab:+12:{hash}"),
            format!("00000000000000ab:12:{}", &hash.to_string()[1..]),
            format!("+0000000000000ab:12:{hash}"),
            format!("00000000000000ab:99999999999999999999:{hash}"),
        ] {
            assert_eq!(wrong.parse::<Head>(), Err(()), "{wrong:?}");
        }
    }
}
