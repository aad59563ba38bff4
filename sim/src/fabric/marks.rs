//! Marked words in the traffic: seen on every line as they pass, without keeping what passes.
//!
//! A word is a mark, two fields and whatever follows, each field ended by `~`. Only plain bytes show theirs: what TLS,
//! HPACK or the masks of a WebSocket's client hide is seen where it comes out again. Words in base64, as Basic
//! authentication has them, are seen where they begin at a group of four.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

/// What every marked word begins with.
pub(crate) const MARK: &[u8] = b"credential~";

/// How a marked word whose kind begins with a `p` begins in base64: twelve bytes are sixteen.
const BASE64_MARK: &[u8] = b"Y3JlZGVudGlhbH5w";

/// Ends each field.
const FIELD_END: u8 = b'~';

/// The longest two fields: a kind and a name of 63 characters, with room. What has no end by then is a word too.
const WORD_MAX: usize = 128;

/// A marked word that left one machine for another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crossing {
    /// The machine that sent it.
    pub from: String,
    /// The machine at the other end.
    pub to: String,
    /// Its first field: the kind of thing.
    pub kind: String,
    /// Its second: whose it is.
    pub owner: String,
}

/// Every different crossing there was; a set of words and machines, so it is bounded by the world's size.
pub(super) type Crossings = BTreeSet<Crossing>;

/// The end of one pipe's bytes so far, as far as a word may have begun in it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    plain: Vec<u8>,
    base64: Vec<u8>,
}

impl Tail {
    /// Looks at the pipe's next bytes and hands each word's fields to `found`.
    pub(super) fn scan(&mut self, segment: &[u8], mut found: impl FnMut(String, String)) {
        self.scan_base64(segment, &mut found);
        let before = std::mem::take(&mut self.plain);
        let joined;
        let mut text = segment;
        if !before.is_empty() {
            joined = [&before, segment].concat();
            text = &joined;
        }
        while let Some(at) = memmem::find(text, MARK) {
            let word = &text[at + MARK.len()..];
            match fields(word) {
                Some((kind, owner, rest)) => {
                    found(lossy(kind), lossy(owner));
                    text = rest;
                }
                None if word.len() < WORD_MAX => {
                    self.plain = text[at..].to_vec();
                    return;
                }
                None => {
                    found(lossy(&word[..WORD_MAX]), String::new());
                    text = &word[WORD_MAX..];
                }
            }
        }
        let begun = (1..MARK.len()).rev().find(|n| text.ends_with(&MARK[..*n])).unwrap_or_default();
        self.plain = MARK[..begun].to_vec();
    }

    fn scan_base64(&mut self, segment: &[u8], found: &mut impl FnMut(String, String)) {
        let before = std::mem::take(&mut self.base64);
        let joined;
        let mut text = segment;
        if !before.is_empty() {
            joined = [&before, segment].concat();
            text = &joined;
        }
        while let Some(at) = memmem::find(text, BASE64_MARK) {
            let word = &text[at..text.len().min(at + 2 * WORD_MAX)];
            let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
            let n = word.iter().take_while(|byte| is_digit(byte)).count();
            if n == word.len() && word.len() < 2 * WORD_MAX {
                self.base64 = text[at..].to_vec();
                return;
            }
            let decoded = STANDARD.decode(&word[..n - n % 4]).unwrap_or_default();
            match decoded.strip_prefix(MARK).and_then(fields) {
                Some((kind, owner, _)) => found(lossy(kind), lossy(owner)),
                None => found(lossy(&decoded), String::new()),
            }
            text = &text[at + n..];
        }
        let begun = (1..BASE64_MARK.len()).rev().find(|n| text.ends_with(&BASE64_MARK[..*n])).unwrap_or_default();
        self.base64 = BASE64_MARK[..begun].to_vec();
    }
}

fn fields(word: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut ends = memchr::memchr_iter(FIELD_END, &word[..word.len().min(WORD_MAX)]);
    let (first, second) = (ends.next()?, ends.next()?);
    Some((&word[..first], &word[first + 1..second], &word[second..]))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_however_it_is_cut_up() {
        let text = b"GET / credentia credential~tunnel~edge-1~2\r\ncredential~callers~kubectl~ \
            Basic ZWQ6Y3JlZGVudGlhbH5wcm94eX5lZGdlLTF+\r\nY3JlZGVudGlhbA== credential~caller";
        let wanted = [("tunnel", "edge-1"), ("callers", "kubectl"), ("proxy", "edge-1")]
            .map(|(kind, owner)| (kind.to_owned(), owner.to_owned()));
        for n in 1..=text.len() {
            let (mut tail, mut seen) = (Tail::default(), Vec::new());
            for segment in text.chunks(n) {
                tail.scan(segment, |kind, owner| seen.push((kind, owner)));
            }
            // Those in base64 are looked for first.
            seen.sort_by_key(|seen| wanted.iter().position(|wanted| wanted == seen));
            assert_eq!(seen, wanted, "in pieces of {n}");
        }
    }

    #[test]
    fn a_word_without_an_end_is_told_and_not_kept() {
        let (mut tail, mut n_seen) = (Tail::default(), 0);
        for segment in [&b"credential~"[..], &[b'x'; 1000], &[b'x'; 1000]] {
            tail.scan(segment, |_, _| n_seen += 1);
            assert!(tail.plain.len() < MARK.len() + WORD_MAX);
        }
        assert_eq!(n_seen, 1);
    }
}
