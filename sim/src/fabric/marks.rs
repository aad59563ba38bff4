//! Marked words in the traffic: seen on every line as they pass, without keeping what passes.
//!
//! A word is a mark, two fields and whatever follows, each field ended by `~`. Only plain bytes show theirs: what TLS,
//! HPACK or the masks of a WebSocket's client hide is seen where it comes out again.

use std::collections::BTreeSet;

use memchr::memmem;

/// What every marked word begins with.
pub(crate) const MARK: &[u8] = b"credential~";

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
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// Looks at the pipe's next bytes and hands each word's fields to `found`.
    pub(super) fn scan(&mut self, segment: &[u8], mut found: impl FnMut(String, String)) {
        let before = std::mem::take(&mut self.0);
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
                    self.0 = text[at..].to_vec();
                    return;
                }
                None => {
                    found(lossy(&word[..WORD_MAX]), String::new());
                    text = &word[WORD_MAX..];
                }
            }
        }
        let begun = (1..MARK.len()).rev().find(|n| text.ends_with(&MARK[..*n])).unwrap_or_default();
        self.0 = MARK[..begun].to_vec();
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
        let text = b"GET / credentia credential~tunnel~edge-1~2\r\ncredential~callers~kubectl~ credential~caller";
        let wanted = [("tunnel", "edge-1"), ("callers", "kubectl")].map(|(kind, owner)| (kind.to_owned(), owner.to_owned()));
        for n in 1..=text.len() {
            let (mut tail, mut seen) = (Tail::default(), Vec::new());
            for segment in text.chunks(n) {
                tail.scan(segment, |kind, owner| seen.push((kind, owner)));
            }
            assert_eq!(seen, wanted, "in pieces of {n}");
        }
    }

    #[test]
    fn a_word_without_an_end_is_told_and_not_kept() {
        let (mut tail, mut n_seen) = (Tail::default(), 0);
        for segment in [&b"credential~"[..], &[b'x'; 1000], &[b'x'; 1000]] {
            tail.scan(segment, |_, _| n_seen += 1);
            assert!(tail.0.len() < MARK.len() + WORD_MAX);
        }
        assert_eq!(n_seen, 1);
    }
}
