//! DialError: why a dial brought no session, and what that means for the next one.

use std::io;

use http::StatusCode;
use tunnel::SessionError;

use super::dial::{DIAL_MAX, UPGRADE_MAX};
use super::way::ProxyError;

/// Why a dial brought no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody answered.
    #[error("failed to reach the hub: {0}")]
    Unreachable(#[source] io::Error),
    /// The proxy on the way did not lead there.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS came to no agreement.
    #[error("the TLS handshake failed: {source}{}", tls_hint(source))]
    Tls { source: io::Error },
    /// The hub said no.
    #[error("the hub answered {status}: {text}{}", hint(*status))]
    Refused { status: StatusCode, text: String },
    /// The answer was no HTTP, or no WebSocket.
    #[error("the hub's answer is no WebSocket: {0}")]
    NotWebSocket(String),
    /// The session ended before its hello.
    #[error("the session did not begin: {0}")]
    NoHello(SessionError),
    /// Who took the connection said nothing.
    #[error("the hub did not answer the upgrade within {} s", UPGRADE_MAX.as_secs())]
    Silent,
    /// All of it took too long.
    #[error("the dial took longer than {} s", DIAL_MAX.as_secs())]
    TooLong,
}

impl DialError {
    /// Every word of [`DialError::label`].
    pub(crate) const LABELS: [&'static str; 8] =
        ["unreachable", "proxy", "tls", "refused", "not-websocket", "no-hello", "silent", "too-long"];

    /// A word for programs, one of [`DialError::LABELS`].
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Proxy(_) => "proxy",
            Self::Tls { .. } => "tls",
            Self::Refused { .. } => "refused",
            Self::NotWebSocket(_) => "not-websocket",
            Self::NoHello(_) => "no-hello",
            Self::Silent => "silent",
            Self::TooLong => "too-long",
        }
    }

    /// Whether the hub answered, so that asking again at once is of no use.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            // A gateway's word that nobody answered it (RFC 9110 sections 15.6.3 and 15.6.5): the hub is being restarted.
            Self::Refused { status: StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT, .. } => false,
            Self::Refused { .. } => true,
            Self::Proxy(error) => error.is_answered(),
            // An alert is an answer; a connection that breaks in the handshake is a hub that is just going away.
            Self::Tls { source } => source.kind() == io::ErrorKind::InvalidData,
            Self::Unreachable(_) | Self::NotWebSocket(_) | Self::NoHello(_) | Self::Silent | Self::TooLong => false,
        }
    }

    /// Whether the hub could not prove that it is the hub.
    pub(crate) fn is_of_hubs_certificate(&self) -> bool {
        matches!(self, Self::Tls { source } if source.to_string().contains(INVALID_PEER))
    }
}

/// How rustls says that it does not believe the other end's certificate.
const INVALID_PEER: &str = "invalid peer certificate";

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => " (is the token the one in the hub's clusters file?)",
        StatusCode::NOT_FOUND => " (is this the hub's public listener, and its path /connect?)",
        _ => "",
    }
}

/// By rustls's words: the error behind them does not survive its way through the HTTP client.
fn tls_hint(error: &io::Error) -> &'static str {
    let words = error.to_string();
    if let Some((_, alert)) = words.split_once("received fatal alert: ") {
        // BadCertificate, CertificateRequired and their like. DecryptError is a CA of the right name with another key.
        if alert.contains("Certificate") || ["UnknownCA", "AccessDenied", "DecryptError"].contains(&alert) {
            return " (the hub wants a client certificate of a CA that it knows, valid by its clock: --client-cert and --client-key)";
        }
    } else if words.contains("certificate not valid for name") {
        return " (the host of --server is not among the names of the hub's certificate)";
    } else if words.contains(INVALID_PEER) {
        return " (is --server-ca-cert the CA of the hub's certificate, and this machine's clock right?)";
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_of_a_failed_dial_is_among_those_that_are_counted_from_zero() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let errors = [
            DialError::Unreachable(broken()),
            DialError::Proxy(ProxyError::Silent { proxy: String::new() }),
            DialError::Tls { source: broken() },
            DialError::Refused { status: StatusCode::UNAUTHORIZED, text: String::new() },
            DialError::NotWebSocket(String::new()),
            DialError::NoHello(SessionError::PeerClosed),
            DialError::Silent,
            DialError::TooLong,
        ];
        assert!(errors.iter().all(|error| DialError::LABELS.contains(&error.label())));
    }

    #[test]
    fn a_refused_handshake_is_explained_by_its_own_cause() {
        let alerts = [
            ("BadCertificate", true),
            ("CertificateRequired", true),
            ("CertificateExpired", true),
            ("CertificateRevoked", true),
            ("CertificateUnknown", true),
            ("UnsupportedCertificate", true),
            ("UnknownCA", true),
            ("AccessDenied", true),
            ("DecryptError", true),
            ("HandshakeFailure", false),
            ("InternalError", false),
            ("NoApplicationProtocol", false),
            ("ProtocolVersion", false),
            ("UnrecognisedName", false),
        ];
        for (alert, is_of_certificates) in alerts {
            let hint = tls_hint(&io::Error::other(format!("received fatal alert: {alert}")));
            assert_eq!(hint.contains("wants a client certificate"), is_of_certificates, "{alert}");
            assert_eq!(hint.is_empty(), !is_of_certificates, "{alert}");
        }
    }
}
