//! Health and metrics of the agent.

use std::convert::Infallible;
use std::sync::Arc;

use host::Connection;
use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy::body::Body;
use proxy::plain::{self, text};

use crate::Agent;

/// Serves one connection of the health listener.
pub(crate) async fn serve(agent: Arc<Agent>, connection: Connection) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let answer = answer(&agent, request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(connection), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection for health or metrics ended");
    }
}

fn answer(agent: &Agent, path: &str) -> Response<Body> {
    match path {
        "/healthz" => text(StatusCode::OK, "ok"),
        "/readyz" if agent.is_connected() => text(StatusCode::OK, "ok"),
        // Not dead: it goes on dialling.
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not connected to the hub"),
        "/metrics" => {
            agent.guard.tell_state();
            plain::metrics(agent.metrics.text())
        }
        _ => plain::not_found(),
    }
}
