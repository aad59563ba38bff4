//! Names that appear on the wire and in logs: clusters, agents, replicas, sessions, streams.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// The name of a cluster: 1-63 of `[a-z0-9.-]` with alphanumeric ends.
///
/// It becomes a label, Secret, Lease and metric name, so it obeys the strictest of them (Kubernetes "Labels and
/// Selectors", RFC 1123 section 2.1 names).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Box<str>);

/// Why a text is no [`ClusterId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster id {text:?} is not 1-{} characters of a-z, 0-9, '.' and '-' with a letter or digit at each end",
    ClusterId::LEN_MAX
)]
pub struct ClusterIdError {
    text: String,
}

impl ClusterId {
    /// The length of a label value (Kubernetes "Labels and Selectors").
    pub const LEN_MAX: usize = 63;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let good = bytes.len() <= Self::LEN_MAX
            && bytes.iter().all(|b| alphanumeric(b) || matches!(b, b'.' | b'-'))
            && ends.into_iter().all(|end| end.is_some_and(alphanumeric));
        if good { Ok(Self(text.into())) } else { Err(ClusterIdError { text: text.to_owned() }) }
    }
}

/// Maps by id are searched by what may be one.
impl Borrow<str> for ClusterId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// One stream of a session. The server counts up from 1 (PROTOCOL.md); 0 is the session itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The id that control frames of the whole session carry.
    pub const SESSION: Self = Self(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One session of one server process, for logs: counts up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ids_are_taken_as_they_are() {
        for good in ["a", "edge-1", "eu.prod-7", &"x".repeat(63)] {
            assert_eq!(good.parse::<ClusterId>().expect(good).as_str(), good);
        }
    }

    #[test]
    fn bad_ids_are_refused_by_name() {
        for bad in ["", "-a", "a-", ".a", "A", "a_b", "a/b", "ä", &"x".repeat(64)] {
            let error = bad.parse::<ClusterId>().expect_err(bad);
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }
}
