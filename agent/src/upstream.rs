//! The API server: its address, its CA, the agent's rotating token, and the connections to it.
//!
//! Ordinary requests share HTTP/2 connections, upgrades and plain targets have HTTP/1.1 ones.

mod http1_pool;
mod http2_pool;
mod leased;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host::tls::{Alpn, ClientTls};
use host::{Connection, Host};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use proxy::body::{self, Body};
use proxy::expect;
use proxy::flags::HostPort;
use proxy::request::RequestInfo;
use proxy::status::Status;

use http1_pool::Http1Pool;
use http2_pool::Http2Pool;
use token::TokenFile;

/// Why the API server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// It cannot be reached. Nothing was sent.
    #[error("failed to reach the API server {target}")]
    Unreachable {
        target: String,
        #[source]
        source: io::Error,
    },
    /// The agent's own token cannot be read. Nothing was sent.
    #[error("failed to read the agent's token {path}")]
    Token {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The agent's own token was refused.
    #[error("the API server refuses the agent's token {path} with 401")]
    TokenRefused { path: String },
    /// Connections closed before they took the request.
    #[error("the API server closed its connection and has not taken the request")]
    NotTaken(#[source] hyper::Error),
    /// The connection broke.
    #[error("the connection to the API server broke before its answer")]
    Broken(#[source] hyper::Error),
}

impl UpstreamError {
    /// Whether the API server cannot have acted on the request.
    pub(crate) fn nothing_was_done(&self) -> bool {
        match self {
            // With 401 the API server acts on nothing, but a repetition would meet the same token.
            Self::Unreachable { .. } | Self::Token { .. } | Self::NotTaken(_) => true,
            Self::TokenRefused { .. } | Self::Broken(_) => false,
        }
    }

    /// A word for programs.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "UpstreamUnreachable",
            Self::Token { .. } => "TokenUnreadable",
            Self::TokenRefused { .. } => "TokenRefused",
            Self::NotTaken(_) => "UpstreamClosed",
            Self::Broken(_) => "UpstreamBroken",
        }
    }
}

/// A `Status` is shorter; what is longer is none.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// A connection refused a request before any of it was sent: try it elsewhere.
enum Sent {
    Answered(Response<Body>),
    NotSent(Request<Body>),
}

/// The one place that requests go to.
pub(crate) struct Upstream {
    dialer: Arc<TargetDialer>,
    token: TokenFile,
    http1: Http1Pool,
    http2: Http2Pool,
    /// The target chose HTTP/1.1 although HTTP/2 was offered.
    speaks_http1_only: AtomicBool,
}

impl Upstream {
    /// Without `tls` the target is spoken to plainly.
    pub(crate) fn new(host: Host, target: HostPort, tls: Option<ClientTls>, token_path: String) -> Self {
        let speaks_http1_only = AtomicBool::new(tls.is_none());
        let token = TokenFile::new(host.clone(), token_path);
        let dialer = Arc::new(TargetDialer { host, target, tls });
        Self { http1: Http1Pool::new(dialer.clone()), http2: Http2Pool::new(dialer.clone()), dialer, token, speaks_http1_only }
    }

    /// Sends one request, whose URI is path and query, with the agent's own token.
    pub(crate) async fn send(&self, mut request: Request<Body>, is_upgrade: bool) -> Result<Response<Body>, UpstreamError> {
        let token = self.token.get()?;
        let changes_nothing = matches!(*request.method(), Method::GET | Method::HEAD);
        let copy = bodiless_copy(&request).filter(|_| changes_nothing);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        request.headers_mut().insert(AUTHORIZATION, token.clone());
        let response = self.send_once(request, is_upgrade).await?;
        if response.status() != StatusCode::UNAUTHORIZED || is_proxied(&method, &uri) {
            return Ok(response);
        }
        if let Err(of_another) = of_api_server(response).await {
            return Ok(*of_another);
        }
        // The token may have been rotated between its reading and its checking.
        let fresh = self.token.read()?;
        match copy {
            Some(mut copy) if fresh != token => {
                copy.headers_mut().insert(AUTHORIZATION, fresh);
                let response = self.send_once(copy, is_upgrade).await?;
                match response.status() {
                    StatusCode::UNAUTHORIZED => Err(UpstreamError::TokenRefused { path: self.token.path().to_owned() }),
                    _ => Ok(response),
                }
            }
            _ => Err(UpstreamError::TokenRefused { path: self.token.path().to_owned() }),
        }
    }

    async fn send_once(&self, mut request: Request<Body>, is_upgrade: bool) -> Result<Response<Body>, UpstreamError> {
        // HTTP/2 has no Upgrade, and hyper tells of a 100 on HTTP/1.1 only.
        let needs_http1 = is_upgrade || expect::expects_continue(request.headers());
        if !needs_http1 && !self.speaks_http1_only.load(Ordering::Relaxed) {
            let target = request.uri().path_and_query().cloned();
            *request.uri_mut() = self.dialer.absolute(target);
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(HOST);
            match self.http2.send(request).await? {
                http2_pool::Outcome::Answered(response) => return Ok(response),
                http2_pool::Outcome::Http1(returned, connection) => {
                    self.speaks_http1_only.store(true, Ordering::Relaxed);
                    self.http1.keep(connection).await;
                    request = returned;
                }
            }
            let target = request.uri().path_and_query().cloned();
            *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        }
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(HOST, self.dialer.host_header());
        body::announce_length(&mut request);
        self.http1.send(expect::hold_until_continue(request), is_upgrade).await
    }
}

/// Whether the answer will come from behind the API server: a 401 then is no word about the agent's token.
fn is_proxied(method: &Method, uri: &Uri) -> bool {
    let info = RequestInfo::parse(method, uri.path(), uri.query());
    info.verb == "proxy" || info.resource.is_some_and(|resource| resource.subresource == "proxy")
}

/// Whether a 401 is the API server's own, which it says in a JSON `Status`; else the answer as it came.
async fn of_api_server(response: Response<Body>) -> Result<(), Box<Response<Body>>> {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json || response.body().size_hint().lower() > STATUS_BYTES_MAX as u64 {
        return Err(Box::new(response));
    }
    let (head, body) = response.into_parts();
    // Longer or broken off, it is no answer to pass on, and as a 401 it says enough.
    let Ok(body) = body::limited(body, STATUS_BYTES_MAX) else { return Ok(()) };
    let Ok(collected) = body.collect().await else { return Ok(()) };
    let bytes = collected.to_bytes();
    match Status::parse(&bytes) {
        Some(status) if status.reason == "Unauthorized" => Ok(()),
        Some(_) | None => Err(Box::new(Response::from_parts(head, body::full(bytes)))),
    }
}

/// The request once more, if it has no body, which the first sending would consume.
fn bodiless_copy(request: &Request<Body>) -> Option<Request<Body>> {
    request.body().is_end_stream().then(|| {
        let mut copy = Request::new(body::empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

/// Opens connections to the target.
struct TargetDialer {
    host: Host,
    target: HostPort,
    tls: Option<ClientTls>,
}

impl TargetDialer {
    /// What the target is believed by, as a number that changes with it: connections from before take no new requests.
    fn trust(&self) -> u64 {
        self.tls.as_ref().map_or(0, ClientTls::n_changes)
    }

    /// A connection, and whether the target chose HTTP/2 on it.
    async fn dial(&self) -> Result<(Connection, bool), UpstreamError> {
        match &self.tls {
            Some(tls) => {
                let connected = tls.connect(self.connect().await?, &self.target.host, Alpn::Http).await;
                let (connection, shown) = connected.map_err(|error| self.unreachable(error))?;
                Ok((connection, shown.is_http2))
            }
            None => Ok((self.connect().await?, false)),
        }
    }

    /// A connection that speaks HTTP/1.1.
    async fn dial_http1(&self) -> Result<Connection, UpstreamError> {
        let connection = self.connect().await?;
        match &self.tls {
            Some(tls) => {
                let connected = tls.connect(connection, &self.target.host, Alpn::Http1).await;
                connected.map(|(connection, _)| connection).map_err(|error| self.unreachable(error))
            }
            None => Ok(connection),
        }
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        self.host.dial(&self.target.host, self.target.port).await.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: io::Error) -> UpstreamError {
        UpstreamError::Unreachable { target: self.target.to_string(), source }
    }

    fn absolute(&self, target: Option<PathAndQuery>) -> Uri {
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = self.target.to_string().parse().ok();
        parts.path_and_query = target.or_else(|| Some(PathAndQuery::from_static("/")));
        Uri::from_parts(parts).unwrap_or_default()
    }

    fn host_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.target.to_string()).unwrap_or(HeaderValue::from_static("kubernetes"))
    }
}
