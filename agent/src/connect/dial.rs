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
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming as IncomingBody;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy::hygiene::{self, Upgrade};
use secrecy::{ExposeSecret, SecretString};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tunnel::{Budget, Driver, Incoming, Protocol, Role, SessionConfig, SessionHandle, handshake};

use crate::config::AgentConfig;
use crate::connect::trial::headers_of;
use crate::connect::{DialError, Token, Way, answer};

/// How long a whole dial may take: name, connection, TLS and upgrade have each their own limit; this is the sum that a
/// satellite link needs.
pub(super) const DIAL_MAX: Duration = Duration::from_secs(30);

/// How long the hub may take for its answer to the upgrade: a gateway that accepts and never forwards is found by this. A
/// dozen round trips of a satellite link.
pub(super) const UPGRADE_MAX: Duration = Duration::from_secs(10);

/// What anybody may ask a hub for; who stands in its place answers with a date as well.
const TIME_PATH: &str = "/healthz";

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

/// What a dial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A session to serve.
    Session,
    /// A session that carries nothing.
    Trial,
    /// Whether the token is known.
    Leave,
    /// The hub's time of day, which is anybody's to know.
    Time,
}

impl Purpose {
    fn is_upgrade(self) -> bool {
        matches!(self, Self::Session | Self::Trial)
    }
}

/// A connection on which the hub switched protocols.
pub(super) struct Switched {
    pub(super) connection: Connection,
    /// What came behind its answer.
    pub(super) early: Bytes,
    pub(super) protocol: Protocol,
    /// Of its answer.
    pub(super) headers: HeaderMap,
}

/// Dials the hub.
pub(crate) struct Dialer {
    pub(super) host: Host,
    config: Arc<AgentConfig>,
    pub(crate) way: Way,
    pub(crate) tls: Option<ClientTls>,
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
        let (connection, certificate) = self.shake_hands(connection).await?;
        let Switched { connection, early, protocol, .. } = self.upgrade(connection, Purpose::Session).await?;
        let (handle, incoming, driver) = tunnel::start(self.session(protocol), connection, early).await;
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
        let hello = handle.peer();
        let peer = hello.as_ref().map(|hello| hello.program()).unwrap_or_default();
        tracing::info!(%server, ?protocol, peer, "connected to the hub");
        Ok(Dialed { handle, incoming, protocol, identity, certificate })
    }

    /// TLS to the hub, if its URL asks for that, and what the hub has shown.
    pub(crate) async fn shake_hands(&self, connection: Connection) -> Result<(Connection, Option<PeerCertificate>), DialError> {
        match &self.tls {
            Some(tls) => {
                let connected = tls.connect(connection, &self.config.server.host, Alpn::Http1).await;
                let (connection, shown) = connected.map_err(|source| DialError::Tls { source })?;
                Ok((connection, shown.certificate))
            }
            None => Ok((connection, None)),
        }
    }

    /// Has the hub switch protocols, within a time limit.
    pub(super) async fn upgrade(&self, connection: Connection, purpose: Purpose) -> Result<Switched, DialError> {
        let answered = tokio::time::timeout(UPGRADE_MAX, self.exchange(connection, purpose)).await;
        let (response, accept_key) = answered.map_err(|_| DialError::Silent)??;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(DialError::Refused { status: response.status(), text: self.text_of(response).await });
        }
        let headers = response.headers().clone();
        let accepted = headers.get("sec-websocket-accept").is_some_and(|key| key.as_bytes() == accept_key.as_bytes());
        if !accepted || hygiene::upgrade(response.version(), &headers) != Some(Upgrade::WebSocket) {
            return Err(DialError::NotWebSocket("its handshake answers another key".to_owned()));
        }
        let protocol = handshake::negotiate(headers.get(handshake::HEADER).map(HeaderValue::as_bytes));
        let upgraded = hyper::upgrade::on(response).await.map_err(not_websocket)?;
        let parts = upgraded
            .downcast::<TokioIo<Connection>>()
            .map_err(|_| DialError::NotWebSocket("its connection is not of the kind that was dialled".to_owned()))?;
        Ok(Switched { connection: parts.io.into_inner(), early: parts.read_buf, protocol, headers })
    }

    /// One request and the head of its answer, with what proves that a WebSocket's answer is to it.
    pub(super) async fn exchange(
        &self,
        connection: Connection,
        purpose: Purpose,
    ) -> Result<(Response<IncomingBody>, String), DialError> {
        let (mut sender, exchange) = http1::handshake(TokioIo::new(connection)).await.map_err(not_websocket)?;
        self.host.spawn("dial", async move {
            // Its error arrives with the answer.
            let _ = exchange.with_upgrades().await;
        });
        let nonce = [self.host.chance().to_be_bytes(), self.host.chance().to_be_bytes()].concat();
        let key = STANDARD.encode(nonce);
        let request = self.request(&key, purpose).map_err(|error| DialError::NotWebSocket(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| match io_error(&error) {
            // A TLS alert to a client certificate comes only now (RFC 8446 section 4.4.2.4).
            Some(error) if self.tls.is_some() && error.kind() == io::ErrorKind::InvalidData => DialError::Tls { source: error },
            Some(error) => DialError::Unreachable(error),
            None => not_websocket(error),
        })?;
        Ok((response, derive_accept_key(key.as_bytes())))
    }

    fn request(&self, key: &str, purpose: Purpose) -> Result<Request<Empty<Bytes>>, http::Error> {
        let server = &self.config.server;
        let path = if purpose == Purpose::Time { TIME_PATH } else { &server.path };
        let mut request = Request::get(path).header(HOST, server.authority());
        if purpose.is_upgrade() {
            request = request
                .header(CONNECTION, "Upgrade")
                .header(UPGRADE, "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", key);
        }
        for (name, value) in headers_of(purpose) {
            request = request.header(*name, *value);
        }
        if purpose != Purpose::Time {
            let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token.get().expose_secret()))?;
            token.set_sensitive(true);
            request = request.header(AUTHORIZATION, token);
        }
        request.body(Empty::new())
    }

    /// The beginning of what an answer says, which repeats nothing that was shown on the way to it.
    pub(super) async fn text_of(&self, response: Response<IncomingBody>) -> String {
        let secrets: Vec<SecretString> = self.way.secrets().into_iter().chain([self.token.get()]).collect();
        answer::text_of(response, &secrets).await
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

fn not_websocket(error: hyper::Error) -> DialError {
    DialError::NotWebSocket(error.to_string())
}

/// The connection's own error, if that is what it was.
pub(super) fn io_error(error: &hyper::Error) -> Option<io::Error> {
    let error = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    Some(io::Error::new(error.kind(), error.to_string()))
}
