//! Every metric of the agent in one list.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host::{Host, ops};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tunnel::Budget;

/// The metrics of one agent.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    /// Sessions to the hub that are up; more than one during a renewal.
    pub(crate) sessions: Gauge,
    reconnects: Counter,
    n_connected: AtomicU64,
    /// Requests sent to the API server.
    pub(crate) upstream_requests: Counter,
    /// Requests that got no answer from it.
    pub(crate) upstream_errors: Counter,
    reserved: Gauge,
    budget: Arc<Budget>,
}

impl Metrics {
    pub(crate) fn new(host: &Host, budget: Arc<Budget>) -> Self {
        let mut registry = ops::registry(host, env!("CARGO_PKG_VERSION"));
        let (sessions, reconnects) = (Gauge::default(), Counter::default());
        let reserved = Gauge::default();
        let (upstream_requests, upstream_errors) = (Counter::default(), Counter::default());
        registry.register("agent_connected", "Sessions to the hub that are up", sessions.clone());
        registry.register("agent_reconnects", "Sessions that replaced an earlier one", reconnects.clone());
        registry.register("agent_upstream_requests", "Requests sent to the API server", upstream_requests.clone());
        registry.register("agent_upstream_errors", "Requests that got no answer", upstream_errors.clone());
        let help = "Memory reserved for the bytes of all tunnels, of process-budget";
        registry.register("agent_tunnel_reserved_bytes", help, reserved.clone());
        Self {
            registry,
            reserved,
            budget,
            sessions,
            reconnects,
            n_connected: AtomicU64::new(0),
            upstream_requests,
            upstream_errors,
        }
    }

    /// A session is up; says the how manieth.
    pub(crate) fn connected(&self) -> u64 {
        let n_before = self.n_connected.fetch_add(1, Ordering::Relaxed);
        if n_before > 0 {
            self.reconnects.inc();
        }
        n_before + 1
    }

    /// All metrics as text.
    pub(crate) fn text(&self) -> String {
        self.reserved.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
        ops::metrics_text(&self.registry)
    }
}
