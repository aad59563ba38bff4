//! What Argo CD and kubectl talk to: the hub's end of every tunnel.
//!
//! A request's way through the files: `front_door` (who, which cluster) ▶ `forward` (one stream, both ways) ▶ `registry`
//! (which session). An agent's way: `agents` (token, handshake) ▶ `registry`.

mod admin;
mod agents;
mod argocd;
mod audit;
mod auth;
mod callers;
pub mod check;
pub mod cli;
pub mod config;
mod foreign;
mod forward;
mod front_door;
mod health;
mod kubeconfig;
mod limits;
mod metrics;
mod overview;
mod registry;
mod roster;
mod trust;

use std::sync::Arc;

use host::tls::{Alpn, ServerTls};
use host::{Door, Drain, DrainSwitch, Host, Tracer, TurnedAway, Watched};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tunnel::{Budget, Reason};

pub use config::{ClusterConfig, ServerConfig};
use proxy::audit::{Log, Writer};
pub use proxy::program::StartError;
use proxy::traces;

use admin::Admin;
use agents::{Agents, SessionLimits};
use argocd::Registration;
use auth::Revoked;
use callers::Callers;
use config::{InternalTls, TlsFiles};
use forward::Forward;
use front_door::{FrontDoor, Lent};
use health::Prober;
use limits::Guesses;
use metrics::Metrics;
use overview::Overview;
use registry::Registry;
use roster::Roster;
use trust::Trust;

/// Connections for health and metrics at once.
const OPS_CONNECTIONS_MAX: u32 = 64;

/// Serves until `asked` to end; then leaves its Services, drains, and is done when what runs has ended or its time is over.
///
/// # Errors
/// What kept the server from starting.
pub async fn run(config: ServerConfig, host: Host, asked: Drain) -> Result<(), StartError> {
    Server::bind(config, host, asked).await?.serve().await;
    Ok(())
}

/// All parts, bound and not yet serving.
struct Server {
    config: ServerConfig,
    host: Host,
    /// The process is to end: it leaves, then drains.
    asked: Drain,
    switch: DrainSwitch,
    drain: Drain,
    doors: Doors,
    agents: Arc<Agents>,
    front_door: Arc<FrontDoor>,
    admin: Arc<Admin>,
    registry: Arc<Registry>,
    trust: Arc<Trust>,
    callers: Arc<Callers>,
    registration: Option<Registration>,
    tracer: Tracer,
    /// The log, if one is kept, and what still has to be run for it.
    audit: (Option<Arc<Log>>, Option<Writer>),
}

impl Server {
    async fn bind(config: ServerConfig, host: Host, asked: Drain) -> Result<Self, StartError> {
        let (switch, drain) = DrainSwitch::new();
        let roster = Arc::new(Roster::new(&config.clusters));
        let registry = Arc::new(Registry::new(&config, host.clone()));
        let budget = Arc::new(Budget::new(config.process_budget));
        let tracer = tracer(&host, &config)?;
        let (audit, writer) = audit::open(&config, &host, registry.clone()).await?;
        let registration = argocd::open(&config, &host, &roster, &registry)?;
        let metrics = Metrics::new(&host, registry.clone(), budget.clone(), &tracer).with_audit(audit.as_ref());
        let metrics = Arc::new(metrics.with_registration(registration.as_ref()));
        let admin = Arc::new(Admin { registry: registry.clone(), metrics: metrics.clone(), asked: asked.clone() });
        let public_tls = public_tls(&host, &config)?.map(Arc::new);
        let revoked = revoked(&host, &config)?;
        let trust = Arc::new(trust(&host, &config, roster.clone(), public_tls.clone(), revoked.clone())?);
        let agents = Arc::new(Agents {
            host: host.clone(),
            tls: public_tls,
            trust: trust.clone(),
            registry: registry.clone(),
            prober: Prober::new(host.clone(), registry.clone(), roster.clone(), config.probe_interval),
            metrics: metrics.clone(),
            audit: audit.clone(),
            drain: drain.clone(),
            sessions: SessionLimits::new(&config, budget, host.chance()),
            proxies: config.trusted_proxies.clone(),
            guesses: Guesses::default(),
        });
        let internal_tls = internal_tls(&host, &config)?.map(Arc::new);
        let callers = Arc::new(callers(&host, &config, internal_tls.clone(), revoked)?);
        let turned_away = metrics.turned_away.clone();
        let parts = (roster.clone(), registry.clone(), metrics, tracer.clone());
        let front_door = Arc::new(FrontDoor {
            callers: callers.clone(),
            host: host.clone(),
            tls: internal_tls,
            internal_tls: config.internal_tls,
            roster,
            forward: Arc::new(Forward::new(&config, host.clone(), parts, audit.clone())),
            overview: Overview::new(host.clone(), registry.clone()),
            admin: config.ops_addr.is_none().then(|| admin.clone()),
            drain: drain.clone(),
            proxies: config.trusted_proxies.clone(),
            guesses: Guesses::default(),
            lent: Lent::default(),
        });
        let doors = Doors::bind(&config, &host, &turned_away).await?;
        let (host, audit) = (host.clone(), (audit, writer));
        Ok(Self {
            config,
            host,
            asked,
            switch,
            drain,
            doors,
            agents,
            front_door,
            admin,
            registry,
            trust,
            callers,
            registration,
            tracer,
            audit,
        })
    }

    async fn serve(mut self) {
        self.audit.1.take().into_iter().for_each(|writer| self.host.spawn("audit log", writer.run()));
        self.warn();
        self.tell_what_tls_hides();
        let drain = || self.drain.clone();
        let (agents, front_door, admin) = (self.agents.clone(), self.front_door.clone(), self.admin.clone());
        let public = self.doors.public.serve(&self.host, drain(), move |connection, how| agents.clone().serve(connection, how));
        let internal =
            self.doors.internal.serve(&self.host, drain(), move |connection, how| front_door.clone().serve(connection, how));
        let ops = async {
            if let Some(ops) = &self.doors.ops {
                ops.serve(&self.host, drain(), move |connection, _| serve_admin(admin.clone(), connection)).await;
            }
        };
        let drained = async {
            self.leave().await;
            self.switch.start();
            self.finish().await;
        };
        let registration = async {
            if let Some(registration) = &self.registration {
                registration.run(self.asked.clone()).await;
            }
        };
        tokio::select! {
            biased;
            () = drained => {}
            _ = async {
                let trusted = async { tokio::join!(self.trust.follow(&self.registry), self.callers.follow(), registration) };
                tokio::join!(public, internal, ops, trusted)
            } => {}
        }
        // Last, so that it has all that was done.
        if let Some(log) = &self.audit.0 {
            log.close().await;
        }
        self.tracer.flush().await;
    }

    fn warn(&self) {
        if self.config.callers_file.is_none() {
            tracing::warn!(
                "whoever reaches the internal listener reaches every cluster with the rights of its agent; --callers says who may what"
            );
        } else if self.doors.ops.is_none() {
            tracing::warn!(
                "whoever reaches the internal listener reads the names of clusters and callers in /metrics; --ops-addr moves it"
            );
        }
    }

    /// A certificate that something in front of us has seen is nothing that we know.
    fn tell_what_tls_hides(&self) {
        match &self.config.tls {
            None => tracing::warn!(
                "the public listener is plain: something in front of it must end TLS, and agents are known by their tokens alone; \
                 to bind certificates to clusters, have TLS passed through and give --tls-cert and --tls-client-ca"
            ),
            Some(files) if files.client_ca.is_none() => tracing::info!(
                "agents are known by their tokens alone: no certificate is asked for without --tls-client-ca, and none is seen where \
                 a gateway ends TLS"
            ),
            Some(_) => {}
        }
    }

    /// Resolves when the drain should begin. Until then all is served, and `/readyz/self` says no as soon as the process was asked to end:
    /// agents that were told to go away at once would find this server behind the same Service again.
    async fn leave(&self) {
        self.asked.clone().started().await;
        if !self.config.leave.is_zero() {
            tracing::info!(leave = ?self.config.leave, "leaving: not ready, and serving until the drain");
            tokio::time::sleep(self.config.leave).await;
        }
    }

    /// Drains: sessions were told to go away and callers' connections finish what runs; what is left then is cut.
    async fn finish(&self) {
        tracing::info!(drain_max = ?self.config.drain_max, "draining");
        let sessions_ended = async {
            for (_, session) in self.registry.sessions() {
                session.ended().await;
            }
        };
        let all_ended = async { tokio::join!(sessions_ended, self.doors.internal.emptied()) };
        let in_time = tokio::time::timeout(self.config.drain_max, all_ended).await.is_ok();
        for (cluster, session) in self.registry.sessions() {
            if session.n_streams() > 0 {
                tracing::info!(%cluster, n_streams = session.n_streams(), "a session is cut at the end of the drain");
            }
            session.close(Reason::Draining);
        }
        tracing::info!(in_time, "drained");
    }
}

/// The listeners.
struct Doors {
    public: Door,
    internal: Door,
    ops: Option<Door>,
}

impl Doors {
    async fn bind(config: &ServerConfig, host: &Host, turned_away: &TurnedAway) -> Result<Self, StartError> {
        let bind = async |flag, name, addr, connections_max| {
            Door::bind(host, name, addr, connections_max).await.map_err(|source| StartError::Bind { flag, addr, source })
        };
        let public = bind("addr", "public", config.addr, config.agent_handshakes_max).await?;
        let internal = bind("internal-addr", "internal", config.internal_addr, config.caller_connections_max).await?;
        let of_address =
            |door: Door| door.with_sources(config.trusted_proxies.clone(), config.connections_per_address, turned_away.clone());
        let (public, internal) = (of_address(public), of_address(internal));
        let ops = match config.ops_addr {
            Some(addr) => Some(bind("ops-addr", "ops", addr, OPS_CONNECTIONS_MAX).await?),
            None => None,
        };
        Ok(Self { public, internal, ops })
    }
}

async fn serve_admin(admin: Arc<Admin>, connection: host::Connection) {
    let service = service_fn(move |request| {
        let answer = admin.answer(&request);
        async move { Ok::<_, std::convert::Infallible>(answer.map(BodyExt::boxed_unsync)) }
    });
    let served =
        hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(connection), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection for health or metrics ended");
    }
}

/// TLS of the public listener.
fn public_tls(host: &Host, config: &ServerConfig) -> Result<Option<ServerTls>, StartError> {
    config.tls.as_ref().map(|files| tls(host, config, "tls", files, Alpn::Http1)).transpose()
}

/// TLS of the internal listener: its own files, or those of the public one.
fn internal_tls(host: &Host, config: &ServerConfig) -> Result<Option<ServerTls>, StartError> {
    let public = config.tls.clone().map(|files| TlsFiles { client_required: config.callers_file.is_none(), ..files });
    match (config.internal_tls, config.internal_tls_files.clone().or(public)) {
        (InternalTls::Off, _) | (_, None) => Ok(None),
        (InternalTls::Optional | InternalTls::Require, Some(files)) => {
            tls(host, config, "internal-tls", &files, Alpn::Http).map(Some)
        }
    }
}

fn tls(host: &Host, config: &ServerConfig, name: &'static str, files: &TlsFiles, alpn: Alpn) -> Result<ServerTls, StartError> {
    ServerTls::new(host, name, files.clone(), alpn).map_err(|source| StartError::Material {
        flag: config.tls_flag_of(source.path()),
        path: source.path().to_owned(),
        source: Box::new(source),
    })
}

fn tracer(host: &Host, config: &ServerConfig) -> Result<Tracer, StartError> {
    traces::tracer(host, &config.traces, "postern-server", env!("CARGO_PKG_VERSION"))
}

fn revoked(host: &Host, config: &ServerConfig) -> Result<Option<Arc<Watched<Revoked>>>, StartError> {
    let revoked = config.revoked_certs.as_ref().map(|path| trust::watch_revoked(host, path)).transpose();
    revoked.map_err(|errors| StartError::Config(errors.0))
}

fn trust(
    host: &Host,
    config: &ServerConfig,
    roster: Arc<Roster>,
    tls: Option<Arc<ServerTls>>,
    revoked: Option<Arc<Watched<Revoked>>>,
) -> Result<Trust, StartError> {
    let asks = config.asks_for_certificates();
    let clusters = config.clusters_file.as_ref().map(|path| trust::watch_clusters(host, path, asks)).transpose();
    Ok(Trust::new(roster, tls, clusters.map_err(|errors| StartError::Config(errors.0))?, revoked))
}

fn callers(
    host: &Host,
    config: &ServerConfig,
    tls: Option<Arc<ServerTls>>,
    revoked: Option<Arc<Watched<Revoked>>>,
) -> Result<Callers, StartError> {
    let policy = config.callers_file.as_ref().map(|path| callers::watch(host, path)).transpose();
    Ok(Callers::new(policy.map_err(|errors| StartError::Config(errors.0))?, tls, revoked))
}
