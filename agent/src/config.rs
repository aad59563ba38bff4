//! AgentConfig: what the agent runs on, complete and typed.

pub(crate) mod exemptions;
mod server_url;
pub(crate) mod way;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use host::TraceConfig;
use proxy::audit::AuditConfig;
use proxy::flags::HostPort;
use proxy::program::ProcessConfig;
use secrecy::SecretString;

pub use server_url::ServerUrl;
pub use way::{HubProxy, ProxyCredentials, Way};

/// Where health is asked for, unless a flag says otherwise: port 8081 of all interfaces.
pub const HEALTH_LISTENER: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8081);

/// Where Kubernetes puts a pod's own token and CA.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Everything that an agent is told before it starts.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where to dial.
    pub server: ServerUrl,
    /// What the agent presents there.
    pub token: TunnelToken,
    /// CA of the hub's certificate, in PEM; `None` = the machine's own roots.
    pub server_ca_cert: Option<String>,
    /// How the hub is reached. The target never is by anything but a connection of our own.
    pub way: Way,
    /// After how long without a byte of the hub it is pinged; `None` = as the protocol has it. Where a middlebox forgets
    /// what is idle sooner, less helps.
    pub keepalive: Option<Duration>,
    /// Certificate and key to present to the hub.
    pub client_identity: Option<ClientIdentity>,
    /// The one place that this agent dials for requests: its API server.
    pub target: HostPort,
    /// How the target is spoken to.
    pub target_tls: TargetTls,
    /// The token that requests carry to the target; read again when it changes.
    pub sa_token_path: String,
    /// The customer's policy, read again when it changes; `None` = nothing beyond what always holds.
    pub guard: Option<String>,
    /// Where the agent keeps that it was frozen by order, and takes such orders; `None` = it takes none.
    pub state_dir: Option<String>,
    /// Longest wait between dials that were answered with a refusal.
    pub retry_max: Duration,
    /// Streams at once; more are refused.
    pub streams_max: usize,
    /// A session is replaced by a new one at this age, before a middlebox cuts it; `None` = never.
    pub session_age_max: Option<Duration>,
    /// Bytes that the session may hold: credit granted and not used, and what is buffered.
    pub session_budget: usize,
    /// The same over all sessions of the process: old and new stand side by side during a renewal.
    pub process_budget: usize,
    /// A session from which no byte came for this long is replaced.
    pub silence_max: Duration,
    /// How long a drain may take before what still runs is cut.
    pub drain_max: Duration,
    /// Where health and metrics are served; `None` = nowhere.
    pub health_addr: Option<SocketAddr>,
    /// One record for each request; `None` = none is kept.
    pub audit: Option<AuditConfig>,
    /// Logging and threads.
    pub process: ProcessConfig,
    /// Where traces go.
    pub traces: TraceConfig,
}

/// What an agent presents to its hub.
#[derive(Debug, Clone)]
pub enum TunnelToken {
    /// For the life of the process.
    Fixed(SecretString),
    /// In this file; read again when it changes.
    File(String),
}

impl From<SecretString> for TunnelToken {
    fn from(token: SecretString) -> Self {
        Self::Fixed(token)
    }
}

/// Certificate files in PEM; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The chain.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// How the target is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetTls {
    /// Without TLS.
    Plain,
    /// With TLS, to anybody.
    Unverified,
    /// With TLS, to who shows a certificate of the CA in this file.
    Verified {
        /// In PEM; read again when it changes.
        ca_cert: String,
    },
}

impl AgentConfig {
    /// The defaults of an agent that dials `server` with `token`.
    pub fn new(server: ServerUrl, token: impl Into<TunnelToken>) -> Self {
        Self {
            server,
            token: token.into(),
            server_ca_cert: None,
            way: Way::Straight,
            keepalive: None,
            client_identity: None,
            target: HostPort { host: "kubernetes.default.svc".to_owned(), port: 443 },
            target_tls: TargetTls::Verified { ca_cert: format!("{SERVICE_ACCOUNT}/ca.crt") },
            sa_token_path: format!("{SERVICE_ACCOUNT}/token"),
            guard: None,
            state_dir: None,
            // A hub that says no will mostly say it again; a minute is soon enough once it changes its mind.
            retry_max: Duration::from_secs(60),
            // Two Argo CD controllers with 500 connections each.
            streams_max: 1024,
            session_age_max: None,
            // 1024 streams with 32 KiB each, as much again for those that need more.
            session_budget: 64 << 20,
            // Two sessions.
            process_budget: 128 << 20,
            // Three pings unheard, as version 1 has it.
            silence_max: Duration::from_secs(45),
            // The grace that Kubernetes gives a pod.
            drain_max: Duration::from_secs(30),
            health_addr: Some(HEALTH_LISTENER),
            audit: None,
            process: ProcessConfig::default(),
            traces: TraceConfig::default(),
        }
    }
}
