//! From a request to who answers it.

use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::body::{self, Body};
use super::query::Query;
use super::resources::{self, Target};
use super::status::Status;
use super::{ApiServer, ReceivedRequest, access, discovery, kinds, openapi, probes};

/// The git version that `/version` tells: the newest whose behaviour is imitated, marked as no release.
const GIT_VERSION: &str = "v1.32.0-sim";

/// Answers one request.
pub(crate) async fn answer(server: &ApiServer, request: Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    server.log_request(ReceivedRequest { method: request.method().clone(), target, headers: request.headers().clone() });
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = match server.misbehaviors().before_all().await {
        None => route(server, request).await.unwrap_or_else(Status::into_response),
        Some(refused) => refused,
    };
    if !probes::is_probe(&path) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    tracing::info!(%method, path, status = response.status().as_u16(), "request");
    response
}

async fn route(server: &ApiServer, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let path = request.uri().path().to_owned();
    let health = matches!(path.as_str(), "/healthz" | "/livez" | "/readyz");
    // As `system:public-info-viewer` allows: whoever shows no token may ask after the health, a wrong token is refused.
    if !(server.accepts(bearer(request.headers())) || health && !request.headers().contains_key(AUTHORIZATION)) {
        return Err(Status::unauthorized());
    }
    if probes::is_probe(&path) {
        return Ok(probes::answer(server, &path, request).await);
    }
    let query = Query::parse(request.uri().query());
    let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["api", "v1", rest @ ..] if !rest.is_empty() && rest != [""] => {
            let target = Target::parse("", "v1", rest).ok_or_else(Status::no_such_path)?;
            server.options().rights.check(request.method(), &path)?;
            resources::answer(server, target, &query, request).await
        }
        ["apis", group, version, access::PLURAL] if (*group, *version) == access::GROUP => {
            access::answer(server.options().rights, request).await
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() && rest != [""] => {
            let mut served = kinds::KINDS.iter().chain(kinds::extra(server.options().extra_kinds));
            if !served.any(|kind| kind.group == *group && kind.version == *version) {
                return Ok(no_such_page());
            }
            let target = Target::parse(group, version, rest).ok_or_else(Status::no_such_path)?;
            server.options().rights.check(request.method(), &path)?;
            resources::answer(server, target, &query, request).await
        }
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => Err(Status::method_not_allowed()),
        ["healthz" | "livez" | "readyz", ..] => Ok(body::text(StatusCode::OK, "ok")),
        ["version"] => Ok(body::json(StatusCode::OK, &version())),
        ["openapi", "v2"] => Ok(openapi::v2(request.headers())),
        ["openapi", "v3", rest @ ..] => openapi::v3(rest).ok_or_else(Status::no_such_path),
        _ => Ok(discovery::answer(&segments, server.options().extra_kinds).unwrap_or_else(no_such_page)),
    }
}

/// What no handler answers.
fn no_such_page() -> Response<Body> {
    body::plain_error(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn version() -> serde_json::Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "sim/sim",
    })
}
