//! What Argo CD and kubectl talk to: the hub's end of every tunnel.
//!
//! A request's way through the files: `front_door` (who, which cluster) ▶ `forward` (one stream, both ways) ▶ `registry`
//! (which session). An agent's way: `agents` (token, handshake) ▶ `registry`.

mod admin;
mod agents;
mod auth;
pub mod cli;
pub mod config;
mod forward;
mod front_door;
mod kubeconfig;
mod limits;
mod metrics;
mod registry;
mod roster;
mod trust;

use std::sync::Arc;

use host::tls::{Alpn, ServerTls};
use host::{Door, Drain, Host};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy::flags::ConfigErrors;
use tunnel::{Budget, Reason};

pub use config::{ClusterConfig, ServerConfig};
pub use proxy::program::StartError;

use admin::Admin;
use agents::{Agents, SessionLimits};
use config::InternalTls;
use forward::Forward;
use front_door::FrontDoor;
use limits::Guesses;
use metrics::Metrics;
use registry::Registry;
use roster::Roster;
use trust::Trust;

/// Connections for health and metrics at once.
const OPS_CONNECTIONS_MAX: u32 = 64;

/// Serves until `drain` has started and what runs then has ended, or its time is over.
///
/// # Errors
/// What kept the server from starting.
pub async fn run(config: ServerConfig, host: Host, drain: Drain) -> Result<(), StartError> {
    Server::bind(config, host, drain).await?.serve().await;
    Ok(())
}

/// All parts, bound and not yet serving.
struct Server {
    config: ServerConfig,
    host: Host,
    drain: Drain,
    public: Door,
    internal: Door,
    ops: Option<Door>,
    agents: Arc<Agents>,
    front_door: Arc<FrontDoor>,
    admin: Arc<Admin>,
    registry: Arc<Registry>,
    trust: Arc<Trust>,
}

impl Server {
    async fn bind(config: ServerConfig, host: Host, drain: Drain) -> Result<Self, StartError> {
        let roster = Arc::new(Roster::new(&config.clusters));
        let registry = Arc::new(Registry::new(&config, host.clone()));
        let budget = Arc::new(Budget::new(config.process_budget));
        let metrics = Arc::new(Metrics::new(&host, registry.clone(), budget.clone()));
        let admin = Arc::new(Admin { registry: registry.clone(), metrics: metrics.clone(), drain: drain.clone() });
        let public_tls = tls(&host, "tls", &config, Alpn::Http1)?.map(Arc::new);
        let trust = Arc::new(trust(&host, &config, roster.clone(), public_tls.clone())?);
        let agents = Arc::new(Agents {
            host: host.clone(),
            tls: public_tls,
            trust: trust.clone(),
            registry: registry.clone(),
            metrics: metrics.clone(),
            drain: drain.clone(),
            sessions: SessionLimits::new(&config, budget, host.chance()),
            proxies: config.trusted_proxies.clone(),
            guesses: Guesses::default(),
        });
        let internal_tls =
            if config.internal_tls == InternalTls::Off { None } else { tls(&host, "internal-tls", &config, Alpn::Http)? };
        let turned_away = metrics.turned_away.clone();
        let front_door = Arc::new(FrontDoor {
            host: host.clone(),
            tls: internal_tls,
            internal_tls: config.internal_tls,
            roster: roster.clone(),
            forward: Arc::new(Forward::new(&config, host.clone(), (roster, registry.clone(), metrics))),
            admin: config.ops_addr.is_none().then(|| admin.clone()),
            drain: drain.clone(),
            proxies: config.trusted_proxies.clone(),
        });
        let bind = async |flag, name, addr, connections_max| {
            Door::bind(&host, name, addr, connections_max).await.map_err(|source| StartError::Bind { flag, addr, source })
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
        Ok(Self { config, host: host.clone(), drain, public, internal, ops, agents, front_door, admin, registry, trust })
    }

    async fn serve(self) {
        tracing::warn!("whoever reaches the internal listener reaches every cluster with the rights of its agent");
        self.tell_what_tls_hides();
        let drain = || self.drain.clone();
        let (agents, front_door, admin) = (self.agents.clone(), self.front_door.clone(), self.admin.clone());
        let public = self.public.serve(&self.host, drain(), move |connection, how| agents.clone().serve(connection, how));
        let internal = self.internal.serve(&self.host, drain(), move |connection, how| front_door.clone().serve(connection, how));
        let ops = async {
            if let Some(ops) = &self.ops {
                ops.serve(&self.host, drain(), move |connection, _| serve_admin(admin.clone(), connection)).await;
            }
        };
        let drained = async {
            drain().started().await;
            self.finish().await;
        };
        tokio::select! {
            biased;
            () = drained => {}
            _ = async { tokio::join!(public, internal, ops, self.trust.follow(&self.registry)) } => {}
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

    /// Drains: sessions were told to go away and callers' connections finish what runs; what is left then is cut.
    async fn finish(&self) {
        tracing::info!(drain_max = ?self.config.drain_max, "draining");
        let sessions_ended = async {
            for (_, session) in self.registry.sessions() {
                session.ended().await;
            }
        };
        let all_ended = async { tokio::join!(sessions_ended, self.internal.emptied()) };
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

fn tls(host: &Host, name: &'static str, config: &ServerConfig, alpn: Alpn) -> Result<Option<ServerTls>, StartError> {
    let Some(files) = &config.tls else { return Ok(None) };
    let path = files.cert.clone();
    let tls = ServerTls::new(host, name, files.clone(), alpn);
    tls.map(Some).map_err(|source| StartError::Material { flag: "tls-cert", path, source: Box::new(source) })
}

fn trust(host: &Host, config: &ServerConfig, roster: Arc<Roster>, tls: Option<Arc<ServerTls>>) -> Result<Trust, StartError> {
    let asks = config.asks_for_certificates();
    let clusters = config.clusters_file.as_ref().map(|path| trust::watch_clusters(host, path, asks)).transpose();
    let revoked = config.revoked_certs.as_ref().map(|path| trust::watch_revoked(host, path)).transpose();
    let mistakes = |errors: ConfigErrors| StartError::Config(errors.0);
    Ok(Trust::new(roster, tls, clusters.map_err(mistakes)?, revoked.map_err(mistakes)?))
}
