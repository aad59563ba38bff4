//! Health and metrics.

use std::sync::Arc;

use host::Drain;
use http::{Request, Response, StatusCode};
use proxy::body::Body;
use proxy::plain::{self, not_found, text};

use crate::metrics::Metrics;
use crate::registry::Registry;

/// Where metrics are.
pub(crate) const METRICS_PATH: &str = "/metrics";

/// Answers `/healthz`, `/readyz`, `/readyz/self` and `/metrics`.
pub(crate) struct Admin {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the process is to end.
    pub(crate) asked: Drain,
}

impl Admin {
    pub(crate) fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        match request.uri().path() {
            // The process answers: it is alive.
            "/healthz" => text(StatusCode::OK, "ok"),
            // For people: somebody is connected.
            "/readyz" if self.registry.sessions().iter().any(|(_, session)| session.is_open()) => text(StatusCode::OK, "ok"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "no cluster is connected"),
            // For the hub's probes: no cluster's state may take the server out of its Service.
            "/readyz/self" if self.asked.is_started() => text(StatusCode::SERVICE_UNAVAILABLE, "leaving"),
            "/readyz/self" => text(StatusCode::OK, "ok"),
            METRICS_PATH => plain::metrics(self.metrics.text()),
            _ => not_found(),
        }
    }
}
