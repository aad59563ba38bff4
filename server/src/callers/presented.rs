//! What a caller presents: tokens, a certificate, the address it comes from.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use host::certificate::PeerCertificate;
use host::tls::ServerTls;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use proxy::hygiene;

use crate::auth::{TokenDigest, token};

/// Tokens that one request presents at most: a header and a WebSocket protocol, each once too often. Who presents more is
/// taken for one whose token is wrong, and costs no comparison.
const TOKENS_MAX: usize = 4;

/// A certificate that a caller has shown, verified when its connection began.
pub(crate) struct Shown {
    pub(crate) certificate: PeerCertificate,
    /// Whether its issuer was trusted when the TLS material had changed so many times: to verify a chain for every request
    /// would cost more than the request.
    trusted: Mutex<Option<(u64, bool)>>,
}

impl Shown {
    pub(crate) fn new(certificate: PeerCertificate) -> Self {
        Self { certificate, trusted: Mutex::default() }
    }

    /// Whether a client with it would still be let in by `tls`.
    pub(crate) fn is_trusted_by(&self, tls: &ServerTls) -> bool {
        // Before the look: a change in between is looked at again.
        let n_changes = tls.n_changes();
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        match *trusted {
            Some((seen, is_trusted)) if seen == n_changes => is_trusted,
            Some(_) | None => {
                let is_trusted = tls.trusts(&self.certificate);
                *trusted = Some((n_changes, is_trusted));
                is_trusted
            }
        }
    }
}

/// What says who asks.
pub(crate) struct Presented {
    /// Where it really came from.
    pub(crate) address: IpAddr,
    /// Of its connection, verified; none if it showed none.
    pub(crate) certificate: Option<Arc<Shown>>,
    /// Of all bearer tokens.
    pub(crate) tokens: Vec<TokenDigest>,
    /// There are credentials that are no bearer token, or too many.
    pub(crate) is_unreadable: bool,
}

impl Presented {
    /// What a request presents: `Authorization: Bearer`, or a token among the WebSocket protocols, where browsers put it.
    pub(crate) fn by(address: IpAddr, certificate: Option<Arc<Shown>>, headers: &HeaderMap) -> Self {
        let mut presented = Self { address, certificate, tokens: Vec::new(), is_unreadable: false };
        for value in headers.get_all(AUTHORIZATION) {
            presented.take(token(value));
        }
        for encoded in hygiene::websocket_tokens(headers) {
            let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().filter(|token| !token.is_empty());
            presented.take(decoded.as_deref());
        }
        presented
    }

    fn take(&mut self, token: Option<&[u8]>) {
        match token {
            Some(token) if self.tokens.len() < TOKENS_MAX => self.tokens.push(TokenDigest::of_bytes(token)),
            Some(_) | None => self.is_unreadable = true,
        }
    }
}
