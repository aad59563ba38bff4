//! What a certificate says of itself, in words for people. Whoever made it chose them, so they are bounded and printable.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::{PeerCertificate, Validity};

/// The longest name that is told: a line of a terminal.
const TEXT_MAX: usize = 120;

/// Names that are told of one certificate: enough to see whose it is.
const NAMES_MAX: usize = 8;

/// A certificate's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `CN=hub, O=Example`.
    pub subject: String,
    /// Who has signed it, as the certificate has it.
    pub issuer: String,
    /// The DNS names and addresses that it is for, the first of them.
    pub names: Vec<String>,
    /// From when until when it is good.
    pub validity: Validity,
}

impl PeerCertificate {
    /// What its leaf says of itself; `None` when it cannot be read.
    pub fn described(&self) -> Option<Described> {
        self.chain.first().and_then(|leaf| Described::of(leaf))
    }
}

impl Described {
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(leaf).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(name).take(NAMES_MAX).collect());
        Some(Self {
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            names: names.unwrap_or_default(),
            validity: Validity::of(leaf)?,
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(printable(name));
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
        (Ok(four), _) => Some(Ipv4Addr::from(four).to_string()),
        (_, Ok(sixteen)) => Some(Ipv6Addr::from(sixteen).to_string()),
        (Err(_), Err(_)) => None,
    }
}

/// Nothing that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ' || c.is_alphanumeric()).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_described_in_words_that_no_terminal_obeys() {
        let mut params = CertificateParams::new(vec!["hub.example".to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::new(10, 0, 0, 1).into()));
        params.distinguished_name.push(DnType::CommonName, "h\u{1b}[31mub");
        let made = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let described = Described::of(made.der()).expect("readable");
        assert_eq!(described.names, ["hub.example", "10.0.0.1"]);
        assert!(described.subject.contains("CN=h[31mub"), "{described:?}");
        assert_eq!(described.subject, described.issuer);
    }
}
