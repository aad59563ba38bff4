//! Line: a record as it is read again, to go on behind it or to prove it.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use super::chain::{ChainId, Hash, Head, is_hex};
use super::record::Recovered;

/// No line of ours is longer: a request has 13 texts of 512 bytes, each of which may become six in JSON; a checkpoint has at
/// most [`super::PEERS_MAX`] peers.
pub(super) const LINE_BYTES_MAX: usize = 256 * 1024;

/// What of a line its place in a chain depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) time: Timestamp,
    /// Of the line itself.
    pub(super) hash: Hash,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Chain { chain: ChainId, recovered: Option<Recovered> },
    File { chain: ChainId },
    Start,
    Request,
    Open,
    Close,
    Checkpoint { key: Option<String>, heads: Vec<(Head, String)> },
    Lost { n: u64 },
    Removed { through: u64 },
    End { chain: Option<ChainId>, key: Option<String> },
}

impl Kind {
    /// The chain that the first line of a file names.
    pub(super) fn named_chain(&self) -> Option<ChainId> {
        if let Self::Chain { chain, .. } | Self::File { chain } = self { Some(*chain) } else { None }
    }
}

/// Why a line is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    TooLong,
    NotText,
    CarriageReturn,
    NoRecord,
}

impl Flaw {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::TooLong => "is longer than any record",
            Self::NotText => "is not UTF-8",
            Self::CarriageReturn => "ends with a carriage return, which no record does",
            Self::NoRecord => "is no audit record",
        }
    }
}

impl Line {
    /// Reads a line without its newline.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(Flaw::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Flaw::NotText)?;
        if text.ends_with('\r') {
            return Err(Flaw::CarriageReturn);
        }
        let raw: Raw<'_> = serde_json::from_str(text).map_err(|_| Flaw::NoRecord)?;
        raw.read(bytes).ok_or(Flaw::NoRecord)
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    seq: u64,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    chain: Option<Cow<'a, str>>,
    #[serde(default)]
    recovered: Option<RawRecovered>,
    #[serde(default)]
    peers: Vec<RawPeer>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    through: Option<u64>,
    #[serde(default)]
    n: Option<u64>,
}

#[derive(Deserialize)]
struct RawRecovered {
    file: String,
    chain: String,
    seq: u64,
    hash: String,
    torn_bytes: u64,
}

impl RawRecovered {
    /// Only what is as we write it: `verify` prints some of it, on somebody's terminal.
    fn read(self) -> Option<Recovered> {
        let Self { file, chain, seq, hash, torn_bytes } = self;
        chain.parse::<ChainId>().ok()?;
        hash.parse::<Hash>().ok()?;
        Some(Recovered { file, chain, seq, hash, torn_bytes })
    }
}

/// The first 32 bits of a key's SHA-256.
fn is_key_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|digit| is_hex(&digit))
}

#[derive(Deserialize)]
struct RawPeer {
    #[serde(default)]
    cluster: String,
    head: String,
}

impl Raw<'_> {
    fn read(self, bytes: &[u8]) -> Option<Line> {
        let chain = self.chain.as_deref().and_then(|chain| chain.parse().ok());
        let is_key_told = self.key.as_deref().is_none_or(is_key_id);
        let kind = match &*self.kind {
            "chain" => Kind::Chain {
                chain: chain?,
                recovered: match self.recovered {
                    Some(recovered) => Some(recovered.read()?),
                    None => None,
                },
            },
            "file" => Kind::File { chain: chain? },
            "start" => Kind::Start,
            "request" => Kind::Request,
            "open" => Kind::Open,
            "close" => Kind::Close,
            "checkpoint" if is_key_told => {
                let heads = self.peers.into_iter().filter_map(|peer| Some((peer.head.parse().ok()?, peer.cluster)));
                Kind::Checkpoint { key: self.key, heads: heads.collect() }
            }
            "lost" => Kind::Lost { n: self.n? },
            "removed" => Kind::Removed { through: self.through? },
            "end" if is_key_told => Kind::End { chain, key: self.key },
            _ => return None,
        };
        let (prev, time) = (self.prev.parse().ok()?, self.time.parse().ok()?);
        Some(Line { seq: self.seq, prev, time, hash: Hash::of(bytes), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_says_why() {
        let zeros = "0".repeat(64);
        let good = format!("{{\"seq\":1,\"prev\":\"{zeros}\",\"time\":\"2026-01-01T00:00:00.000Z\",\"kind\":\"end\"}}");
        let line = Line::parse(good.as_bytes()).expect("a record");
        assert_eq!(
            (line.seq, line.prev, line.kind, line.hash),
            (1, Hash::NONE, Kind::End { chain: None, key: None }, Hash::of(good.as_bytes()))
        );
        let recovered = |chain: &str, hash: &str| {
            let named = format!("\"file\":\"f\",\"chain\":\"{chain}\",\"seq\":1,\"hash\":\"{hash}\",\"torn_bytes\":0");
            format!("\"chain\",\"chain\":\"00000000000000ff\",\"recovered\":{{{named}}}")
        };
        for right in [recovered("00000000000000ff", &zeros), "\"checkpoint\",\"key\":\"0123abcd\"".to_owned()] {
            assert!(Line::parse(good.replace("\"end\"", &right).as_bytes()).is_ok(), "{right}");
        }
        let long = format!("{}{}", good, " ".repeat(LINE_BYTES_MAX));
        for (bytes, flaw) in [
            (long.into_bytes(), Flaw::TooLong),
            (b"\xff\xfe".to_vec(), Flaw::NotText),
            (format!("{good}\r").into_bytes(), Flaw::CarriageReturn),
            (Vec::new(), Flaw::NoRecord),
            (b"[]".to_vec(), Flaw::NoRecord),
            (good.replace("\"end\"", "\"eggs\"").into_bytes(), Flaw::NoRecord),
            (good.replace("\"end\"", "\"end\",\"key\":\"\\u001b[2J\"").into_bytes(), Flaw::NoRecord),
            (good.replace("\"end\"", "\"file\"").into_bytes(), Flaw::NoRecord),
            (good.replace("2026", "year").into_bytes(), Flaw::NoRecord),
            (good.replace("\"end\"", "\"checkpoint\",\"key\":\"\\u001b[2Jxxxx\"").into_bytes(), Flaw::NoRecord),
            (good.replace("\"end\"", &recovered("\\nverified: all", &zeros)).into_bytes(), Flaw::NoRecord),
            (good.replace("\"end\"", &recovered("00000000000000ff", "\\u001b[2J")).into_bytes(), Flaw::NoRecord),
            (good.replace(&zeros, &zeros[1..]).into_bytes(), Flaw::NoRecord),
            (good.replace("\"seq\":1", "\"seq\":-1").into_bytes(), Flaw::NoRecord),
            (format!("{good}{good}").into_bytes(), Flaw::NoRecord),
        ] {
            assert_eq!(Line::parse(&bytes), Err(flaw));
        }
    }
}
