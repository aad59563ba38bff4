//! Tokens of agents: hashed once, compared in constant time with every stored digest, no early exit.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tunnel::id::ClusterId;

use crate::config::ClusterConfig;

/// What is kept of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(crate) fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret()).into())
    }
}

/// The digests of all clusters' tokens.
pub(crate) struct Tokens {
    digests: Vec<(TokenDigest, usize)>,
    clusters: Vec<ClusterId>,
}

impl Tokens {
    pub(crate) fn new(clusters: &[ClusterConfig]) -> Self {
        let digests = clusters
            .iter()
            .enumerate()
            .flat_map(|(index, cluster)| cluster.tokens.iter().map(move |token| (TokenDigest::of(token), index)));
        Self { digests: digests.collect(), clusters: clusters.iter().map(|cluster| cluster.id.clone()).collect() }
    }

    /// Whose token it is. Takes as long for a wrong token as for a right one.
    pub(crate) fn cluster_of(&self, token: &[u8]) -> Option<(&ClusterId, TokenDigest)> {
        self.find(token, &mut |_| {})
    }

    /// `compared` hears of every comparison, so that a test can count them.
    fn find(&self, token: &[u8], compared: &mut dyn FnMut(usize)) -> Option<(&ClusterId, TokenDigest)> {
        let presented: [u8; 32] = Sha256::digest(token).into();
        // No digest's cluster has the highest index there is.
        let mut found = u64::MAX;
        for (digest, index) in &self.digests {
            let equal: Choice = digest.0.ct_eq(&presented);
            found.conditional_assign(&(*index as u64), equal);
            compared(*index);
        }
        let cluster = usize::try_from(found).ok().and_then(|index| self.clusters.get(index))?;
        Some((cluster, TokenDigest(presented)))
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750 section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: usize) -> Tokens {
        let cluster = |i: usize| ClusterConfig {
            id: format!("c{i}").parse().expect("a good id"),
            route: format!("c{i}"),
            tokens: vec![format!("token-{i}").into()],
            target_addr: String::new(),
        };
        Tokens::new(&(0..n).map(cluster).collect::<Vec<_>>())
    }

    #[test]
    fn every_digest_is_compared_whichever_matches() {
        let tokens = tokens(7);
        for (token, expected) in [("token-0", Some("c0")), ("token-6", Some("c6")), ("wrong", None), ("", None)] {
            let mut compared = Vec::new();
            let found = tokens.find(token.as_bytes(), &mut |index| compared.push(index));
            assert_eq!(found.map(|(cluster, _)| cluster.as_str()), expected);
            assert_eq!(compared, (0..7).collect::<Vec<_>>(), "for {token:?}");
        }
    }

    #[test]
    fn only_a_bearer_header_carries_a_token() {
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header value"))]);
        assert_eq!(bearer(&headers("Bearer abc")), Some(&b"abc"[..]));
        assert_eq!(bearer(&headers("bearer  abc ")), Some(&b"abc"[..]));
        for none in ["Bearer", "Bearer ", "Basic abc", "abc", ""] {
            assert_eq!(bearer(&headers(none)), None, "{none:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
