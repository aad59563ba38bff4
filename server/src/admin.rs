//! Health and metrics.

use std::sync::Arc;

use host::{Drain, ops};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use proxy::body::{self, Body};

use crate::metrics::Metrics;
use crate::registry::Registry;

/// Answers `/healthz`, `/readyz`, `/readyz/self` and `/metrics`.
pub(crate) struct Admin {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
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
            "/readyz/self" if self.drain.is_started() => text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
            "/readyz/self" => text(StatusCode::OK, "ok"),
            "/metrics" => {
                let mut response = Response::new(body::full(self.metrics.text()));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(ops::METRICS_CONTENT_TYPE));
                response
            }
            _ => not_found(),
        }
    }
}

/// The answer to a path that nobody knows.
pub(crate) fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "not found")
}

/// A short plain answer.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(body::full(text.into() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
