//! Every metric of the agent in one list.

mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use host::{Host, ops};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tunnel::{Budget, SessionError};

use crate::connect::DialError;
use crate::sessions::Sessions;
use sessions::OfSessions;

/// Upper bounds of session lifetimes in seconds: from one that ends at once, by a middlebox's limits, to a week.
const LIFETIME_BUCKETS: [f64; 10] = [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];

/// Name, labels and meaning of each, as REFERENCE.md prints them and a scrape explains them.
pub(crate) const METRICS: [(&str, &str, &str); 17] = [
    ("agent_connected", "", "Sessions to the hub that are up"),
    ("agent_reconnects", "", "Sessions that replaced an earlier one"),
    (
        "agent_dials_failed",
        "cause",
        "Dials of the hub that brought no session: unreachable, proxy (it would not lead on), tls, refused (the hub answered no), not-websocket, no-hello, silent, too-long",
    ),
    ("agent_session_lifetime_seconds", "", "How long sessions were up that have ended"),
    (
        "agent_sessions_ended",
        "cause",
        "Sessions that ended: silent, peer-closed, connection (it failed), malformed or protocol (the hub broke it), draining, revoked, closed",
    ),
    ("agent_round_trip_seconds", "", "How far the hub is, by the nearest session; none while nothing is measured"),
    ("agent_streams", "class", "Streams that run: interactive, watch, small or bulk"),
    ("agent_tunnel_bytes", "direction", "Bytes of requests and answers, received from the hub or sent to it"),
    ("agent_credit_stalls", "", "How often a stream that had more to send ran out of credit: who should read it is slow"),
    ("agent_buffered_bytes", "", "Bytes that came and were not read, or were written and have not left"),
    ("agent_tunnel_reserved_bytes", "", "Memory reserved for the bytes of all tunnels, of process-budget"),
    ("agent_budget_bytes", "", "process-budget: what agent_tunnel_reserved_bytes cannot exceed"),
    ("agent_upstream_requests", "", "Requests sent to the API server, the hub's own probes among them"),
    ("agent_upstream_errors", "", "Requests that got no answer from it"),
    ("agent_guard_refused", "reason", "Requests that the guard refused"),
    ("agent_guard_cut", "reason", "Running requests that the guard cut"),
    ("agent_frozen", "", "1 while the guard lets nothing pass"),
];

/// The meaning of a metric of the list.
pub(crate) fn help(name: &str) -> &'static str {
    METRICS.iter().find(|(known, _, _)| *known == name).map_or("", |(_, _, help)| *help)
}

/// The metrics of one agent.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    /// Sessions to the hub that are up; more than one during a renewal.
    pub(crate) sessions: Gauge,
    reconnects: Counter,
    n_connected: AtomicU64,
    dials_failed: Family<CauseLabel, Counter>,
    lifetimes: Histogram,
    ended: Family<CauseLabel, Counter>,
    /// Requests sent to the API server.
    pub(crate) upstream_requests: Counter,
    /// Requests that got no answer from it.
    pub(crate) upstream_errors: Counter,
    reserved: Gauge,
    budget: Arc<Budget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

impl Metrics {
    pub(crate) fn new(host: &Host, budget: Arc<Budget>, sessions: &Sessions) -> Self {
        let mut metrics = Self {
            registry: ops::registry(host, env!("CARGO_PKG_VERSION")),
            sessions: Gauge::default(),
            reconnects: Counter::default(),
            n_connected: AtomicU64::new(0),
            dials_failed: Family::default(),
            lifetimes: Histogram::new(LIFETIME_BUCKETS),
            ended: Family::default(),
            upstream_requests: Counter::default(),
            upstream_errors: Counter::default(),
            reserved: Gauge::default(),
            budget,
        };
        // From zero, or the first of each would be no increase.
        SessionError::LABELS.iter().for_each(|cause| drop(metrics.ended.get_or_create(&CauseLabel { cause })));
        DialError::LABELS.iter().for_each(|cause| drop(metrics.dials_failed.get_or_create(&CauseLabel { cause })));
        let limit = Gauge::<i64>::default();
        limit.set(i64::try_from(metrics.budget.max()).unwrap_or(i64::MAX));
        let registry = &mut metrics.registry;
        registry.register("agent_connected", help("agent_connected"), metrics.sessions.clone());
        registry.register("agent_reconnects", help("agent_reconnects"), metrics.reconnects.clone());
        registry.register("agent_dials_failed", help("agent_dials_failed"), metrics.dials_failed.clone());
        let lifetimes = "agent_session_lifetime_seconds";
        registry.register(lifetimes, help(lifetimes), metrics.lifetimes.clone());
        registry.register("agent_sessions_ended", help("agent_sessions_ended"), metrics.ended.clone());
        registry.register("agent_upstream_requests", help("agent_upstream_requests"), metrics.upstream_requests.clone());
        registry.register("agent_upstream_errors", help("agent_upstream_errors"), metrics.upstream_errors.clone());
        registry.register("agent_tunnel_reserved_bytes", help("agent_tunnel_reserved_bytes"), metrics.reserved.clone());
        registry.register("agent_budget_bytes", help("agent_budget_bytes"), limit);
        registry.register_collector(Box::new(OfSessions(sessions.clone())));
        metrics
    }

    /// A session is up; says the how manieth.
    pub(crate) fn connected(&self) -> u64 {
        let n_before = self.n_connected.fetch_add(1, Ordering::Relaxed);
        if n_before > 0 {
            self.reconnects.inc();
        }
        n_before + 1
    }

    /// A dial brought no session.
    pub(crate) fn dial_failed(&self, error: &DialError) {
        self.dials_failed.get_or_create(&CauseLabel { cause: error.label() }).inc();
    }

    /// A session that was up for a while has ended.
    pub(crate) fn session_ended(&self, up: Duration, how: &SessionError) {
        self.ended.get_or_create(&CauseLabel { cause: how.label() }).inc();
        self.lifetimes.observe(up.as_secs_f64());
    }

    /// All metrics as text.
    pub(crate) fn text(&self) -> String {
        self.reserved.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
        ops::metrics_text(&self.registry)
    }
}
