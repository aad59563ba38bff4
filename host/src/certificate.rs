//! Certificates as identities: whose they are, for how long they are good, and how they are told apart.

mod described;
mod twins;

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

pub use described::Described;

/// The SHA-256 of a certificate's DER: what `openssl x509 -fingerprint -sha256` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no SHA-256 fingerprint: 64 hexadecimal digits are needed, with or without colons between bytes")]
pub struct NoFingerprint;

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The digest itself.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoFingerprint);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NoFingerprint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NoFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// From when and until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// That of a certificate in DER; `None` when it is no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let validity = certificate.validity();
        Some(Self { not_before: time(validity.not_before.timestamp()), not_after: time(validity.not_after.timestamp()) })
    }

    /// What is left of it at `now`; nothing once it is over.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Whether it should be renewed by now: a third of its lifetime is left, or less.
    pub fn is_ending(&self, now: SystemTime) -> bool {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.left(now) <= lifetime / 3
    }
}

/// The verified certificate of a peer, and the chain that it came with.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Of the leaf.
    pub fingerprint: Fingerprint,
    /// Other fingerprints that its holder could give it: whoever lists the certificate means these too.
    twins: Vec<Fingerprint>,
    /// The URIs among its subject alternative names (RFC 5280 section 4.2.1.6), such as a SPIFFE id.
    pub uris: Vec<String>,
    /// Its subject's common name; `None` also when it has several, of which none could be relied on.
    pub common_name: Option<String>,
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl PeerCertificate {
    /// Whether a list of fingerprints means this certificate.
    pub fn is_listed(&self, lists: impl Fn(&Fingerprint) -> bool) -> bool {
        lists(&self.fingerprint) || self.twins.iter().any(lists)
    }

    /// Reads a chain that TLS has verified; `None` when its first certificate cannot be read.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, certificate) = parse_x509_certificate(leaf).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let common_name = names.next().filter(|_| names.next().is_none()).and_then(|name| name.as_str().ok());
        let names = certificate.subject_alternative_name().ok().flatten();
        let uri = |name: &GeneralName<'_>| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None };
        Some(Self {
            fingerprint: Fingerprint::of(leaf),
            twins: twins::twins(leaf),
            uris: names.map(|names| names.value.general_names.iter().filter_map(uri).collect()).unwrap_or_default(),
            common_name: common_name.map(str::to_owned),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        })
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("fingerprint", &self.fingerprint)
            .field("uris", &self.uris)
            .field("common_name", &self.common_name)
            .finish_non_exhaustive()
    }
}
