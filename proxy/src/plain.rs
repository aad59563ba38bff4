//! Short plain answers: health, metrics, and what is no Kubernetes request.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::body::{self, Body};

/// A line of text.
pub fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = answer(format!("{text}\n"), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

/// The answer to a path that nobody knows.
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "not found")
}

/// All metrics of a process, as [`host::ops::metrics_text`] writes them.
pub fn metrics(text: String) -> Response<Body> {
    answer(text, host::ops::METRICS_CONTENT_TYPE)
}

fn answer(text: String, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
