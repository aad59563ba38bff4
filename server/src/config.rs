//! ServerConfig: what the server runs on, complete and typed.

pub mod argocd;
pub mod clusters;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub use host::tls::ServerFiles as TlsFiles;
use host::{TraceConfig, TrustedProxies};
use proxy::audit::AuditConfig;
use proxy::program::ProcessConfig;

pub use crate::auth::{CertificateName, TokenDigest};
pub use argocd::ArgoCdConfig;
pub use clusters::ClusterConfig;

/// Everything that a server is told before it starts.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where agents arrive: `/connect`, `/healthz`.
    pub addr: SocketAddr,
    /// Where callers arrive: `/tunnel/…`, health and metrics.
    pub internal_addr: SocketAddr,
    /// A listener of its own for health and metrics; `None` = the internal one serves them.
    pub ops_addr: Option<SocketAddr>,
    /// The clusters that may be reached; never empty, ids, routes and tokens are distinct.
    pub clusters: Vec<ClusterConfig>,
    /// The file that the clusters were read from, which is read again when it changes; `None` when they came by
    /// environment.
    pub clusters_file: Option<String>,
    /// The file that says who may reach what; `None` = anybody on the internal listener reaches every cluster.
    pub callers_file: Option<String>,
    /// A list of certificates that are good no longer, which is read again when it changes.
    pub revoked_certs: Option<String>,
    /// Certificate, key and client CA; `None` = plain.
    pub tls: Option<TlsFiles>,
    /// The internal listener's own; `None` = those of `tls`. With a callers file a client certificate is asked for and may be
    /// missing.
    pub internal_tls_files: Option<TlsFiles>,
    /// Who may speak plain HTTP to the internal listener.
    pub internal_tls: InternalTls,
    /// Registration in Argo CD; `None` = somebody else makes the cluster Secrets.
    pub argocd: Option<ArgoCdConfig>,
    /// One record for each request; `None` = none is kept.
    pub audit: Option<AuditConfig>,
    /// Logging and threads.
    pub process: ProcessConfig,
    /// Where traces go.
    pub traces: TraceConfig,
    /// Proxied requests per second over all clusters, 0 = no limit.
    pub rate_limit: u32,
    /// The same of each cluster, 0 = no limit.
    pub cluster_rate_limit: u32,
    /// The same of each caller, 0 = no limit.
    pub caller_rate_limit: u32,
    /// Requests of one caller at once, over all clusters, 0 = no limit.
    pub caller_streams_max: usize,
    /// Who is believed about where connections and requests come from.
    pub trusted_proxies: TrustedProxies,
    /// Connections of one address on each listener, sessions aside, 0 = no limit. Counts where addresses are known.
    pub connections_per_address: usize,
    /// Agents shaking hands at once, sessions aside; when there are more, who did so for longest makes way.
    pub agent_handshakes_max: u32,
    /// Callers' connections at once; beyond it whoever never asked for anything makes way, and else it is 503.
    pub caller_connections_max: u32,
    /// How long a request over the rates waits for its turn, under all of them, before it is refused.
    pub rate_wait_max: Duration,
    /// The longest request body; beyond it is 413.
    pub request_body_max: usize,
    /// How long an upload may pause before it ends; `None` = as long as the caller likes.
    pub upload_idle_max: Option<Duration>,
    /// How long an upstream may take to begin its answer; `None` = as long as the caller waits.
    pub response_header_timeout: Option<Duration>,
    /// From one probe of a session to the next; `None` = API servers are not asked.
    pub probe_interval: Option<Duration>,
    /// How long everything is served as before once the process is asked to end, while it says that it is not ready: Services
    /// need a moment to send no more here. Then the drain begins.
    pub leave: Duration,
    /// How long a drain may take before what still runs is cut.
    pub drain_max: Duration,
    /// How long a request waits for a cluster whose session was just lost.
    pub park_max: Duration,
    /// "Just lost" means no longer ago than this.
    pub park_window: Duration,
    /// Requests that wait so at once, over all clusters, and of one no more than are free; others are refused.
    pub park_requests_max: usize,
    /// Bytes of heads that wait so at once, shared in the same way.
    pub park_bytes_max: usize,
    /// Streams of one session at once.
    pub streams_max: usize,
    /// Bytes that one session may hold: credit granted and not used, and what is buffered.
    pub session_budget: usize,
    /// The same over all sessions of the process.
    pub process_budget: usize,
    /// A session from which no byte came for this long is replaced.
    pub silence_max: Duration,
}

/// How the internal listener treats TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalTls {
    /// Plain HTTP only.
    Off,
    /// TLS and plain HTTP on one socket, told apart by the first byte.
    Optional,
    /// TLS only.
    Require,
}

impl ServerConfig {
    /// Whether agents are asked for a client certificate.
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// The flag that names one of the files of a listener. Both listeners may have the same: then the public one's.
    pub(crate) fn tls_flag_of(&self, path: &str) -> &'static str {
        let public = ["tls-cert", "tls-key", "tls-client-ca"];
        let internal = ["internal-tls-cert", "internal-tls-key", "internal-tls-client-ca"];
        let named = [(&self.tls, public), (&self.internal_tls_files, internal)].into_iter().find_map(|(files, flags)| {
            let files = files.as_ref()?;
            let paths = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
            paths.into_iter().zip(flags).find_map(|(named, flag)| (named.map(String::as_str) == Some(path)).then_some(flag))
        });
        named.unwrap_or("tls-cert")
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            addr: all_interfaces(8443),
            internal_addr: all_interfaces(8080),
            ops_addr: None,
            clusters: Vec::new(),
            clusters_file: None,
            callers_file: None,
            revoked_certs: None,
            tls: None,
            internal_tls_files: None,
            internal_tls: InternalTls::Off,
            argocd: None,
            audit: None,
            process: ProcessConfig::default(),
            traces: TraceConfig::default(),
            rate_limit: 0,
            cluster_rate_limit: 0,
            caller_rate_limit: 0,
            caller_streams_max: 0,
            trusted_proxies: TrustedProxies::default(),
            connections_per_address: 0,
            // A fleet of thousands comes back within seconds of each other.
            agent_handshakes_max: 4096,
            // Argo CD opens up to 500 for each cluster it speaks HTTP/1.1 to.
            caller_connections_max: 16 * 1024,
            // client-go waits at least as long before it repeats a 429.
            rate_wait_max: Duration::from_secs(1),
            // Far beyond etcd's 1.5 MiB objects, enough for an image layer through a service proxy.
            request_body_max: 128 << 20,
            // A link that is away for so long has lost its connection too.
            upload_idle_max: Some(Duration::from_secs(5 * 60)),
            // Watches of a quiet cluster and slow webhooks begin late for good reasons.
            response_header_timeout: None,
            // With the 5 s that a probe may take, what is dead shows within 10.
            probe_interval: Some(Duration::from_secs(5)),
            // The grace that Kubernetes gives a pod.
            leave: Duration::ZERO,
            drain_max: Duration::from_secs(30),
            // An agent that lost its tunnel is back within 5 s of jitter and a handshake.
            park_max: Duration::from_secs(10),
            // Longer ago than the agent's longest wait between dials: it is really gone.
            park_window: Duration::from_secs(60),
            // The watches of six clusters, as Argo CD restarts them together.
            park_requests_max: 1000,
            // 16 KiB a head, most are under 2 KiB.
            park_bytes_max: 16 << 20,
            // Two Argo CD controllers with 500 connections each.
            streams_max: 1024,
            // 1024 streams with 32 KiB each, as much again for those that need more.
            session_budget: 64 << 20,
            // Sixteen sessions that are full at once.
            process_budget: 1 << 30,
            // Three pings unheard, as version 1 has it.
            silence_max: Duration::from_secs(45),
        }
    }
}

/// Every interface, IPv4 and IPv6.
fn all_interfaces(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}
