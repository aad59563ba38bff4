//! Overview: how every cluster stands, at `/clusters`, as JSON for programs and as a page for people.

mod document;
mod page;
mod wanted;

use std::sync::Arc;

use host::Host;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use proxy::body::{self, Body};
use proxy::plain;
use tunnel::id::ClusterId;

use crate::registry::{Registry, Standing};
use wanted::{Format, Wanted};

/// Where it is, on the internal listener.
pub(crate) const PATH: &str = "/clusters";

/// What the reference says of it.
pub(crate) const CHAPTER: &str = include_str!("overview/chapter.md");

/// Answers questions about how clusters stand.
pub(crate) struct Overview {
    host: Host,
    registry: Arc<Registry>,
}

impl Overview {
    pub(crate) fn new(host: Host, registry: Arc<Registry>) -> Self {
        Self { host, registry }
    }

    /// Tells of those clusters that who asks `may_see`.
    pub(crate) fn answer<B>(&self, request: &Request<B>, may_see: &dyn Fn(&ClusterId) -> bool) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = plain::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let wanted = match Wanted::of(request) {
            Ok(wanted) => wanted,
            Err(why) => return plain::text(StatusCode::BAD_REQUEST, &why),
        };
        let standings = self.registry.standings(may_see);
        let now = Timestamp::try_from(self.host.wall_clock()).unwrap_or_default();
        let (kind, text) = match wanted.format {
            Format::Json => ("application/json", document::write(now, &wanted, &standings)),
            Format::Html => ("text/html; charset=utf-8", page::write(now, &wanted, &standings)),
        };
        let length = HeaderValue::from(text.len());
        let mut answer = Response::new(if *request.method() == Method::HEAD { body::empty() } else { body::full(text) });
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(VARY, HeaderValue::from_static("accept"));
        protect(headers);
        if wanted.format == Format::Html && wanted.refreshes {
            headers.insert(HeaderName::from_static("refresh"), HeaderValue::from_static(page::REFRESH_SECONDS));
        }
        answer
    }
}

/// What stands there is of this moment and for this caller alone, and no browser takes it for more than what it shows.
fn protect(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_str(page::policy()).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    headers.insert("content-security-policy", policy);
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
}

/// Those of `standings` that are asked for.
fn chosen<'a>(wanted: &'a Wanted, standings: &'a [Standing]) -> impl Iterator<Item = &'a Standing> {
    standings.iter().filter(|standing| wanted.has(standing))
}
