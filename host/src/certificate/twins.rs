//! The other fingerprints of a certificate: an ECDSA signature has a twin that is as good, so its holder can make another
//! certificate of it that every verifier accepts, with another fingerprint.
//!
//! Where (r, s) signs, (r, n - s) does too, n being the order of the curve (SEC 1 section 4.1.4 checks no more). A list of
//! fingerprints must know both.

use super::Fingerprint;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// The orders of the curves that certificates are signed with: P-256, P-384 and P-521 (FIPS 186-4 appendix D.1.2). Which of
/// them it was stands in the issuer's certificate; trying all makes fingerprints that no certificate has, which do no harm.
const ORDERS: [&str; 3] = [
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
];

/// The fingerprints that a holder of the certificate could give it; none when its signature has no twin.
pub(super) fn twins(der: &[u8]) -> Vec<Fingerprint> {
    ORDERS.iter().filter_map(|order| twin(der, &bytes(order))).map(|der| Fingerprint::of(&der)).collect()
}

/// The certificate with its signature's twin (RFC 5280 section 4.1, RFC 5758 section 3.2).
fn twin(der: &[u8], order: &[u8]) -> Option<Vec<u8>> {
    let (certificate, []) = open(der, SEQUENCE)? else { return None };
    let (tbs, rest) = open(certificate, SEQUENCE)?;
    let (algorithm, rest) = open(rest, SEQUENCE)?;
    let (signature, []) = open(rest, BIT_STRING)? else { return None };
    let (numbers, []) = open(signature.strip_prefix(&[0])?, SEQUENCE)? else { return None };
    let (r, rest) = open(numbers, INTEGER)?;
    let (s, []) = open(rest, INTEGER)? else { return None };
    let numbers = [wrap(INTEGER, r), wrap(INTEGER, &difference(order, s)?)].concat();
    let signature = [&[0], wrap(SEQUENCE, &numbers).as_slice()].concat();
    Some(wrap(SEQUENCE, &[wrap(SEQUENCE, tbs), wrap(SEQUENCE, algorithm), wrap(BIT_STRING, &signature)].concat()))
}

/// The content of the first element, if it has this tag, and what follows it.
fn open(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // No certificate has 16 MiB.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    if *found == tag { rest.split_at_checked(len) } else { None }
}

/// An element as DER has it: with the shortest length.
fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let digits = &len[len.iter().position(|digit| *digit != 0).unwrap_or(len.len() - 1)..];
    let mut der = vec![tag];
    match digits {
        [short @ 0..=0x7f] => der.push(*short),
        // A length of at most eight digits.
        digits => {
            der.push(0x80 | digits.len() as u8);
            der.extend_from_slice(digits);
        }
    }
    der.extend_from_slice(content);
    der
}

/// `a - b` as the content of a DER integer; `None` unless it is positive.
fn difference(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let b = &b[b.iter().position(|digit| *digit != 0)?..];
    let n_more = a.len().checked_sub(b.len())?;
    let mut digits = a.to_vec();
    let mut borrow = 0;
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        let subtrahend = place.checked_sub(n_more).and_then(|place| b.get(place)).copied().unwrap_or(0);
        let left = i16::from(*digit) - i16::from(subtrahend) - borrow;
        borrow = i16::from(left < 0);
        *digit = left.rem_euclid(256) as u8;
    }
    let from = digits.iter().position(|digit| *digit != 0).filter(|_| borrow == 0)?;
    let sign = (digits[from] >= 0x80).then_some(0);
    Some(sign.into_iter().chain(digits[from..].iter().copied()).collect())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::pki_types::UnixTime;
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    #[test]
    fn the_twin_of_a_certificate_is_as_good_and_is_known() {
        crate::tls::use_provider();
        for (algorithm, order) in [(&rcgen::PKCS_ECDSA_P256_SHA256, ORDERS[0]), (&rcgen::PKCS_ECDSA_P384_SHA384, ORDERS[1])] {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
            ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let ca = rcgen::CertifiedIssuer::self_signed(ca, key).expect("an authority");
            let leaf = rcgen::CertificateParams::new(vec!["edge-1".to_owned()]).expect("parameters");
            let leaf = leaf.signed_by(&rcgen::KeyPair::generate().expect("a key"), &ca).expect("a certificate");
            let twin = twin(leaf.der(), &bytes(order)).expect("a twin");

            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder(roots.into()).build().expect("a verifier");
            for der in [leaf.der().to_vec(), twin.clone()] {
                verifier.verify_client_cert(&der.into(), &[], UnixTime::now()).expect("a good certificate");
            }
            assert_ne!(Fingerprint::of(leaf.der()), Fingerprint::of(&twin));
            assert!(twins(&twin).contains(&Fingerprint::of(leaf.der())), "whichever is listed, the other is known by it");
            assert!(twins(leaf.der()).contains(&Fingerprint::of(&twin)));
        }
    }

    #[test]
    fn what_is_no_such_certificate_has_no_twin() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let other = rcgen::CertificateParams::new(Vec::new()).expect("parameters").self_signed(&key).expect("a certificate");
        let full = other.der().to_vec();
        for der in [&full[..], &full[..full.len() / 2], b"", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80"] {
            assert!(twins(der).is_empty());
        }
    }
}
