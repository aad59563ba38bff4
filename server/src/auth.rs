//! Who presents what: tokens hashed once and compared in constant time with every stored digest, and names in certificates.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use host::Host;
use host::certificate::{Fingerprint, PeerCertificate};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use proxy::flags::{self, ConfigError};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// What is kept of a token: its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

/// What stands before the digest where a file has it in place of the token.
const DIGEST_PREFIX: &str = "sha256:";

impl TokenDigest {
    /// That of a token.
    pub fn of(token: &SecretString) -> Self {
        Self::of_bytes(token.expose_secret().as_bytes())
    }

    /// That of what somebody presents as a token.
    pub(crate) fn of_bytes(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The first `N` bytes: they tell tokens apart and give none away.
    pub(crate) fn prefix<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|index| self.0.get(index).copied().unwrap_or_default())
    }

    /// That of a token in a file: the token itself, or `sha256:` and the digest in hexadecimal.
    ///
    /// # Errors
    /// What is wrong with it, without an echo.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        match text.trim().strip_prefix(DIGEST_PREFIX) {
            Some(hex) => match (hex.len(), hex.parse::<Fingerprint>()) {
                (64, Ok(digest)) => Ok(Self(digest.bytes())),
                _ => Err(format!("after {DIGEST_PREFIX} needs the 64 hexadecimal digits of the token's SHA-256")),
            },
            None => flags::secret(text).map(|token| Self::of(&token)),
        }
    }

    /// Whether a token in a file stands there as its digest.
    pub(crate) fn is_digest(text: &str) -> bool {
        text.trim().starts_with(DIGEST_PREFIX)
    }

    /// All of it, in hexadecimal.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The first digits: enough to tell tokens apart in a log.
impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A random token, and the digest that may stand for it in a file, as the command `token` prints them.
pub(crate) fn fresh_token(host: &Host) -> String {
    // 256 bits: as many as the digest has.
    let bytes: Vec<u8> = (0..4).flat_map(|_| host.chance().to_le_bytes()).collect();
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let digest = TokenDigest::of_bytes(token.as_bytes()).hex();
    format!(
        "# Secret, for whoever presents it.\ntoken: \"{token}\"\n# For the file of clusters or callers.\ndigest: \"{DIGEST_PREFIX}{digest}\"\n"
    )
}

/// The digests of all tokens, each with whose it is.
pub(crate) struct Tokens<T> {
    digests: Vec<(TokenDigest, usize)>,
    owners: Vec<T>,
}

impl<T> Tokens<T> {
    /// From each owner with its tokens; no two have the same.
    pub(crate) fn new<'a>(owners: impl Iterator<Item = (T, &'a [TokenDigest])>) -> Self {
        let mut tokens = Self { digests: Vec::new(), owners: Vec::new() };
        for (owner, digests) in owners {
            let index = tokens.owners.len();
            tokens.digests.extend(digests.iter().map(|digest| (*digest, index)));
            tokens.owners.push(owner);
        }
        tokens
    }

    /// Whose token it is. Takes as long for a wrong token as for a right one.
    pub(crate) fn owner_of(&self, token: &TokenDigest) -> Option<&T> {
        self.find(token, &mut |_| {})
    }

    /// `compared` hears of every comparison, so that a test can count them.
    fn find(&self, token: &TokenDigest, compared: &mut dyn FnMut(usize)) -> Option<&T> {
        // No owner has the highest index there is.
        let mut found = u64::MAX;
        for (digest, index) in &self.digests {
            let equal: Choice = digest.0.ct_eq(&token.0);
            found.conditional_assign(&(*index as u64), equal);
            compared(*index);
        }
        usize::try_from(found).ok().and_then(|index| self.owners.get(index))
    }
}

/// A name that a client certificate must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateName {
    /// A URI among its subject alternative names, such as a SPIFFE id.
    Uri(String),
    /// Its subject's common name.
    CommonName(String),
}

impl CertificateName {
    /// Whether the certificate has the name.
    pub(crate) fn is_of(&self, certificate: &PeerCertificate) -> bool {
        match self {
            Self::Uri(uri) => certificate.uris.contains(uri),
            Self::CommonName(name) => certificate.common_name.as_ref() == Some(name),
        }
    }
}

impl FromStr for CertificateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("uri", uri)) if uri.contains(':') => Ok(Self::Uri(uri.to_owned())),
            Some(("cn", name)) if !name.is_empty() => Ok(Self::CommonName(name.to_owned())),
            Some(_) | None => Err("is no name of a certificate such as uri:spiffe://hub/edge-1 or cn:edge-1".to_owned()),
        }
    }
}

/// Certificates that are good no longer, whatever their issuer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked(BTreeSet<Fingerprint>);

impl Revoked {
    /// Reads a list: one SHA-256 fingerprint in each line, as `openssl x509 -fingerprint -sha256` prints it; what follows
    /// a `#` is for people. A list without any line says nothing, which is a mistake; one of comments says that nobody is revoked.
    ///
    /// # Errors
    /// Every mistake found, each with its line; `place` says where the list stands.
    pub(crate) fn parse(place: &str, bytes: &[u8]) -> Result<Self, Vec<ConfigError>> {
        let text = std::str::from_utf8(bytes).map_err(|_| vec![ConfigError::new(place, "is not UTF-8")])?;
        if text.trim().is_empty() {
            return Err(vec![ConfigError::new(place, "is empty; a line that begins with # says that no certificate is revoked")]);
        }
        let (mut revoked, mut errors) = (BTreeSet::new(), Vec::new());
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            // `sha256 Fingerprint=AB:CD:…`
            let word = line.rsplit('=').next().unwrap_or_default().trim();
            match word.parse::<Fingerprint>() {
                Ok(fingerprint) => drop(revoked.insert(fingerprint)),
                Err(_) if word.is_empty() => {}
                Err(error) => errors.push(ConfigError::new(format!("{place}:{}", n + 1), error.to_string())),
            }
        }
        if errors.is_empty() { Ok(Self(revoked)) } else { Err(errors) }
    }

    /// Whether the certificate is among them.
    pub(crate) fn has(&self, certificate: &PeerCertificate) -> bool {
        certificate.is_listed(|fingerprint| self.0.contains(fingerprint))
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750 section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    token(headers.get(AUTHORIZATION)?)
}

/// The token in the value of such a header.
pub(crate) fn token(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: usize) -> Tokens<String> {
        let owners: Vec<_> = (0..n).map(|i| (format!("c{i}"), vec![TokenDigest::of(&format!("token-{i}").into())])).collect();
        Tokens::new(owners.iter().map(|(owner, tokens)| (owner.clone(), tokens.as_slice())))
    }

    #[test]
    fn every_digest_is_compared_whichever_matches() {
        let tokens = tokens(7);
        for (token, expected) in [("token-0", Some("c0")), ("token-6", Some("c6")), ("wrong", None), ("", None)] {
            let mut compared = Vec::new();
            let found = tokens.find(&TokenDigest::of_bytes(token.as_bytes()), &mut |index| compared.push(index));
            assert_eq!(found.map(String::as_str), expected);
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

    #[test]
    fn a_list_of_revoked_certificates_is_read_as_openssl_prints_them() {
        let hex = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        let list = |text: &str| Revoked::parse("--revoked-certs r", text.as_bytes());
        let one = Revoked([hex.parse().expect("a fingerprint")].into());
        for text in [format!("{hex}\n"), format!("# lost laptop\n\nsha256 Fingerprint={colons} # edge-1\r\n"), colons] {
            assert_eq!(list(&text).as_ref(), Ok(&one), "{text}");
        }
        assert_eq!(list("# nobody\n"), Ok(Revoked::default()));
        let told = list(&format!("{hex}\nab\n\nnobody")).expect_err("mistakes");
        assert_eq!(
            told.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(),
            ["--revoked-certs r:2", "--revoked-certs r:4"]
        );
        assert_eq!(list(" \n").expect_err("empty").len(), 1);
    }

    #[test]
    fn a_certificates_name_is_a_uri_or_a_common_name() {
        assert_eq!("uri:spiffe://hub/a".parse(), Ok(CertificateName::Uri("spiffe://hub/a".to_owned())));
        assert_eq!("cn:a:b".parse(), Ok(CertificateName::CommonName("a:b".to_owned())));
        for wrong in ["", "a", "cn:", "uri:", "uri:a", "dns:a"] {
            assert!(wrong.parse::<CertificateName>().is_err(), "{wrong}");
        }
    }
}
