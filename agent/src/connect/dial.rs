//! One dial: resolve, connect, TLS, the WebSocket upgrade (RFC 6455 section 4.1), the tunnel's hello.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use host::certificate::PeerCertificate;
use host::tls::{Alpn, ClientTls};
use host::watched::if_any;
use host::{Connection, Host};
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming as IncomingBody;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy::hygiene::{self, Upgrade};
use secrecy::ExposeSecret;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tunnel::{Budget, Driver, Incoming, Protocol, Role, SessionConfig, SessionError, SessionHandle, handshake};

use crate::config::AgentConfig;
use crate::connect::way::ProxyError;
use crate::connect::{Token, Way};

/// How long a whole dial may take: name, connection, TLS and upgrade have each their own limit; this is the sum that a
/// satellite link needs.
const DIAL_MAX: Duration = Duration::from_secs(30);

/// How long the hub may take for its answer to the upgrade: a gateway that accepts and never forwards is found by this. A
/// dozen round trips of a satellite link.
const UPGRADE_MAX: Duration = Duration::from_secs(10);

/// How much of a refusal's text is read and logged.
const REFUSAL_TEXT_MAX: usize = 512;

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

/// A session whose driver is not running yet.
pub(crate) struct Dialed {
    pub(crate) handle: SessionHandle,
    pub(crate) incoming: Incoming,
    pub(crate) protocol: Protocol,
    /// What the hub was shown, as [`Dialer::identity`] counts it.
    pub(crate) identity: u64,
    /// What the hub has shown.
    pub(crate) certificate: Option<PeerCertificate>,
}

/// Dials the hub.
pub(crate) struct Dialer {
    host: Host,
    config: Arc<AgentConfig>,
    way: Way,
    tls: Option<ClientTls>,
    token: Token,
    budget: Arc<Budget>,
    /// Tells the hub that two sessions are of the same process.
    name: String,
}

impl Dialer {
    pub(crate) fn new(
        host: Host,
        config: Arc<AgentConfig>,
        (way, tls, token): (Way, Option<ClientTls>, Token),
        budget: Arc<Budget>,
    ) -> Self {
        let name = format!("{}/{} {:016x}", crate::PROGRAM, env!("CARGO_PKG_VERSION"), host.chance());
        Self { host, config, way, tls, token, budget, name }
    }

    /// What the hub is shown and known by, as a number that changes with it.
    pub(crate) fn identity(&self) -> u64 {
        self.token.n_changes() + self.tls.as_ref().map_or(0, ClientTls::n_changes)
    }

    /// Whether a hub that has shown this would still be believed.
    pub(crate) fn trusts(&self, certificate: Option<&PeerCertificate>) -> bool {
        let shown = self.tls.as_ref().zip(certificate);
        shown.is_none_or(|(tls, certificate)| tls.trusts(certificate, &self.config.server.host))
    }

    /// Resolves when it is another one.
    pub(crate) async fn identity_changed(&self, since: u64) {
        loop {
            // Before the look, so that a change in between is not missed.
            let (token_changed, tls_changed) = (self.token.changed(), if_any(self.tls.as_ref().map(ClientTls::changed)));
            if self.identity() != since {
                return;
            }
            tokio::select! {
                biased;
                () = token_changed => {}
                () = tls_changed => {}
            }
        }
    }

    /// One dial, to the end of the hello.
    pub(crate) async fn dial(&self) -> Result<Dialed, DialError> {
        match tokio::time::timeout(DIAL_MAX, self.try_dial()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(DialError::TooLong),
        }
    }

    async fn try_dial(&self) -> Result<Dialed, DialError> {
        let server = &self.config.server;
        let identity = self.identity();
        let connection = self.way.dial(server).await?;
        let (connection, certificate) = match &self.tls {
            Some(tls) => {
                let connected = tls.connect(connection, &server.host, Alpn::Http1).await;
                let (connection, shown) = connected.map_err(|source| DialError::Tls { source })?;
                (connection, shown.certificate)
            }
            None => (connection, None),
        };
        let upgraded = tokio::time::timeout(UPGRADE_MAX, self.upgrade(connection)).await;
        let (response, accept_key) = upgraded.map_err(|_| DialError::Silent)??;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await);
        }
        let accepted = response.headers().get("sec-websocket-accept").is_some_and(|key| key.as_bytes() == accept_key.as_bytes());
        if !accepted || hygiene::upgrade(response.version(), response.headers()) != Some(Upgrade::WebSocket) {
            return Err(DialError::NotWebSocket("its handshake answers another key".to_owned()));
        }
        let protocol = handshake::negotiate(response.headers().get(handshake::HEADER).map(HeaderValue::as_bytes));
        let upgraded = hyper::upgrade::on(response).await.map_err(not_websocket)?;
        let parts = upgraded
            .downcast::<TokioIo<Connection>>()
            .map_err(|_| DialError::NotWebSocket("its connection is not of the kind that was dialled".to_owned()))?;
        let (handle, incoming, driver) = tunnel::start(self.session(protocol), parts.io.into_inner(), parts.read_buf).await;
        // Part of the dial until the hello: a dial that is given up takes its session along.
        let mut driving = Box::pin(drive(driver));
        let established = tokio::select! {
            biased;
            established = handle.established() => established,
            // It has ended, so that the question is answered at once.
            () = &mut driving => handle.established().await,
        };
        established.map_err(DialError::NoHello)?;
        self.host.spawn("driver", driving);
        let peer = handle.peer().map(|peer| peer.name).unwrap_or_default();
        // Not the chance in it, by which it is known to be the same again.
        let peer = peer.split(' ').next().unwrap_or_default();
        tracing::info!(%server, ?protocol, peer, "connected to the hub");
        Ok(Dialed { handle, incoming, protocol, identity, certificate })
    }

    async fn upgrade(&self, connection: Connection) -> Result<(Response<IncomingBody>, String), DialError> {
        let (mut sender, exchange) = http1::handshake(TokioIo::new(connection)).await.map_err(not_websocket)?;
        self.host.spawn("dial", async move {
            // Its error arrives with the answer.
            let _ = exchange.with_upgrades().await;
        });
        let nonce = [self.host.chance().to_be_bytes(), self.host.chance().to_be_bytes()].concat();
        let key = STANDARD.encode(nonce);
        let request = self.request(&key).map_err(|error| DialError::NotWebSocket(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| match io_error(&error) {
            // A TLS alert to a client certificate comes only now (RFC 8446 section 4.4.2.4).
            Some(error) if self.tls.is_some() && error.kind() == io::ErrorKind::InvalidData => DialError::Tls { source: error },
            Some(error) => DialError::Unreachable(error),
            None => not_websocket(error),
        })?;
        Ok((response, derive_accept_key(key.as_bytes())))
    }

    fn request(&self, key: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
        let server = &self.config.server;
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token.get().expose_secret()))?;
        token.set_sensitive(true);
        Request::get(&server.path)
            .header(HOST, server.authority())
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", key)
            .header(handshake::HEADER, handshake::OFFER)
            .header(AUTHORIZATION, token)
            .body(Empty::new())
    }

    fn session(&self, protocol: Protocol) -> SessionConfig {
        let budget = Arc::new(Budget::under(self.budget.clone(), self.config.session_budget));
        let defaults = SessionConfig::new(Role::Agent, protocol, budget);
        SessionConfig {
            name: self.name.clone(),
            streams_max: self.config.streams_max,
            silence_max: self.config.silence_max,
            ping_interval: self.config.keepalive.unwrap_or(defaults.ping_interval),
            ..defaults
        }
    }
}

async fn drive(driver: Driver<Connection>) {
    let error = driver.run().await;
    tracing::info!(%error, "session down");
}

async fn refused(response: Response<IncomingBody>) -> DialError {
    let status = response.status();
    let body =
        Limited::new(response.into_body(), REFUSAL_TEXT_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    DialError::Refused { status, text: String::from_utf8_lossy(&body).trim().to_owned() }
}

fn not_websocket(error: hyper::Error) -> DialError {
    DialError::NotWebSocket(error.to_string())
}

/// The connection's own error, if that is what it was.
pub(super) fn io_error(error: &hyper::Error) -> Option<io::Error> {
    let error = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    Some(io::Error::new(error.kind(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_of_a_failed_dial_is_among_those_that_are_counted_from_zero() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let errors = [
            DialError::Unreachable(broken()),
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
