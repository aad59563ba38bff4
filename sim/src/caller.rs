//! Who stands at the front door: an HTTP client over the fabric, with a pool of connections like a Go client's.

mod answer;
mod ledger;

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use host::Host;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

pub use answer::{Answer, Measured};
pub(crate) use ledger::{Ending, Entry, Ledger};

use crate::trace::Trace;

/// What Go's HTTP/2 transport grants (`transportDefaultStreamFlow`, `transportDefaultConnFlow`).
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

/// What Go's client takes of an answer's head (`DefaultMaxHeaderBytes` of a transport, 10 MiB), and fields without end.
const HEAD_BYTES_MAX: u32 = 10 << 20;
const HEADERS_MAX: usize = 4096;

/// One piece of a generated upload.
const UPLOAD_CHUNK: usize = 64 * 1024;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How a caller speaks to the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, a connection for each request that runs.
    Http1,
    /// HTTP/2 by prior knowledge, one connection for all.
    Http2,
}

/// A caller. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Caller {
    name: &'static str,
    host: Host,
    port: u16,
    protocol: Protocol,
    pool: Arc<Mutex<Pool>>,
    trace: Trace,
    is_quiet: bool,
    ledger: Ledger,
}

#[derive(Default)]
struct Pool {
    idle: Vec<http1::SendRequest<Body>>,
    shared: Option<http2::SendRequest<Body>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What followed the body.
    pub trailers: HeaderMap,
    /// From the question to the last byte.
    pub took: Duration,
}

impl Reply {
    /// The body as text, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails with the body's words unless the status is `wanted`.
    pub fn expect(self, wanted: StatusCode) -> anyhow::Result<Self> {
        anyhow::ensure!(self.status == wanted, "expected {wanted}, got {}: {}", self.status, self.text());
        Ok(self)
    }
}

impl Caller {
    pub(crate) fn new(name: &'static str, host: Host, port: u16, protocol: Protocol, trace: Trace, ledger: Ledger) -> Self {
        Self { name, host, port, protocol, pool: Arc::default(), trace, is_quiet: false, ledger }
    }

    /// The same caller, unheard in the transcript: for looks that are no part of the story.
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    /// The same caller on fresh connections of another protocol.
    pub fn over(&self, protocol: Protocol) -> Self {
        Self { protocol, pool: Arc::default(), ..self.clone() }
    }

    /// GET `path` of a cluster.
    pub fn get(&self, cluster: &str, path: &str) -> Call {
        self.request(Method::GET, &format!("/tunnel/{cluster}{path}"))
    }

    /// POST to `path` of a cluster.
    pub fn post(&self, cluster: &str, path: &str, body: impl Into<Bytes>) -> Call {
        self.request(Method::POST, &format!("/tunnel/{cluster}{path}")).body(body)
    }

    /// Any request to the front door, its target as it is written on the wire.
    pub fn request(&self, method: Method, target: &str) -> Call {
        let body = Full::new(Bytes::new()).boxed_unsync();
        Call { caller: self.clone(), method, target: target.to_owned(), headers: HeaderMap::new(), body }
    }

    /// A connection to the front door, for bytes that no client library would send.
    pub async fn dial(&self) -> anyhow::Result<host::Connection> {
        self.host.dial("hub", self.port).await.context("the hub cannot be dialled")
    }

    /// Sends on an idle connection or a fresh one. A request that was not sent because the idle one closed at that
    /// moment goes out again, as Go's does (`errServerClosedIdle`).
    async fn send_http1(&self, mut request: Request<Body>) -> anyhow::Result<(Response<Incoming>, http1::SendRequest<Body>)> {
        while let Some(mut idle) = { self.pool().idle.pop() } {
            if !idle.is_ready() {
                continue;
            }
            match idle.try_send_request(request).await {
                Ok(answer) => return Ok((answer, idle)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut fresh = self.http1().await?;
        Ok((fresh.send_request(request).await?, fresh))
    }

    async fn http1(&self) -> anyhow::Result<http1::SendRequest<Body>> {
        let (sender, connection) =
            http1::Builder::new().max_headers(HEADERS_MAX).handshake(TokioIo::new(self.dial().await?)).await?;
        self.host.spawn("caller connection", async move {
            // How it ended, the requests on it are told.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    async fn http2(&self) -> anyhow::Result<http2::SendRequest<Body>> {
        if let Some(shared) = self.pool().shared.clone().filter(|shared| !shared.is_closed()) {
            return Ok(shared);
        }
        let mut builder = http2::Builder::new(self.host.tasks().clone());
        builder.timer(TokioTimer::new()).initial_stream_window_size(STREAM_WINDOW_BYTES);
        builder.initial_connection_window_size(CONNECTION_WINDOW_BYTES).max_header_list_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(self.dial().await?)).await?;
        self.host.spawn("caller connection", async move {
            // How it ended, the requests on it are told.
            let _ = connection.await;
        });
        self.pool().shared = Some(sender.clone());
        Ok(sender)
    }

    fn tell(&self, what: String) {
        if !self.is_quiet {
            self.trace.tell(self.name, what);
        }
    }

    fn give_back(&self, sender: http1::SendRequest<Body>) {
        self.pool().idle.push(sender);
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not sent yet. Awaiting it collects the whole answer.
#[must_use = "a call does nothing until it is awaited or opened"]
pub struct Call {
    caller: Caller,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Body,
}

impl Call {
    /// Adds a header field.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// A body of known length.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).boxed_unsync();
        self
    }

    /// A body of `n` generated bytes, sent in chunks.
    pub fn upload(mut self, n: usize) -> Self {
        let chunk = Bytes::from(vec![b'u'; UPLOAD_CHUNK]);
        let chunks = (0..n.div_ceil(UPLOAD_CHUNK)).map(move |i| {
            let len = UPLOAD_CHUNK.min(n - i * UPLOAD_CHUNK);
            Ok(Frame::data(chunk.slice(..len)))
        });
        self.body = StreamBody::new(stream::iter(chunks)).boxed_unsync();
        self
    }

    /// Sends it and waits for the head of the answer; the body is the caller's to read.
    pub async fn open(self) -> anyhow::Result<Answer> {
        let asked_at = Instant::now();
        let what = format!("{} {}", self.method, self.target);
        let caller = self.caller.clone();
        caller.tell(what.clone());
        let opened = match caller.protocol {
            Protocol::Http1 => caller.send_http1(self.into_http1()).await.map(|(answer, sender)| (answer, Some(sender))),
            Protocol::Http2 => {
                let mut sender = caller.http2().await?;
                sender.send_request(self.into_http2()).await.map(|answer| (answer, None)).map_err(Into::into)
            }
        };
        match opened {
            Ok((answer, sender)) => {
                caller.tell(format!("{} {what}", answer.status()));
                Ok(Answer::new(caller, what, asked_at, answer, sender))
            }
            Err(error) => {
                caller.tell(format!("{what}: {error:#}"));
                Err(error.context(format!("{what} got no answer")))
            }
        }
    }

    /// Asks for another protocol (always over HTTP/1.1); the bytes after the 101, both ways.
    ///
    /// # Errors
    /// An answer other than 101, with its body's words.
    pub async fn upgrade(mut self, protocol: &'static str) -> anyhow::Result<TokioIo<Upgraded>> {
        self.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        self.headers.insert(UPGRADE, HeaderValue::from_static(protocol));
        let what = format!("{} {} upgrade {protocol}", self.method, self.target);
        let caller = self.caller.clone();
        caller.tell(what.clone());
        let mut sender = caller.http1().await?;
        let answer = sender.send_request(self.into_http1()).await.with_context(|| format!("{what} got no answer"))?;
        caller.tell(format!("{} {what}", answer.status()));
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            let words = answer.into_body().collect().await?.to_bytes();
            anyhow::bail!("{what} got {status}: {}", String::from_utf8_lossy(&words));
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
    }

    fn into_http1(self) -> Request<Body> {
        let host = format!("hub:{}", self.caller.port);
        let mut request = Request::builder().method(self.method).uri(self.target).body(self.body).expect("a good request target");
        *request.headers_mut() = self.headers;
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_str(&host).expect("a good authority"));
        request
    }

    fn into_http2(self) -> Request<Body> {
        let uri = format!("http://hub:{}{}", self.caller.port, self.target);
        let mut request = Request::builder().method(self.method).uri(uri).body(self.body).expect("a good request target");
        *request.headers_mut() = self.headers;
        request
    }
}

impl IntoFuture for Call {
    type Output = anyhow::Result<Reply>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.open().await?.reply().await })
    }
}
