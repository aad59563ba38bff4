//! Every metric of the server in one list.

use std::fmt;
use std::sync::Arc;

use host::{Host, TurnedAway, ops};
use http::Method;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Exposition;
use tunnel::Budget;
use tunnel::id::ClusterId;

use crate::registry::Registry;

/// Upper bounds of request durations in seconds: from a cached GET to a watch of ten minutes.
const DURATION_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0];

/// Name, labels and meaning of each, as REFERENCE.md prints them and a scrape explains them.
pub(crate) const METRICS: [(&str, &str, &str); 11] = [
    (
        "proxy_requests",
        "cluster, method, code",
        "Requests that ended; methods outside the standard set are OTHER, 499 is a caller that left",
    ),
    ("proxy_request_duration_seconds", "cluster", "Time until an answer had ended, watches included"),
    ("caller_requests", "caller", "Requests that ended, by the name of their caller in the callers file, or anonymous"),
    ("proxy_rate_limited", "", "Requests refused by any of the rate limits"),
    ("auth_failures", "endpoint", "Failed authentications"),
    (
        "connections_turned_away",
        "listener, reason",
        "Connections closed unserved: address (over connections-per-address), crowded (made way for others), proxy-header (none where one must be, or broken)",
    ),
    ("refusals", "reason", "Requests that this server refused itself"),
    ("agents_connected", "", "Sessions of agents"),
    ("tunnel_active_connections", "cluster", "Streams that run"),
    ("tunnel_reserved_bytes", "", "Memory reserved for the bytes of all tunnels, of process-budget"),
    ("requests_parked", "", "Requests that wait for a session"),
];

fn help(name: &str) -> &'static str {
    METRICS.iter().find(|(known, _, _)| *known == name).map_or("", |(_, _, help)| *help)
}

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Exposition,
    requests: Family<RequestLabels, Counter>,
    durations: Family<ClusterLabel, Histogram, fn() -> Histogram>,
    callers: Family<CallerLabel, Counter>,
    /// Requests refused by the rate limit.
    pub(crate) rate_limited: Counter,
    /// Connections that the listeners closed unserved.
    pub(crate) turned_away: TurnedAway,
    auth_failures: Family<EndpointLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    reserved: Gauge,
    budget: Arc<Budget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    cluster: String,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallerLabel {
    caller: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Metrics {
    pub(crate) fn new(host: &Host, sessions: Arc<Registry>, budget: Arc<Budget>) -> Self {
        let mut registry = ops::registry(host, env!("CARGO_PKG_VERSION"));
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            callers: Family::default(),
            rate_limited: Counter::default(),
            turned_away: TurnedAway::default(),
            auth_failures: Family::default(),
            refusals: Family::default(),
            reserved: Gauge::default(),
            budget,
            registry: Exposition::default(),
        };
        registry.register("proxy_requests", help("proxy_requests"), metrics.requests.clone());
        registry.register("proxy_request_duration_seconds", help("proxy_request_duration_seconds"), metrics.durations.clone());
        registry.register("caller_requests", help("caller_requests"), metrics.callers.clone());
        registry.register("proxy_rate_limited", help("proxy_rate_limited"), metrics.rate_limited.clone());
        registry.register("connections_turned_away", help("connections_turned_away"), metrics.turned_away.clone());
        registry.register("auth_failures", help("auth_failures"), metrics.auth_failures.clone());
        registry.register("refusals", help("refusals"), metrics.refusals.clone());
        registry.register("tunnel_reserved_bytes", help("tunnel_reserved_bytes"), metrics.reserved.clone());
        registry.register_collector(Box::new(Fleet { sessions }));
        Self { registry, ..metrics }
    }

    /// A request ended. `cluster` is a configured one or empty, so that the label set stays bounded.
    pub(crate) fn request_ended(&self, cluster: &str, method: &Method, code: u16, seconds: f64) {
        let cluster = cluster.to_owned();
        self.requests.get_or_create(&RequestLabels { cluster: cluster.clone(), method: method_label(method), code }).inc();
        self.durations.get_or_create(&ClusterLabel { cluster }).observe(seconds);
    }

    /// A request of a caller ended. `caller` is a name of the callers file or one that stands for all others.
    pub(crate) fn caller_ended(&self, caller: &str) {
        self.callers.get_or_create(&CallerLabel { caller: caller.to_owned() }).inc();
    }

    /// An agent or caller was not who it should be.
    pub(crate) fn auth_failed(&self, endpoint: &'static str) {
        self.auth_failures.get_or_create(&EndpointLabel { endpoint }).inc();
    }

    /// A request was refused.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// All metrics as text.
    pub(crate) fn text(&self) -> String {
        self.reserved.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
        ops::metrics_text(&self.registry)
    }
}

/// Methods outside the standard set are one label value: anybody can invent a method.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => "OTHER",
    }
}

/// What the registry knows, counted at each scrape.
struct Fleet {
    sessions: Arc<Registry>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

impl Collector for Fleet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sessions = self.sessions.sessions();
        let mut clusters = std::collections::BTreeMap::<ClusterId, usize>::new();
        for (cluster, handle) in &sessions {
            *clusters.entry(cluster.clone()).or_default() += handle.n_streams();
        }
        let n_parked = self.sessions.n_parked();
        for (name, value) in [("agents_connected", sessions.len()), ("requests_parked", n_parked)] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help(name), None, gauge.metric_type())?)?;
        }
        let kind = <ConstGauge<i64> as TypedMetric>::TYPE;
        let mut family = encoder.encode_descriptor("tunnel_active_connections", help("tunnel_active_connections"), None, kind)?;
        for (cluster, n_streams) in clusters {
            let gauge = ConstGauge::new(i64::try_from(n_streams).unwrap_or(i64::MAX));
            let label = ClusterLabel { cluster: cluster.to_string() };
            gauge.encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;

    #[tokio::test]
    async fn a_scrape_and_the_reference_name_the_same_metrics() {
        let host = Host::real();
        let registry = Arc::new(Registry::new(&ServerConfig::default(), host.clone()));
        let metrics = Metrics::new(&host, registry, Arc::new(Budget::new(1)));
        metrics.request_ended("edge-1", &Method::GET, 200, 0.1);
        metrics.caller_ended("argocd");
        metrics.auth_failed("connect");
        metrics.refused("Offline");
        metrics.turned_away.get_or_create(&host::TurnedAwayLabels { listener: "public", reason: "crowded" }).inc();
        let text = metrics.text();
        let scraped = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
        let mut scraped: Vec<_> = scraped
            .filter(|name| {
                !["process_", "config_files_", "certificate_"].iter().any(|of_all| name.starts_with(of_all)) && *name != "build"
            })
            .collect();
        let mut told: Vec<_> = METRICS.iter().map(|(name, _, _)| *name).collect();
        scraped.sort_unstable();
        told.sort_unstable();
        assert_eq!(scraped, told, "{text}");
    }

    #[test]
    fn an_invented_method_makes_no_new_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").expect("a token")), "OTHER");
    }
}
