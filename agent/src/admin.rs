//! Health and metrics of the agent.

use std::convert::Infallible;
use std::sync::Arc;

use host::{Connection, ops};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy::body::{self, Body};

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
            let mut response = Response::new(body::full(agent.metrics.text()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(ops::METRICS_CONTENT_TYPE));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "not found"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(body::full(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
