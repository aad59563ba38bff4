//! The front door: where callers arrive. TLS or plain by the first byte, HTTP/1.1 or HTTP/2, then route and forward.

mod fragment;
mod idleness;
mod lent;
mod listing;
pub(crate) mod refusal;
mod route;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::certificate::PeerCertificate;
use host::tls::ServerTls;
use host::{Arrival, Connection, Drain, Host, Late, Source, TrustedProxies};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use proxy::body::{Body, BoxError};
use proxy::head::{HEAD_BUFFER, HEAD_FIELDS_MAX, HEAD_LIST_MAX};
use proxy::hygiene;
use tokio::sync::watch;
use tokio::time::timeout;
use tunnel::id::ClusterId;

use crate::admin::{self, Admin};
use crate::auth::TokenDigest;
use crate::callers::{Callers, Need, Presented, Shown};
use crate::config::InternalTls;
use crate::forward::{ANONYMOUS, Caller, Forward};
use crate::limits::Guesses;
use crate::overview::{self, Overview};
use crate::roster::Roster;
use fragment::Watched;
use idleness::{Counting, Streams};
pub(crate) use lent::Lent;
use refusal::Refusal;
pub(crate) use route::Routes;

/// Streams of one HTTP/2 connection: Argo CD's 150 watches, its lists beside them, and room.
const H2_STREAMS_MAX: u32 = 500;

/// What an HTTP/2 caller may send on one stream unasked.
const H2_STREAM_WINDOW: u32 = 64 * 1024;

/// All streams of a connection at once: stalled uploads never wedge their neighbours.
const H2_CONNECTION_WINDOW: u32 = H2_STREAMS_MAX * H2_STREAM_WINDOW;

/// Bytes of an answer that one HTTP/2 stream may hold on its way out.
const H2_SEND_BUFFER: usize = 64 * 1024;

/// How long a head may take to come, and a first byte: a slow link needs seconds, an attacker takes for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be idle between requests: longer than the 90 s of Go's client, so that it is the
/// caller who closes, and never a request that meets a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP/2 caller from which nothing comes is pinged after this, and given up after [`H2_PING_TIMEOUT`] more: watches
/// of a caller that lost its power end then.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A TLS handshake record begins with this byte (RFC 8446 section 5.1), an HTTP request never does.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves callers' connections.
pub(crate) struct FrontDoor {
    pub(crate) host: Host,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) internal_tls: InternalTls,
    pub(crate) roster: Arc<Roster>,
    pub(crate) callers: Arc<Callers>,
    pub(crate) forward: Arc<Forward>,
    /// Tells how clusters stand, to those who may reach them.
    pub(crate) overview: Overview,
    /// Serves health and metrics here too, unless they have a listener of their own.
    pub(crate) admin: Option<Arc<Admin>>,
    pub(crate) drain: Drain,
    pub(crate) proxies: TrustedProxies,
    pub(crate) guesses: Guesses,
    pub(crate) lent: Lent,
}

impl FrontDoor {
    /// Serves one connection until it ends; when the drain starts it finishes what runs.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection, arrival: Arrival) {
        let (peer, late) = (connection.peer(), arrival.late());
        let (connection, certificate) = match self.secure(connection).await {
            Ok(Some(secured)) => secured,
            Ok(None) => return,
            Err(error) => {
                tracing::info!(%peer, %error, "a caller's connection was not taken");
                return;
            }
        };
        let arrived = Arrived { peer, arrival, certificate: certificate.map(|certificate| Arc::new(Shown::new(certificate))) };
        let (connection, fragments) = Watched::new(connection);
        let (asks, asked) = watch::channel(false);
        let service = {
            let front_door = self.clone();
            service_fn(move |request: Request<Incoming>| {
                asks.send_replace(true);
                let (front_door, arrived) = (front_door.clone(), arrived.clone());
                let was_cut = fragments.was_cut(request.method(), request.uri());
                async move { Ok::<_, Infallible>(front_door.answer(&arrived, request, was_cut).await) }
            })
        };
        let served = self.converse(connection, service, late, asked.clone());
        // A client that begins a head, a preface or a handshake and goes no further holds no place.
        let silent = async {
            tokio::time::sleep(HEAD_TIMEOUT).await;
            if *asked.borrow() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            ended = served => if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a caller's connection ended");
            },
            () = silent => tracing::info!(%peer, "a caller's connection was closed: no request came"),
        }
    }

    async fn converse<S, F>(
        &self,
        connection: Watched,
        service: S,
        late: Late,
        mut asked: watch::Receiver<bool>,
    ) -> Result<(), BoxError>
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F>,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let mut drain = self.drain.clone();
        let streams = Arc::<Streams>::default();
        let builder = builder(&self.host, &streams);
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(connection), service));
        let has_to_go = async {
            match late {
                Late::No => drain.started().await,
                // Who came late is told so once, and is not kept: a `Connection: close` says nothing over HTTP/2.
                Late::Draining | Late::Crowded => {
                    // An error would say that the service, which the connection holds, is gone.
                    let _ = asked.wait_for(|asked| *asked).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = has_to_go => {}
            () = streams.idle() => {}
            ended = connection.as_mut() => return ended,
        }
        connection.as_mut().graceful_shutdown();
        // Who does not say that it has heard is given up as one that answers no ping.
        connection.await
    }

    /// The connection behind its TLS, if it has any, and whose certificate came with it; none when the peer said nothing.
    async fn secure(&self, mut connection: Connection) -> std::io::Result<Option<(Connection, Option<PeerCertificate>)>> {
        let first = timeout(HEAD_TIMEOUT, connection.first_byte()).await.map_err(std::io::Error::other)??;
        match (&self.tls, self.internal_tls) {
            (_, _) if first.is_none() => Ok(None),
            (None, _) | (_, InternalTls::Off) => Ok(Some((connection, None))),
            (Some(tls), InternalTls::Optional) if first == Some(TLS_HANDSHAKE) => tls.accept(connection).await.map(Some),
            (Some(_), InternalTls::Optional) => Ok(Some((connection, None))),
            (Some(tls), InternalTls::Require) => tls.accept(connection).await.map(Some),
        }
    }

    async fn answer(&self, arrived: &Arrived, request: Request<Incoming>, was_cut: bool) -> Response<Body> {
        if request.uri().path() == overview::PATH {
            return self.list(arrived, request).await;
        }
        if !Routes::is_tunnel(request.uri()) {
            return match &self.admin {
                // Health is short, and must not wait behind those who do not read.
                Some(admin) if request.uri().path() == admin::METRICS_PATH => {
                    self.lent.answer(&self.host, Source::of(arrived.peer.ip()), || admin.answer(&request))
                }
                Some(admin) => admin.answer(&request),
                None => proxy::plain::not_found(),
            };
        }
        let routed = match was_cut {
            true => Err(Refusal::Fragment),
            false if self.is_anothers_page(&request) => Err(Refusal::CrossSite),
            false => self.roster.route(request.uri()),
        };
        let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
        let routed = routed.map(|(cluster, target)| {
            *request.uri_mut() = target.into();
            cluster
        });
        let peer = self.proxies.client(arrived.peer, request.headers());
        let mut caller = Caller { peer, name: ANONYMOUS.into(), admission: None };
        let asked_for = routed.as_ref().ok().map(ToString::to_string).unwrap_or_default();
        // Before a word about the server's own state, which would tell a cluster that is there from one that is not.
        let (refusal, delay) = match self.admit(arrived.certificate.as_ref(), &mut caller, &request, routed) {
            Ok(cluster) => match arrived.arrival.late() {
                _ if self.drain.is_started() => (Refusal::Draining, Duration::ZERO),
                Late::Draining => (Refusal::Draining, Duration::ZERO),
                Late::Crowded => (Refusal::Crowded, Duration::ZERO),
                Late::No => {
                    // Not sooner: whoever asks for nothing but health, or is told "no", must not hold a place for ever.
                    arrived.arrival.settle();
                    return self.forward.forward(&caller, &cluster, request).await;
                }
            },
            Err(refused) => refused,
        };
        let record = self.forward.record(&caller, &asked_for, &request);
        let answer = self.forward.refuse(refusal, record);
        // Behind its record: who leaves meanwhile was here all the same.
        tokio::time::sleep(delay).await;
        answer
    }

    /// Whether a page of another site has a browser ask, by nothing but what a browser lets anybody use. A token that is
    /// looked at is no such thing: the page must know it.
    fn is_anothers_page(&self, request: &Request<Incoming>) -> bool {
        let (headers, authority) = (request.headers(), request.uri().authority().map(http::uri::Authority::as_str));
        let has_token = || headers.contains_key(AUTHORIZATION) || hygiene::websocket_tokens(headers).next().is_some();
        hygiene::is_cross_site(authority, headers) && !(self.callers.know_tokens() && has_token())
    }

    /// Finds out who asks, and whether the request may go on to its cluster; if not, for how long the "no" has to wait.
    fn admit(
        &self,
        certificate: Option<&Arc<Shown>>,
        caller: &mut Caller,
        request: &Request<Body>,
        routed: Result<ClusterId, Refusal>,
    ) -> Result<ClusterId, (Refusal, Duration)> {
        if !self.callers.judges(certificate) {
            return routed.map_err(|refusal| (refusal, Duration::ZERO));
        }
        let presented = Presented::by(caller.peer.ip(), certificate.cloned(), request.headers());
        let token = presented.tokens.first().copied();
        let (name, admitted) = self.callers.admit(presented, routed, &Need::of(request));
        caller.name = name;
        let (cluster, admission) = admitted.map_err(|refusal| {
            let delay = self.delay_of(&refusal, caller.peer, token);
            (refusal, delay)
        })?;
        caller.admission = Some(admission);
        Ok(cluster)
    }

    /// Counts a failed authentication; for how long the "no" has to wait.
    fn delay_of(&self, refusal: &Refusal, peer: SocketAddr, token: Option<TokenDigest>) -> Duration {
        if !refusal.is_of_identity() {
            return Duration::ZERO;
        }
        self.forward.metrics.auth_failed("tunnel");
        token.map(|token| self.guesses.failed(self.proxies.source(peer.ip()), &token)).unwrap_or_default()
    }
}

/// What is known of a connection before its first request.
#[derive(Clone)]
struct Arrived {
    peer: SocketAddr,
    arrival: Arrival,
    certificate: Option<Arc<Shown>>,
}

fn builder(host: &Host, streams: &Arc<Streams>) -> auto::Builder<Counting> {
    let mut builder = auto::Builder::new(Counting { tasks: host.tasks().clone(), streams: streams.clone() });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(HEAD_FIELDS_MAX)
        .max_buf_size(HEAD_BUFFER)
        .auto_date_header(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_header_list_size(HEAD_LIST_MAX)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .auto_date_header(false);
    builder
}
