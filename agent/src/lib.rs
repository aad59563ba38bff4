//! What stands beside a cluster's API server: dials out to the hub and serves what comes back.
//!
//! A request's way through the files: `connect` (the session) ▶ `serve` (one stream) ▶ `guard` (may it?) ▶ `upstream` (the
//! API server). The agent listens nowhere, health and orders on its own machine aside.

mod admin;
mod audit;
pub mod cli;
pub mod config;
mod connect;
pub mod doctor;
mod guard;
mod metrics;
pub mod orders;
mod serve;
mod sessions;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use host::tls::{ClientFiles, ClientTls};
use host::{Door, Drain, Host, Tracer};
use tunnel::{Budget, Reason, SessionHandle};

pub use config::AgentConfig;
use proxy::audit::{Log, Metered};
use proxy::flags::ConfigError;
pub use proxy::program::StartError;
use proxy::traces;

use config::TargetTls;
use connect::{Dialer, Token, Way};
use guard::Guard;
use metrics::Metrics;
use sessions::Sessions;
use upstream::Upstream;

/// The program's name, in the hub's logs.
const PROGRAM: &str = "postern-agent";

/// Connections for health and metrics at once.
const HEALTH_CONNECTIONS_MAX: u32 = 64;

/// Serves until `drain` has started and what runs then has ended.
///
/// # Errors
/// What kept the agent from starting.
pub async fn run(config: AgentConfig, host: Host, drain: Drain) -> Result<(), StartError> {
    let (log, writer, hub) =
        audit::open(&config, &host).await?.map_or((None, None, None), |(log, writer, hub)| (Some(log), Some(writer), Some(hub)));
    let agent = Arc::new(Agent::new(config, host, log)?);
    if let Some(hub) = hub {
        let _ = hub.agent.set(Arc::downgrade(&agent));
    }
    let health = match agent.config.health_addr {
        Some(addr) => {
            let bound = Door::bind(&agent.host, "health", addr, HEALTH_CONNECTIONS_MAX).await;
            Some(bound.map_err(|source| StartError::Bind { flag: "health-addr", addr, source })?)
        }
        None => None,
    };
    let orders = match &agent.config.state_dir {
        Some(dir) => {
            let bound = agent.host.listen_local(&orders::socket_in(dir));
            let unusable = |source| StartError::Material { flag: "state-dir", path: dir.clone(), source: Box::new(source) };
            Some(bound.map_err(unusable)?)
        }
        None => None,
    };
    let orders = async {
        match &orders {
            Some(listener) => orders::take(&**listener, &agent.guard).await,
            None => std::future::pending().await,
        }
    };
    let health = async {
        if let Some(health) = &health {
            let serving = agent.clone();
            health.serve(&agent.host, drain.clone(), move |connection, _| admin::serve(serving.clone(), connection)).await;
        }
        std::future::pending::<()>().await;
    };
    writer.into_iter().for_each(|writer| agent.host.spawn("audit log", writer.run()));
    tokio::select! {
        biased;
        () = connect::stay_connected(agent.clone(), drain.clone()) => {}
        () = orders => {}
        () = health => {}
    }
    // Last, so that it has all that was done.
    if let Some(log) = &agent.audit {
        log.close().await;
    }
    agent.tracer.flush().await;
    Ok(())
}

/// One agent: its configuration, its API server, its sessions.
struct Agent {
    config: Arc<AgentConfig>,
    host: Host,
    dialer: Dialer,
    guard: Arc<Guard>,
    upstream: Upstream,
    /// The hub's last probe found no API server.
    is_upstream_away: AtomicBool,
    metrics: Metrics,
    audit: Option<Arc<Log>>,
    sessions: Sessions,
    tracer: Tracer,
}

impl Agent {
    fn new(config: AgentConfig, host: Host, audit: Option<Arc<Log>>) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let tls = target_tls(&config, &host)?;
        let upstream = Upstream::new(host.clone(), config.target.clone(), tls, config.sa_token_path.clone());
        let budget = Arc::new(Budget::new(config.process_budget));
        let token = Token::new(&host, &config.token)
            .map_err(|problem| StartError::Config(vec![ConfigError::new("--token-file", problem)]))?;
        let way = Way::new(&host, &config.way)?;
        let hub = (way, server_tls(&config, &host)?, token);
        let dialer = Dialer::new(host.clone(), config.clone(), hub, budget.clone());
        let tracer = traces::tracer(&host, &config.traces, PROGRAM, env!("CARGO_PKG_VERSION"))?;
        let sessions = Sessions::default();
        let mut metrics = Metrics::new(&host, budget, &sessions);
        tracer.register(&mut metrics.registry);
        audit.iter().for_each(|log| metrics.registry.register_collector(Box::new(Metered(log.clone()))));
        let guard = Arc::new(Guard::new(&config, &host, &mut metrics.registry)?);
        let is_upstream_away = AtomicBool::default();
        Ok(Self { config, host, dialer, guard, upstream, is_upstream_away, metrics, audit, sessions, tracer })
    }

    fn is_connected(&self) -> bool {
        self.sessions.handles().iter().any(SessionHandle::is_open)
    }

    /// Drains: takes no new requests and lets what runs finish, within its time.
    async fn finish(&self) {
        let sessions = self.sessions.handles();
        tracing::info!(drain_max = ?self.config.drain_max, n_sessions = sessions.len(), "draining");
        for session in &sessions {
            session.go_away(Reason::Draining, self.config.drain_max);
        }
        let all_ended = async {
            for session in &sessions {
                session.ended().await;
            }
        };
        let in_time = tokio::time::timeout(self.config.drain_max, all_ended).await.is_ok();
        for session in &sessions {
            session.close(Reason::Draining);
        }
        tracing::info!(in_time, "drained");
    }
}

fn server_tls(config: &AgentConfig, host: &Host) -> Result<Option<ClientTls>, StartError> {
    if !config.server.tls {
        return Ok(None);
    }
    let identity = config.client_identity.clone().map(|identity| (identity.cert, identity.key));
    let files = ClientFiles { ca: config.server_ca_cert.clone(), identity, insecure: false };
    let tls = ClientTls::new(host, "server-tls", files).map_err(|source| {
        let identity = config.client_identity.as_ref();
        let flag = match source.path() {
            path if identity.is_some_and(|identity| identity.cert == path) => "client-cert",
            path if identity.is_some_and(|identity| identity.key == path) => "client-key",
            _ => "server-ca-cert",
        };
        StartError::Material { flag, path: source.path().to_owned(), source: Box::new(source) }
    });
    tls.map(Some)
}

fn target_tls(config: &AgentConfig, host: &Host) -> Result<Option<ClientTls>, StartError> {
    let (files, path) = match &config.target_tls {
        TargetTls::Plain => return Ok(None),
        TargetTls::Unverified => (ClientFiles { insecure: true, ..ClientFiles::default() }, String::new()),
        TargetTls::Verified { ca_cert } => (ClientFiles { ca: Some(ca_cert.clone()), ..ClientFiles::default() }, ca_cert.clone()),
    };
    let tls = ClientTls::new(host, "target-tls", files);
    tls.map(Some).map_err(|source| StartError::Material { flag: "ca-cert", path, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientIdentity;

    #[tokio::test]
    async fn a_mistake_in_a_file_of_the_hubs_tls_is_told_under_the_flag_that_names_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
            dir.path().join(name).to_str().expect("a path of text").to_owned()
        };
        let issued = rcgen::generate_simple_self_signed(["agent".to_owned()]).expect("a certificate");
        let (cert, key) = (file("agent.pem", &issued.cert.pem()), file("agent.key", &issued.signing_key.serialize_pem()));
        let other = file("other.key", &rcgen::KeyPair::generate().expect("a key").serialize_pem());
        let empty = file("empty", "");
        for (ca, cert, key, expected) in [
            (&cert, &cert, &key, None),
            (&empty, &cert, &key, Some("--server-ca-cert")),
            (&cert, &empty, &key, Some("--client-cert")),
            (&cert, &cert, &empty, Some("--client-key")),
            (&cert, &cert, &other, Some("--client-key")),
        ] {
            let mut config = AgentConfig::new("wss://hub.example".parse().expect("a URL"), secrecy::SecretString::from("hush"));
            config.server_ca_cert = Some(ca.clone());
            config.client_identity = Some(ClientIdentity { cert: cert.clone(), key: key.clone() });
            let told = server_tls(&config, &Host::real()).err().map(|error| error.to_string());
            let flag = told.as_deref().and_then(|told| told.split(' ').next());
            assert_eq!(flag, expected, "{told:?}");
        }
    }
}
