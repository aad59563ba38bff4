//! The agents' door: a token, a handshake, then a session joins the registry and leaves it when it ends.

mod trial;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use host::certificate::PeerCertificate;
use host::tls::ServerTls;
use host::{Arrival, Connection, Drain, Host, Late, Place, Places, TrustedProxies};
use http::header::{CONNECTION, DATE, HeaderValue, ORIGIN, RETRY_AFTER, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use proxy::audit::Log;
use proxy::body::{self, Body};
use proxy::head::{HEAD_BUFFER, HEAD_FIELDS_MAX};
use proxy::hygiene::{self, Upgrade};
use proxy::plain::{not_found, text};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::Instrument;
use tunnel::handshake;
use tunnel::id::{ClusterId, SessionId};
use tunnel::{Budget, Protocol, Reason, Role, SessionConfig, SessionError, SessionHandle};

use crate::auth::{TokenDigest, bearer};
use crate::config::ServerConfig;
use crate::health::Prober;
use crate::limits::Guesses;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::trust::{Credential, Denied, Trust};

/// How long an agent's head may take to come; what is not upgraded by then is not an agent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds after which an agent that cannot be taken now may try again: the next replica is up by then.
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");

/// Sessions of one cluster: a few agents with two each while they renew. An agent that dials in a circle, or a stolen
/// token, must not use up the server.
const SESSIONS_PER_CLUSTER_MAX: usize = 32;

/// Digits at the end of an agent's name that are not logged: three quarters of the chance in it.
const AGENT_NAME_HIDDEN: usize = 12;

/// Serves agents' connections.
pub(crate) struct Agents {
    pub(crate) host: Host,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) prober: Prober,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: Option<Arc<Log>>,
    pub(crate) drain: Drain,
    pub(crate) sessions: SessionLimits,
    pub(crate) proxies: TrustedProxies,
    pub(crate) guesses: Guesses,
}

/// What every session is allowed.
pub(crate) struct SessionLimits {
    streams_max: usize,
    session_budget: usize,
    process_budget: Arc<Budget>,
    silence_max: Duration,
    drain_max: Duration,
    /// Taken before the upgrade: who sends no hello has a place too.
    of_cluster: Places<ClusterId>,
    trials_of_cluster: Places<ClusterId>,
    /// Tells agents that two sessions are with the same process.
    name: String,
    next_id: AtomicU64,
}

impl SessionLimits {
    pub(crate) fn new(config: &ServerConfig, process_budget: Arc<Budget>, chance: u64) -> Self {
        Self {
            streams_max: config.streams_max,
            session_budget: config.session_budget,
            process_budget,
            silence_max: config.silence_max,
            drain_max: config.drain_max,
            of_cluster: Places::new(SESSIONS_PER_CLUSTER_MAX),
            trials_of_cluster: Places::new(trial::TRIALS_PER_CLUSTER_MAX),
            name: format!("postern-server/{} {chance:016x}", env!("CARGO_PKG_VERSION")),
            next_id: AtomicU64::new(1),
        }
    }

    fn config(&self, protocol: Protocol) -> SessionConfig {
        let budget = Arc::new(Budget::under(self.process_budget.clone(), self.session_budget));
        SessionConfig {
            name: self.name.clone(),
            streams_max: self.streams_max,
            silence_max: self.silence_max,
            ..SessionConfig::new(Role::Server, protocol, budget)
        }
    }
}

/// Who an agent turned out to be.
struct Admitted {
    cluster: ClusterId,
    /// By what.
    credential: Credential,
    /// Kept to the session's end.
    _place: Place<ClusterId>,
}

/// A "no", and how long it has to wait.
type Refused = (Box<Response<Body>>, Duration);

impl Agents {
    /// Serves one connection until it is upgraded or ends.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection, arrival: Arrival) {
        let peer = connection.peer();
        let (connection, certificate) = match &self.tls {
            None => (connection, None),
            Some(tls) => match tls.accept(connection).await {
                Ok((connection, certificate)) => (connection, certificate.map(Arc::new)),
                Err(error) => {
                    tracing::info!(%peer, %error, "an agent's connection was not taken");
                    return;
                }
            },
        };
        let agents = self.clone();
        let service = service_fn(move |request| {
            let (agents, arrival, certificate) = (agents.clone(), arrival.clone(), certificate.clone());
            async move {
                let mut response = agents.answer(peer, certificate, request, &arrival).await;
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    // Who is not an agent holds no place. Not by hyper's setting, which would spoil the `Connection` of a 101.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    agents.date(&mut response);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEAD_FIELDS_MAX)
            .max_buf_size(HEAD_BUFFER)
            // hyper's is not of the host's clock.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "an agent's connection ended before its upgrade");
        }
    }

    async fn answer(
        self: &Arc<Self>,
        peer: SocketAddr,
        certificate: Option<Arc<PeerCertificate>>,
        mut request: Request<Incoming>,
        arrival: &Arrival,
    ) -> Response<Body> {
        let peer = self.proxies.client(peer, request.headers());
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/connect" => match self.admit(peer, certificate, &request, arrival.late()) {
                Ok((admitted, accept_key)) => {
                    arrival.settle();
                    let offer = request.headers().get(handshake::HEADER).map(HeaderValue::as_bytes);
                    let protocol = handshake::negotiate(offer);
                    if trial::is_asked_for(request.headers()) {
                        let begun = self.begin_trial(admitted, protocol, hyper::upgrade::on(&mut request));
                        let mut response = begun.map_or_else(|refused| *refused, |()| switching(&accept_key, protocol));
                        trial::offer(&mut response);
                        return response;
                    }
                    self.begin(peer, admitted, protocol, hyper::upgrade::on(&mut request));
                    switching(&accept_key, protocol)
                }
                Err((refused, delay)) => {
                    tokio::time::sleep(delay).await;
                    *refused
                }
            },
            _ => not_found(),
        }
    }

    /// Checks who connects and whether it is a WebSocket (RFC 6455 section 4.2.1).
    fn admit(
        &self,
        peer: SocketAddr,
        certificate: Option<Arc<PeerCertificate>>,
        request: &Request<Incoming>,
        late: Late,
    ) -> Result<(Admitted, String), Refused> {
        let refused = |status, why: &str| Err((Box::new(text(status, why)), Duration::ZERO));
        let headers = request.headers();
        if headers.contains_key(ORIGIN) {
            return refused(StatusCode::FORBIDDEN, "browsers are not welcome here");
        }
        let token = bearer(headers);
        let (cluster, credential) = match self.trust.admit(token, certificate) {
            Ok(admitted) => admitted,
            Err(denied) => {
                let digest = TokenDigest::of_bytes(token.unwrap_or_default());
                let delay = self.guesses.failed(self.proxies.source(peer.ip()), &digest);
                self.metrics.auth_failed("connect");
                tracing::warn!(%peer, ?delay, "an agent was refused: {denied}");
                if let Some(cluster) = self.trust.cluster_of(token) {
                    self.registry.turned_away(&cluster, &format!("an agent was refused: {denied}"));
                }
                let status = if denied == Denied::Token { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
                return Err((Box::new(text(status, &denied.to_string())), delay));
            }
        };
        let place = match late {
            _ if self.drain.is_started() => Err("the server is stopping"),
            Late::Draining => Err("the server is stopping"),
            Late::Crowded => Err("too many agents connect at once"),
            Late::No => self.sessions.of_cluster.take(&cluster).ok_or("the cluster has too many sessions"),
        };
        let place = place.map_err(|why| {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why);
            response.headers_mut().insert(RETRY_AFTER, RETRY_SOON);
            (Box::new(response), Duration::ZERO)
        })?;
        let is_websocket = request.method() == Method::GET
            && hygiene::upgrade(request.version(), headers) == Some(Upgrade::WebSocket)
            && headers.get("sec-websocket-version").is_some_and(|version| version == "13");
        match headers.get("sec-websocket-key") {
            Some(key) if is_websocket => Ok((Admitted { cluster, credential, _place: place }, derive_accept_key(key.as_bytes()))),
            _ => {
                let mut response = text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket (version 13) for agents");
                // RFC 6455 section 4.4.
                response.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
                // Who is known and tries the way learns whether a trial would be told from a session.
                trial::offer(&mut response);
                Err((Box::new(response), Duration::ZERO))
            }
        }
    }

    /// The time of day, by which agents find that theirs is wrong (RFC 9110 section 6.6.1).
    fn date(&self, response: &mut Response<Body>) {
        let now = Timestamp::try_from(self.host.wall_clock()).ok();
        let date = now.and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok());
        if let Some(date) = date.and_then(|date| HeaderValue::from_str(&date).ok()) {
            response.headers_mut().insert(DATE, date);
        }
    }

    fn begin(self: &Arc<Self>, peer: SocketAddr, admitted: Admitted, protocol: Protocol, upgraded: OnUpgrade) {
        let id = SessionId(self.sessions.next_id.fetch_add(1, Ordering::Relaxed));
        let agents = self.clone();
        let span = tracing::info_span!("session", session = id.0, cluster = %admitted.cluster, %peer);
        let session = async move {
            match upgraded.await {
                Ok(upgraded) => agents.hold(id, &admitted, protocol, upgraded).await,
                Err(error) => tracing::info!(%error, "an agent's upgrade did not come about"),
            }
        };
        self.host.spawn("session", session.instrument(span));
    }

    /// Holds a session from its hello to its end.
    async fn hold(&self, id: SessionId, admitted: &Admitted, protocol: Protocol, upgraded: hyper::upgrade::Upgraded) {
        let Admitted { cluster, credential, _place } = admitted;
        let Ok(parts) = upgraded.downcast::<TokioIo<Connection>>() else {
            tracing::error!("an agent's connection is not of the kind that was accepted");
            return;
        };
        let (handle, _incoming, driver) =
            tunnel::start(self.sessions.config(protocol), parts.io.into_inner(), parts.read_buf).await;
        let joining = handle.clone();
        let up_since = OnceLock::new();
        let join = async {
            if joining.established().await.is_ok() {
                let _ = up_since.set(Instant::now());
                let agent = joining.peer().map(|peer| peer.name).unwrap_or_default();
                // Not all of its name, by which it is known to be the same again.
                let agent = agent.get(..agent.len().saturating_sub(AGENT_NAME_HIDDEN)).unwrap_or(&agent);
                let certificate = credential.certificate.as_ref().map(|certificate| certificate.fingerprint.to_string());
                tracing::info!(?protocol, agent, token = %credential.token, certificate, "session up");
                self.audit.iter().for_each(|log| joining.tell(log.head()));
                let has_entered = self.registry.join(cluster, id, joining.clone(), credential.clone());
                // It may have been revoked since it was presented. Who revokes looks for sessions later than this. What did
                // not enter would be found by nobody; its agent dials again.
                if !has_entered || self.trust.judge(cluster, credential).is_err() {
                    joining.close(Reason::Revoked);
                }
            }
            let suspicion = async {
                loop {
                    joining.suspicion(true).await;
                    tracing::info!("session suspect");
                    self.registry.suspicion_changed(cluster);
                    joining.suspicion(false).await;
                    tracing::info!("session trusted again");
                    self.registry.suspicion_changed(cluster);
                }
            };
            tokio::join!(suspicion, self.prober.watch(cluster, id, &joining, protocol))
        };
        let mut drain = self.drain.clone();
        let leave_word = async {
            drain.started().await;
            handle.go_away(Reason::Draining, self.sessions.drain_max);
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            biased;
            error = driver.run() => error,
            ((), ()) = join => return,
            () = leave_word => return,
        };
        tracing::info!(%error, "session down");
        self.registry.leave(cluster, id, &error.to_string(), !is_wanted(&handle, &error).await);
        self.metrics.session_ended(up_since.get().map(Instant::elapsed), &error);
    }
}

/// Whether a session ended as one side had asked for.
async fn is_wanted(handle: &SessionHandle, error: &SessionError) -> bool {
    let was_asked_for = async {
        handle.going_away().await;
    };
    tokio::select! {
        biased;
        () = was_asked_for => true,
        () = std::future::ready(()) => matches!(error, SessionError::Closed(Reason::Draining | Reason::Done)),
    }
}

fn switching(accept_key: &str, protocol: Protocol) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept_key) = HeaderValue::from_str(accept_key) {
        headers.insert("sec-websocket-accept", accept_key);
    }
    if protocol == Protocol::Extended {
        headers.insert(handshake::HEADER, HeaderValue::from_static(handshake::OFFER));
    }
    response
}
