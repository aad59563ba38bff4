//! Every metric of the server in one list.

mod fleet;
pub(crate) mod health;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use host::{Host, Tracer, TurnedAway, ops};
use http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Exposition;
use proxy::audit::{Log, Metered};
use tunnel::{Budget, SessionError};

use crate::argocd::Registration;
use crate::front_door::refusal::KINDS;
use crate::registry::Registry;
use fleet::Fleet;
use requests::Requests;

/// Upper bounds of session lifetimes in seconds: from one that ends at once, by a middlebox's limits, to a week.
const LIFETIME_BUCKETS: [f64; 10] = [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];

/// Name, labels and meaning of each, as REFERENCE.md prints them and a scrape explains them.
pub(crate) const METRICS: [(&str, &str, &str); 20] = [
    (
        "proxy_requests",
        "cluster, method, code",
        "Requests that ended; methods outside the standard set are OTHER, codes that nobody has registered are other, 499 is a caller that left; cluster is empty where the request named none that is there",
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
    ("tunnel_sessions", "cluster", "Sessions of the cluster's agents; 0 = it is offline"),
    (
        "tunnel_round_trip_seconds",
        "cluster",
        "How far the nearest agent is; none while nobody is connected, or nothing is measured",
    ),
    ("tunnel_streams", "cluster, class", "Streams that run: interactive, watch, small or bulk"),
    ("tunnel_bytes", "cluster, direction", "Bytes of requests and answers, received from agents or sent to them"),
    ("tunnel_credit_stalls", "cluster", "How often a stream that had more to send ran out of credit: who should read it is slow"),
    ("tunnel_buffered_bytes", "cluster", "Bytes that came and were not read, or were written and have not left"),
    ("tunnel_reserved_bytes", "", "Memory reserved for the bytes of all tunnels, of process-budget"),
    ("tunnel_budget_bytes", "", "process-budget: what tunnel_reserved_bytes cannot exceed"),
    ("session_lifetime_seconds", "", "How long sessions were up that have ended"),
    (
        "sessions_ended",
        "cause",
        "Sessions that ended: silent, peer-closed, connection (it failed), malformed or protocol (the agent broke it), draining, revoked, closed",
    ),
    ("requests_parked", "", "Requests that wait for a session"),
];

fn help(name: &str) -> &'static str {
    METRICS.iter().chain(&health::METRICS).find(|(known, _, _)| *known == name).map_or("", |(_, _, help)| *help)
}

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Exposition,
    requests: Requests,
    callers: Family<CallerLabel, Counter>,
    /// Requests refused by the rate limit.
    pub(crate) rate_limited: Counter,
    /// Connections that the listeners closed unserved.
    pub(crate) turned_away: TurnedAway,
    auth_failures: Family<EndpointLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    lifetimes: Histogram,
    ended: Family<CauseLabel, Counter>,
    reserved: Gauge,
    budget: Arc<Budget>,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

impl Metrics {
    pub(crate) fn new(host: &Host, sessions: Arc<Registry>, budget: Arc<Budget>, tracer: &Tracer) -> Self {
        let mut registry = ops::registry(host, env!("CARGO_PKG_VERSION"));
        let metrics = Self {
            requests: Requests::new(sessions.clone()),
            callers: Family::default(),
            rate_limited: Counter::default(),
            turned_away: TurnedAway::default(),
            auth_failures: Family::default(),
            refusals: Family::default(),
            lifetimes: Histogram::new(LIFETIME_BUCKETS),
            ended: Family::default(),
            reserved: Gauge::default(),
            budget,
            registry: Exposition::default(),
        };
        // From zero, or the first of each would be no increase.
        KINDS.iter().for_each(|kind| drop(metrics.refusals.get_or_create(&ReasonLabel { reason: kind.label })));
        SessionError::LABELS.iter().for_each(|cause| drop(metrics.ended.get_or_create(&CauseLabel { cause })));
        let limit = Gauge::<i64>::default();
        limit.set(i64::try_from(metrics.budget.max()).unwrap_or(i64::MAX));
        registry.register_collector(Box::new(metrics.requests.clone()));
        registry.register("caller_requests", help("caller_requests"), metrics.callers.clone());
        registry.register("proxy_rate_limited", help("proxy_rate_limited"), metrics.rate_limited.clone());
        registry.register("connections_turned_away", help("connections_turned_away"), metrics.turned_away.clone());
        registry.register("auth_failures", help("auth_failures"), metrics.auth_failures.clone());
        registry.register("refusals", help("refusals"), metrics.refusals.clone());
        let health = sessions.clone();
        registry.register_collector(Box::new(Fleet { registry: sessions }));
        registry.register("tunnel_reserved_bytes", help("tunnel_reserved_bytes"), metrics.reserved.clone());
        registry.register("tunnel_budget_bytes", help("tunnel_budget_bytes"), limit);
        registry.register("session_lifetime_seconds", help("session_lifetime_seconds"), metrics.lifetimes.clone());
        registry.register("sessions_ended", help("sessions_ended"), metrics.ended.clone());
        tracer.register(&mut registry);
        registry.register_collector(Box::new(health::Health(health)));
        Self { registry, ..metrics }
    }

    /// Counts what becomes of an audit log too.
    pub(crate) fn with_audit(mut self, log: Option<&Arc<Log>>) -> Self {
        log.into_iter().for_each(|log| self.registry.register_collector(Box::new(Metered(log.clone()))));
        self
    }

    /// Has what registration in Argo CD came to scraped, too, if there is one.
    pub(crate) fn with_registration(mut self, registration: Option<&Registration>) -> Self {
        registration.into_iter().for_each(|registration| registration.account.register(&mut self.registry));
        self
    }

    /// A request ended. `cluster` may be empty, or one that is not there any more.
    pub(crate) fn request_ended(&self, cluster: &str, method: &Method, code: u16, seconds: f64) {
        self.requests.ended(cluster, method, code, seconds);
    }

    /// A session ended, which was up for a while if it came to its hello.
    pub(crate) fn session_ended(&self, up: Option<Duration>, how: &SessionError) {
        self.ended.get_or_create(&CauseLabel { cause: how.label() }).inc();
        if let Some(up) = up {
            self.lifetimes.observe(up.as_secs_f64());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;

    #[tokio::test]
    async fn a_scrape_and_the_reference_name_the_same_metrics() {
        let host = Host::real();
        let registry = Arc::new(Registry::new(&ServerConfig::default(), host.clone()));
        let metrics = Metrics::new(&host, registry, Arc::new(Budget::new(1)), &Tracer::default());
        metrics.request_ended("edge-1", &Method::GET, 200, 0.1);
        metrics.caller_ended("argocd");
        metrics.auth_failed("connect");
        metrics.refused("Offline");
        metrics.turned_away.get_or_create(&host::TurnedAwayLabels { listener: "public", reason: "crowded" }).inc();
        let text = metrics.text();
        let scraped = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
        let mut scraped: Vec<_> = scraped
            .filter(|name| {
                !["process_", "config_files_", "certificate_", "trace_", "cluster_"].iter().any(|of_all| name.starts_with(of_all))
                    && *name != "build"
            })
            .collect();
        let mut told: Vec<_> = METRICS.iter().map(|(name, _, _)| *name).collect();
        scraped.sort_unstable();
        told.sort_unstable();
        assert_eq!(scraped, told, "{text}");
    }
}
