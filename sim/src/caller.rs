//! Who stands at the front door: an HTTP client over the fabric, with a pool of connections like a Go client's.

mod answer;
mod client_go;
mod expected;
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
use host::tls::{Alpn, ClientFiles, ClientTls};
use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
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
use ledger::Asking;
pub(crate) use ledger::{Asked, Book, End, Ending, Entry, Ledger};

use crate::apiserver::{MARK, pattern};
use crate::checkers::credentials::callers_token;
use crate::pki;
use crate::trace::Trace;
use expected::{Expected, Sent};

/// What Go's HTTP/2 transport grants (`transportDefaultStreamFlow`, `transportDefaultConnFlow`).
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

/// When client-go pings a silent HTTP/2 connection (`HTTP2_READ_IDLE_TIMEOUT_SECONDS`), and when it gives it up
/// (`HTTP2_PING_TIMEOUT_SECONDS`).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// What Go's client takes of an answer's head (`DefaultMaxHeaderBytes` of a transport, 10 MiB), and fields without end.
const HEAD_BYTES_MAX: u32 = 10 << 20;
const HEADERS_MAX: usize = 4096;

/// One piece of a generated upload: a multiple of the pattern's period near 64 KiB.
const UPLOAD_CHUNK: usize = 256 * 251;

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
    /// The hub's name.
    hub: Arc<str>,
    port: u16,
    protocol: Protocol,
    pool: Arc<Mutex<Pool>>,
    trace: Trace,
    is_quiet: bool,
    ledger: Ledger,
    /// What it presents as a bearer.
    token: Option<Arc<str>>,
    tls: Option<Arc<ClientTls>>,
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
        let token = Some(callers_token(name).into());
        let hub = "hub".into();
        Self { name, host, hub, port, protocol, pool: Arc::default(), trace, is_quiet: false, ledger, token, tls: None }
    }

    /// The same caller at a hub of another name.
    pub(crate) fn at(mut self, hub: &str) -> Self {
        self.hub = hub.into();
        self
    }

    /// The same caller, unheard in the transcript: for looks that are no part of the story.
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// It saw something that cannot be: fails the world.
    pub(crate) fn found(&self, finding: String) {
        self.ledger.found(finding);
    }

    /// The same caller on fresh connections.
    pub fn anew(&self) -> Self {
        self.over(self.protocol)
    }

    /// The same caller on fresh connections of another protocol.
    pub fn over(&self, protocol: Protocol) -> Self {
        Self { protocol, pool: Arc::default(), ..self.clone() }
    }

    /// The same caller with another token, or without any.
    pub fn bearing(&self, token: Option<&str>) -> Self {
        Self { token: token.map(Into::into), ..self.anew() }
    }

    /// The same caller over TLS, with the certificate that its machine has, if it has one.
    ///
    /// # Errors
    /// If the machine's files hold nothing usable.
    pub fn over_tls(&self) -> anyhow::Result<Self> {
        let identity = self.host.read_file(pki::CERT).is_ok().then(|| (pki::CERT.to_owned(), pki::KEY.to_owned()));
        let files = ClientFiles { ca: Some(pki::CA.to_owned()), identity, insecure: false };
        let tls = ClientTls::new(&self.host, "caller", files)?;
        Ok(Self { tls: Some(Arc::new(tls)), ..self.anew() })
    }

    /// GET `path` of a cluster.
    pub fn get(&self, cluster: &str, path: &str) -> Call {
        self.request(Method::GET, &format!("/tunnel/{cluster}{path}"))
    }

    /// POST to `path` of a cluster.
    pub fn post(&self, cluster: &str, path: &str, body: impl Into<Bytes>) -> Call {
        self.request(Method::POST, &format!("/tunnel/{cluster}{path}")).body(body)
    }

    /// Any request to the front door, its target as it is written on the wire. It presents a credential of the caller's own,
    /// which must not go further.
    pub fn request(&self, method: Method, target: &str) -> Call {
        let body = Full::new(Bytes::new()).boxed_unsync();
        let credential = self.token.iter().map(|token| format!("Bearer {token}").parse().expect("a header value"));
        let headers = credential.map(|credential| (AUTHORIZATION, credential)).collect();
        let sent = Sent::Whole(Bytes::new());
        Call { caller: self.clone(), method, target: target.to_owned(), headers, body, sent, write: None }
    }

    /// A connection to the front door, for bytes that no client library would send.
    pub async fn dial(&self) -> anyhow::Result<host::Connection> {
        self.dial_at(self.port).await
    }

    /// The same to another port of the hub.
    pub async fn dial_at(&self, port: u16) -> anyhow::Result<host::Connection> {
        self.host.dial(&self.hub, port).await.context("the hub cannot be dialled")
    }

    /// A connection to the front door, behind TLS if the caller has it.
    async fn dial_secure(&self, alpn: Alpn) -> anyhow::Result<host::Connection> {
        let connection = self.dial().await?;
        match &self.tls {
            Some(tls) => Ok(tls.connect(connection, &self.hub, alpn).await?.0),
            None => Ok(connection),
        }
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

    /// Like [`Caller::send_http1`]: what was not sent goes out on the next connection.
    async fn send_http2(&self, mut request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        loop {
            match self.http2().await?.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
    }

    async fn http1(&self) -> anyhow::Result<http1::SendRequest<Body>> {
        let connection = self.dial_secure(Alpn::Http1).await?;
        let (sender, connection) = http1::Builder::new().max_headers(HEADERS_MAX).handshake(TokioIo::new(connection)).await?;
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
        builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
        let (sender, connection) = builder.handshake(TokioIo::new(self.dial_secure(Alpn::Http).await?)).await?;
        self.host.spawn("caller connection", async move {
            // How it ended, the requests on it are told.
            let _ = connection.await;
        });
        self.pool().shared = Some(sender.clone());
        Ok(sender)
    }

    pub(crate) fn tell(&self, what: String) {
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
    sent: Sent,
    write: Option<u64>,
}

impl Call {
    /// Adds a header field.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// A body of known length.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        self.sent = Sent::Whole(body.clone());
        self.body = Full::new(body).boxed_unsync();
        self
    }

    /// A body of `n` bytes of [`pattern`], sent in chunks.
    pub fn upload(mut self, n: usize) -> Self {
        self.sent = Sent::Generated(n);
        let chunk: Bytes = (0..UPLOAD_CHUNK as u64).map(pattern).collect();
        let chunks = (0..n.div_ceil(UPLOAD_CHUNK)).map(move |i| {
            let len = UPLOAD_CHUNK.min(n - i * UPLOAD_CHUNK);
            Ok(Frame::data(chunk.slice(..len)))
        });
        self.body = StreamBody::new(stream::iter(chunks)).boxed_unsync();
        self
    }

    /// Sends it and waits for the head of the answer; the body is the caller's to read.
    pub async fn open(mut self) -> anyhow::Result<Answer> {
        let asked_at = Instant::now();
        let what = format!("{} {}", self.method, self.target);
        let caller = self.caller.clone();
        caller.tell(what.clone());
        let asking = self.ask();
        let (method, target, sent) = (self.method.clone(), self.target.clone(), self.sent.clone());
        let opened = match caller.protocol {
            Protocol::Http1 => caller.send_http1(self.into_http1()).await.map(|(answer, sender)| (answer, Some(sender))),
            Protocol::Http2 => caller.send_http2(self.into_http2()).await.map(|answer| (answer, None)),
        };
        match opened {
            Ok((answer, sender)) => {
                asking.answered(answer.status());
                caller.tell(format!("{} {what}", answer.status()));
                let expected = match method {
                    Method::HEAD => Expected::Anything,
                    _ => Expected::of(&target, answer.status(), sent),
                };
                Ok(Answer::new(caller, asking.id, what, asked_at, expected, answer, sender))
            }
            Err(error) => {
                asking.failed();
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
        let asked_at = Instant::now();
        let what = format!("{} {} upgrade {protocol}", self.method, self.target);
        let caller = self.caller.clone();
        caller.tell(what.clone());
        let asking = self.ask();
        let sending = async { Ok::<_, anyhow::Error>(caller.http1().await?.send_request(self.into_http1()).await?) };
        let answer = sending.await.inspect_err(|_| asking.failed()).with_context(|| format!("{what} got no answer"))?;
        asking.answered(answer.status());
        caller.tell(format!("{} {what}", answer.status()));
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let refused =
                Answer::new(caller, asking.id, what.clone(), asked_at, Expected::Anything, answer, None).reply().await?;
            anyhow::bail!("{what} got {}: {}", refused.status, refused.text());
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
    }

    /// Notes that it is sent, and marks it, so that the far end can say what became of it.
    fn ask(&mut self) -> Asking {
        let asking = self.caller.ledger.ask(&self.method, &self.target, self.write);
        self.headers.insert(HeaderName::from_static(MARK), asking.id.into());
        asking
    }

    fn into_http1(self) -> Request<Body> {
        let host = format!("{}:{}", self.caller.hub, self.caller.port);
        let mut request = Request::builder().method(self.method).uri(self.target).body(self.body).expect("a good request target");
        *request.headers_mut() = self.headers;
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_str(&host).expect("a good authority"));
        request
    }

    fn into_http2(self) -> Request<Body> {
        let uri = format!("http://{}:{}{}", self.caller.hub, self.caller.port, self.target);
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
