//! Why a client's handshake failed, as a question that programs can ask.

use std::io;

use rustls::{CertificateError, Error};

/// What stood in the way of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The certificate is of an issuer that is not believed.
    Issuer,
    /// Its time is over, by this machine's clock.
    Expired,
    /// Its time has not come, by this machine's clock.
    NotYetValid,
    /// It is of other names.
    Name,
    /// It cannot be believed for another reason.
    Certificate,
    /// What answered speaks no TLS.
    NoTls,
    /// The other end said no by an alert.
    Alert,
    /// Nothing came within the handshake's time.
    Silent,
    /// The connection broke.
    Broken,
}

impl Failure {
    /// Of an error of [`ClientTls::connect`](super::ClientTls::connect).
    pub fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(error)) => Self::of_certificate(error),
            Some(Error::AlertReceived(_)) => Self::Alert,
            Some(Error::InvalidMessage(_)) => Self::NoTls,
            None if error.kind() == io::ErrorKind::TimedOut => Self::Silent,
            Some(_) | None => Self::Broken,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and what is not asked for here is one answer")]
    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // An issuer of a believed name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Issuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name,
            _ => Self::Certificate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_from_a_connection_that_breaks() {
        assert_eq!(Failure::of(&io::Error::new(io::ErrorKind::TimedOut, "too long")), Failure::Silent);
        assert_eq!(Failure::of(&io::ErrorKind::ConnectionReset.into()), Failure::Broken);
    }
}
