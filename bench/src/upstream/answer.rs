//! Which answer a path gets: Kubernetes-shaped, so that what stands between classifies requests as in life.

use std::str::FromStr;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::body::{Body, Events};
use super::pages::{PAGE_ITEMS_MAX, Page, Pages};
use super::upgrade;

/// Tells the token of the next page to those who do not want to parse a body for it.
const CONTINUE: HeaderName = HeaderName::from_static("x-continue");

/// Objects of a kind, unless a request says how many.
const TOTAL: usize = 5000;

/// What kube-apiserver says of itself.
const VERSION: &str = r#"{"major":"1","minor":"33","gitVersion":"v1.33.0","gitCommit":"60a317eadfcb839692a68eab88b2096f4d708f4f","gitTreeState":"clean","buildDate":"2025-04-23T13:00:00Z","goVersion":"go1.24.2","compiler":"gc","platform":"linux/amd64"}"#;

/// All that is to be asked for.
pub(super) struct Upstream {
    /// What bodies are made of.
    pattern: Bytes,
    pages: Pages,
}

impl Upstream {
    pub(super) fn new() -> Self {
        Self { pattern: Body::pattern(), pages: Pages::default() }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let query = Query(request.uri().query().unwrap_or_default().to_owned());
        let answer = match (method, parts.as_slice()) {
            (Method::GET, ["api", "v1", "namespaces", _, "configmaps", _]) => self.object(&query),
            (Method::GET, ["api", "v1", "pods"]) => self.list(&query),
            (Method::GET, ["api", "v1", "configmaps"]) => watch(&query),
            (Method::GET, ["apis", "bench.postern", "v1", _]) => self.page(&request, &query),
            (Method::GET, ["api", "v1", "namespaces", _, "pods", _, "exec"]) => upgrade::echo(request),
            (Method::GET, ["api", "v1", "namespaces", _, "pods", _, "portforward"]) => {
                query.number("bytes", 0).and_then(|bytes| upgrade::pour(request, bytes, self.pattern.clone()))
            }
            (Method::POST, ["api", "v1", "namespaces", _, "configmaps"]) => return created(request.into_body()).await,
            (Method::GET, ["version"]) => Ok(whole(StatusCode::OK, VERSION)),
            (method, _) => Err(Refused(StatusCode::NOT_FOUND, format!("nothing answers {method} {path} here"))),
        };
        answer.unwrap_or_else(Refused::into_response)
    }

    fn object(&self, query: &Query) -> Result<Response<Body>, Refused> {
        let bytes: u64 = query.number("bytes", 0)?;
        let mut response = json(Body::announced(self.pattern.clone(), bytes));
        // hyper announces no empty body on HTTP/2.
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        Ok(response)
    }

    fn list(&self, query: &Query) -> Result<Response<Body>, Refused> {
        Ok(json(Body::streamed(self.pattern.clone(), query.number("bytes", 0)?)))
    }

    fn page(&self, request: &Request<Incoming>, query: &Query) -> Result<Response<Body>, Refused> {
        let total = query.number("total", TOTAL)?;
        let page = Page { first: query.number("continue", 0)?, limit: query.number("limit", PAGE_ITEMS_MAX)?, total };
        let asked = request.headers().get_all(ACCEPT_ENCODING).iter();
        let gzip = asked.filter_map(|value| value.to_str().ok()).any(|value| value.contains("gzip"));
        let mut response = json(Body::whole(self.pages.get(page, gzip)));
        let next = page.next().map_or(HeaderValue::from_static(""), HeaderValue::from);
        response.headers_mut().insert(CONTINUE, next);
        if gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}

fn watch(query: &Query) -> Result<Response<Body>, Refused> {
    let events = match query.optional::<u64>("from")? {
        Some(from_ms) => {
            let (every_ms, count) = (query.number("every", 1000)?, query.number("count", u64::MAX)?);
            Some(Events { from_ms, every_ms, count })
        }
        None => None,
    };
    Ok(json(Body::watch(events)))
}

/// Reads a body to its end and tells how long it was.
async fn created(mut body: Incoming) -> Response<Body> {
    let mut n_bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => n_bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => {
                return Refused(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")).into_response();
            }
        }
    }
    whole(StatusCode::CREATED, format!(r#"{{"bytes":{n_bytes}}}"#))
}

/// A request that cannot be answered, and why.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl Refused {
    fn into_response(self) -> Response<Body> {
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": self.1, "code": self.0.as_u16(),
        });
        whole(self.0, status.to_string())
    }
}

fn whole(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = json(Body::whole(body.into()));
    *response.status_mut() = status;
    response
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A query of plain numbers.
struct Query(String);

impl Query {
    fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Refused> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// A name without a value is as good as none: client-go sends `continue=` for the first page.
    fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refused> {
        let value = self.0.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
        let refused = |_| Refused(StatusCode::BAD_REQUEST, format!("{name}={value} is no number that fits"));
        value.parse().map(Some).map_err(refused)
    }
}
