//! The way of a load to what it asks: dialing, TLS, HTTP/1.1 or HTTP/2, and requests that were put together beforehand.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::payload::Payload;
use crate::task::{TIMEOUT_MS, Way};

/// How long a connection may take, and an answer to begin.
pub(super) const HEAD_MAX: Duration = Duration::from_millis(TIMEOUT_MS);

/// Window of an HTTP/2 stream: 1,000 Mbit/s over 200 ms are 25 MB in flight, so that the caller is never what limits.
const STREAM_WINDOW: u32 = 32 << 20;

/// Window of an HTTP/2 connection: two such streams.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Receive buffer of one who does not read: full at once, so that those before it stall early.
const STALLED_RECEIVE_BUFFER: u32 = 16 << 10;

/// HTTP/2 window of one who does not read: as small as the protocol's own default.
const STALLED_WINDOW: u32 = (64 << 10) - 1;

/// Read buffer of each of very many HTTP/1.1 connections: an answer's head fits.
const MANY_READ_BUFFER: usize = 4 << 10;

/// What stands in a path for the cluster's name.
const CLUSTER: &str = "{cluster}";

/// How much a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// As much as a long link needs.
    Wide,
    /// Little, as there are many.
    Many,
    /// As little as possible, as nobody reads.
    Stalled,
    /// As `Wide`, and whoever lets go of it resets it.
    Reset,
}

/// Opens connections along a [`Way`], and knows how requests are addressed on it.
#[derive(Clone)]
pub(super) struct Dialer {
    address: SocketAddr,
    authority: String,
    scheme: &'static str,
    prefix: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    http2: bool,
    room: Room,
}

impl Dialer {
    pub(super) fn new(way: &Way) -> Result<Self> {
        let (scheme, rest) = way
            .base
            .split_once("://")
            .with_context(|| format!("the base {:?} has no scheme; write http://host:port/prefix or https://…", way.base))?;
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        ensure!(!authority.contains(CLUSTER), "{CLUSTER} stands in the host of {:?}; put it into the path", way.base);
        let scheme = match scheme {
            "http" => "http",
            "https" => "https",
            other => bail!("the base {:?} begins with {other}; write http or https", way.base),
        };
        let (host, _) = authority.rsplit_once(':').with_context(|| format!("no port in {:?}; add one", way.base))?;
        let mut addresses = authority.to_socket_addrs().with_context(|| format!("failed to resolve {authority}"))?;
        let tls = (scheme == "https").then(|| tls(way, host.trim_matches(['[', ']']))).transpose()?;
        Ok(Self {
            address: addresses.next().with_context(|| format!("{authority} has no address"))?,
            authority: authority.to_owned(),
            scheme,
            prefix: prefix.trim_end_matches('/').to_owned(),
            tls,
            http2: way.http2,
            room: Room::Wide,
        })
    }

    /// For upgrades, which HTTP/2 does not have, whatever the way says.
    pub(super) fn for_upgrades(way: &Way) -> Result<Self> {
        Self::new(&Way { http2: false, ..way.clone() })
    }

    /// For very many connections at once.
    pub(super) fn for_many(self) -> Self {
        Self { room: Room::Many, ..self }
    }

    /// For callers that do not read what they asked for.
    pub(super) fn for_stalled(self) -> Self {
        Self { room: Room::Stalled, ..self }
    }

    /// For callers that leave with a reset.
    pub(super) fn for_resets(self) -> Self {
        Self { room: Room::Reset, ..self }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// A GET of `path`, for the named cluster where the way or the path leads to many.
    pub(super) fn get(&self, path: &str, cluster: &str) -> Result<Ask> {
        self.ask(Method::GET, path, cluster)
    }

    pub(super) fn post(&self, path: &str) -> Result<Ask> {
        self.ask(Method::POST, path, "")
    }

    /// A GET of `path` that asks for raw bytes in both directions.
    pub(super) fn upgrade(&self, path: &str) -> Result<Ask> {
        Ok(self.get(path, "")?.with(CONNECTION, "Upgrade").with(UPGRADE, "websocket"))
    }

    fn ask(&self, method: Method, path: &str, cluster: &str) -> Result<Ask> {
        let path = format!("{}{path}", self.prefix).replace(CLUSTER, cluster);
        // HTTP/2 makes `:scheme` and `:authority` of an absolute URI; HTTP/1.1 sends the path and a Host header.
        let uri = if self.http2 { format!("{}://{}{path}", self.scheme, self.authority) } else { path };
        let uri: Uri = uri.parse().with_context(|| format!("{uri:?} is no URI"))?;
        let mut headers = HeaderMap::new();
        if !self.http2 {
            headers.insert(HOST, HeaderValue::from_str(&self.authority)?);
        }
        Ok(Ask { method, uri, headers })
    }

    /// Opens a connection and drives it in a task of its own.
    pub(super) async fn dial(&self) -> Result<Sender> {
        timeout(HEAD_MAX, self.open())
            .await
            .map_err(|_| anyhow!("timed out"))
            .and_then(|opened| opened)
            .with_context(|| format!("failed to connect to {}", self.authority))
    }

    async fn open(&self) -> Result<Sender> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.room == Room::Stalled {
            socket.set_recv_buffer_size(STALLED_RECEIVE_BUFFER)?;
        }
        if self.room == Room::Reset {
            socket.set_zero_linger()?;
        }
        let tcp: TcpStream = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let Some((config, name)) = &self.tls else { return self.shake_hands(tcp).await };
        let tls = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await?;
        let alpn = tls.get_ref().1.alpn_protocol();
        ensure!(!self.http2 || alpn == Some(b"h2"), "the other side does not speak h2; set http2 to false");
        self.shake_hands(tls).await
    }

    async fn shake_hands(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender> {
        let io = TokioIo::new(io);
        if self.http2 {
            let stalled = self.room == Room::Stalled;
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .adaptive_window(false)
                .initial_stream_window_size(if stalled { STALLED_WINDOW } else { STREAM_WINDOW })
                .initial_connection_window_size(if stalled { STALLED_WINDOW } else { CONNECTION_WINDOW })
                .handshake(io)
                .await?;
            tokio::spawn(connection);
            return Ok(Sender::Http2(sender));
        }
        let mut builder = http1::Builder::new();
        if matches!(self.room, Room::Many | Room::Stalled) {
            builder.read_buf_exact_size(Some(MANY_READ_BUFFER));
        }
        let (sender, connection) = builder.handshake(io).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Sender::Http1(sender))
    }
}

fn tls(way: &Way, host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let path = way.ca.as_deref().context("an https base needs `ca`, a PEM file")?;
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(path).with_context(|| format!("failed to read the CA {path}"))? {
        roots.add(cert.with_context(|| format!("{path} is no PEM file"))?)?;
    }
    ensure!(!roots.is_empty(), "{path} holds no certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if way.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no name of a server"))?;
    Ok((Arc::new(config), name))
}

/// A request, put together once and sent often.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Ask {
    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    pub(super) fn request(&self, payload: Payload) -> Request<Payload> {
        let mut request = Request::new(payload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        request
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// The sending end of one connection.
pub(super) enum Sender {
    Http1(http1::SendRequest<Payload>),
    /// Many requests at once may be sent by clones.
    Http2(http2::SendRequest<Payload>),
}

impl Sender {
    /// Another sender on the same connection, where the protocol has that.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Waits until the connection takes a request; false if it is gone.
    pub(super) async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends and waits for the head of the answer, whatever its status and however long.
    async fn send(&mut self, ask: &Ask, payload: Payload) -> Result<Response<Incoming>> {
        let request = ask.request(payload);
        Ok(match self {
            Self::Http1(sender) => sender.send_request(request).await?,
            Self::Http2(sender) => sender.send_request(request).await?,
        })
    }

    /// As [`Self::send`]; only a success will do.
    pub(super) async fn send_for_success(&mut self, ask: &Ask, payload: Payload) -> Result<Response<Incoming>> {
        let response = self.send(ask, payload).await?;
        ensure!(response.status().is_success(), "{} answered {}", ask.uri().path(), response.status());
        Ok(response)
    }

    /// Asks without a body; the head of an answer that is a success, if it comes in time.
    pub(super) async fn fetch(&mut self, ask: &Ask) -> Result<Response<Incoming>> {
        timeout(HEAD_MAX, self.send_for_success(ask, Payload::none())).await.map_err(|_| anyhow!("no answer in time"))?
    }

    /// Turns the connection into raw bytes.
    pub(super) async fn switch(mut self, ask: &Ask) -> Result<TokioIo<Upgraded>> {
        let sent = timeout(HEAD_MAX, self.send(ask, Payload::none())).await;
        let response = sent.map_err(|_| anyhow!("no answer in time"))??;
        let status = response.status();
        ensure!(status == StatusCode::SWITCHING_PROTOCOLS, "{} answered {status}, not 101", ask.uri().path());
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }
}

/// One who asks on a connection of its own and opens another when that one is gone.
pub(super) struct Caller {
    dialer: Dialer,
    sender: Option<Sender>,
}

impl Caller {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, sender: None }
    }

    /// One that begins on a connection that is open already.
    pub(super) fn on(dialer: Dialer, sender: Sender) -> Self {
        Self { dialer, sender: Some(sender) }
    }

    /// Asks and reads the whole answer, which is to be a success; its bytes.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<u64> {
        let (head, bytes) = self.exchange(ask).await?;
        ensure!(head.status.is_success(), "{} answered {}", ask.uri().path(), head.status);
        Ok(bytes)
    }

    /// Asks and reads the whole answer, whatever its status: its head, and the bytes of its body.
    pub(super) async fn exchange(&mut self, ask: &Ask) -> Result<(Parts, u64)> {
        // What came of an answer that broke off is of no use, and neither is its connection: it is put back only at the end.
        let whole = async {
            let mut sender = self.connect().await?;
            let (head, body) = sender.send(ask, Payload::none()).await?.into_parts();
            let bytes = read_whole(body).await?;
            self.sender = Some(sender);
            Ok((head, bytes))
        };
        timeout(HEAD_MAX, whole).await.map_err(|_| anyhow!("no whole answer in time"))?
    }

    /// A kept connection that was closed meanwhile is no failure; a new one takes its time, which counts.
    async fn connect(&mut self) -> Result<Sender> {
        if let Some(mut kept) = self.sender.take()
            && kept.is_ready().await
        {
            return Ok(kept);
        }
        self.dialer.dial().await
    }
}

/// Counts what comes and lets go of it; an answer that breaks off is an error.
pub(super) async fn read_whole(mut body: Incoming) -> Result<u64> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.context("the answer broke off")?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}
