//! One request: find a session, open a stream, send the head at once, pump both ways, account.
//!
//! `forward` is the one way through: whoever calls it has already said who asks (Caller) and for what (ClusterId).

mod answer;
mod ask;
mod exchange;
mod linger;
mod upgrade;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use host::{Host, SpanKind, Tracer};
use http::header::{CONNECTION, EXPECT, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use proxy::audit::Log;
use proxy::body::{self, Body, BoxError};
use proxy::upgrade::{decline, may_switch};
use proxy::{expect, hygiene, traces, trailers};
use tunnel::frame::Open;
use tunnel::id::ClusterId;
use tunnel::{OpenError, StreamError, TunnelStream};

use crate::callers::Admission;
use crate::config::ServerConfig;
use crate::front_door::refusal::Refusal;
use crate::limits::RequestLimits;
use crate::metrics::Metrics;
use crate::registry::{Absent, Registry};
use crate::roster::Roster;
pub(crate) use answer::Record;
pub(crate) use ask::ask;
use exchange::{Alive, exchange};

/// Sessions that are asked for one request at most: each may drain, or turn out full, since it was chosen.
const PLACES_MAX: usize = 3;

/// What who is not known is called; no caller has this name.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// Who asks.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The address it came from.
    pub(crate) peer: SocketAddr,
    /// Its name in the callers file, or [`ANONYMOUS`]: of a bounded set.
    pub(crate) name: Arc<str>,
    /// What its request was let in by, where there is such a file.
    pub(crate) admission: Option<Admission>,
}

impl Caller {
    /// What the agent is told: nothing of who is not known.
    fn told_name(&self) -> String {
        if &*self.name == ANONYMOUS { String::new() } else { self.name.to_string() }
    }
}

/// Forwards requests through sessions.
pub(crate) struct Forward {
    host: Host,
    registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    tracer: Tracer,
    audit: Option<Arc<Log>>,
    limits: RequestLimits,
    body_max: usize,
    upload_idle_max: Option<Duration>,
    header_timeout: Option<Duration>,
    roster: Arc<Roster>,
}

impl Forward {
    pub(crate) fn new(
        config: &ServerConfig,
        host: Host,
        parts: (Arc<Roster>, Arc<Registry>, Arc<Metrics>, Tracer),
        audit: Option<Arc<Log>>,
    ) -> Self {
        let (roster, registry, metrics, tracer) = parts;
        Self {
            host,
            roster,
            registry,
            metrics,
            tracer,
            audit,
            limits: RequestLimits::new(config),
            body_max: config.request_body_max,
            upload_idle_max: config.upload_idle_max,
            header_timeout: config.response_header_timeout,
        }
    }

    /// Serves one request whose URI is the API server's own path and query. Every "no" is an answer too.
    pub(crate) async fn forward(&self, caller: &Caller, cluster: &ClusterId, mut request: Request<Body>) -> Response<Body> {
        let mut record = self.record(caller, cluster.as_str(), &request);
        let caller_side = may_switch(&request).then(|| hyper::upgrade::on(&mut request));
        let result = self.try_forward(caller, cluster, request, &mut record).await;
        match (result, caller_side) {
            (Ok((mut response, Some(alive))), Some(caller_side)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                upgrade::pump(&self.host, caller_side, &mut response, alive, record.continued());
                answer::track(response, None, record)
            }
            (result, caller_side) => {
                if let Some(caller_side) = caller_side {
                    self.host.spawn("declined upgrade", decline(caller_side));
                }
                match result {
                    Ok((response, alive)) => answer::track(response, alive, record),
                    Err(refusal) => self.refuse(refusal, record),
                }
            }
        }
    }

    /// A request that was refused before it could be forwarded.
    pub(crate) fn refuse(&self, refusal: Refusal, record: Record) -> Response<Body> {
        self.metrics.refused(refusal.kind().label);
        if matches!(refusal, Refusal::RateLimited { .. }) {
            self.metrics.rate_limited.inc();
        }
        let why = refusal.words_for_log();
        record.span().fail(refusal.kind().label, &why);
        let id = record.request_id().to_owned();
        record.refused(&refusal.kind(), why);
        refusal.into_response(&id)
    }

    /// Begins the account of a request.
    pub(crate) fn record(&self, caller: &Caller, cluster: &str, request: &Request<Body>) -> Record {
        let request_id = format!("{:016x}", self.host.chance());
        let span = traces::begin(&self.tracer, SpanKind::Server, request, "");
        Record::begin((self.metrics.clone(), self.audit.as_ref()), request_id, caller, cluster, (request, span))
    }

    async fn try_forward(
        &self,
        caller: &Caller,
        cluster: &ClusterId,
        request: Request<Body>,
        record: &mut Record,
    ) -> Result<(Response<Body>, Option<Alive>), Refusal> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::BadMethod { method: request.method().to_string() });
        }
        if hygiene::is_coded(request.headers()) {
            return Err(Refusal::Coded);
        }
        let judged = self.roster.judge_impersonation(cluster, request.headers());
        judged.map_err(|why| Refusal::Impersonation { why })?;
        let is_upgrade = hygiene::upgrade(request.version(), request.headers()).is_some();
        if self.audit.as_ref().is_some_and(|log| record.is_forbidden_by(log, is_upgrade)) {
            return Err(Refusal::Unaudited);
        }
        record.hold(self.limits.admit(&caller.name, cluster.as_str()).await?);
        let repeatable = matches!(*request.method(), Method::GET | Method::HEAD);
        let (class, request_id) = (record.class(is_upgrade), record.request_id().to_owned());
        let traceparent = record.span().traceparent();
        let trace = traceparent.clone().unwrap_or_default();
        let open = Open { class, request_id, trace, caller: caller.told_name(), ..Open::default() };
        let (mut request, fault) = self.outbound(request, is_upgrade)?;
        // For agents that do not trace, and those that know no `trace`.
        traces::pass_on(traceparent, request.headers_mut());

        let stream = self.stream(cluster, &mut request, open).await?;
        if let Some(admission) = &caller.admission {
            record.run(admission.enter(stream.watch())?);
        }
        let sent = self.send(stream, request, is_upgrade);
        let answered = match self.header_timeout {
            None => sent.await,
            Some(max) => tokio::time::timeout(max, sent).await.map_err(|_| Refusal::Timeout { max, repeatable })?,
        };
        let (mut response, alive) =
            answered.map_err(|error| fault.get().cloned().unwrap_or_else(|| broken(&*error, repeatable)))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !is_upgrade {
            let why = "the API server switched protocols, which nobody asked for".to_owned();
            return Err(Refusal::Broken { why, repeatable: false });
        }
        hygiene::clean_response(response.status(), response.headers_mut());
        Ok((response, alive))
    }

    async fn send(
        &self,
        stream: TunnelStream,
        request: Request<Body>,
        is_upgrade: bool,
    ) -> Result<(Response<Body>, Option<Alive>), BoxError> {
        if ask::can_ask(&request, is_upgrade) {
            return Ok((ask(stream, request).await?, None));
        }
        let (response, alive) = exchange(&self.host, stream, request).await?;
        Ok((response.map(|body| body.map_err(BoxError::from).boxed_unsync()), Some(alive)))
    }

    /// The request as it enters the tunnel, and what turned out to be wrong with its body.
    fn outbound(&self, request: Request<Body>, is_upgrade: bool) -> Result<(Request<Body>, Arc<OnceLock<Refusal>>), Refusal> {
        let fault = Arc::new(OnceLock::new());
        let (mut head, body) = request.into_parts();
        let limited = body::limited(body, self.body_max).map_err(|error| Refusal::BodyTooLarge { max: error.max })?;
        let limited = match self.upload_idle_max {
            Some(max) => body::patient(limited, max),
            None => limited,
        };
        let (noticed, body_max) = (fault.clone(), self.body_max);
        let limited = limited.map_err(move |error| {
            if body::is_too_large(&*error) {
                noticed.get_or_init(|| Refusal::BodyTooLarge { max: body_max });
            }
            if let Some(body::Stalled { max }) = body::stalled(&*error) {
                noticed.get_or_init(|| Refusal::Stalled { max });
            }
            error
        });
        hygiene::clean_request(head.version, &mut head.headers);
        if head.version == Version::HTTP_2 {
            // hyper's HTTP/2 server sends no 100: a caller that waits for one does so in vain, and its body must flow.
            head.headers.remove(EXPECT);
        }
        head.version = Version::HTTP_11;
        if !is_upgrade {
            // One request per stream. A version 1 agent relies on it to see the end of the answer.
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // A body that waits to be asked for must not be drained, which would ask for it.
        let body = match expect::expects_continue(&head.headers) {
            true => limited.boxed_unsync(),
            false => linger::lingering(&self.host, limited.boxed_unsync()),
        };
        let body = trailers::cleaned(body);
        let mut request = Request::from_parts(head, body);
        body::announce_length(&mut request);
        Ok((request, fault))
    }

    /// A stream for the request, which is then addressed to where the stream leads.
    async fn stream(&self, cluster: &ClusterId, request: &mut Request<Body>, mut open: Open) -> Result<TunnelStream, Refusal> {
        let head_bytes = head_bytes(request);
        let mut full = Vec::new();
        for _ in 0..PLACES_MAX {
            let placed = self.registry.place(cluster, head_bytes, &full).await;
            let (id, session) = placed.map_err(|absent| refusal_of(absent, cluster))?;
            // Not earlier: while the request waited, the clusters file may have changed.
            open.target = self.roster.target(cluster);
            match session.open(open.clone()) {
                Ok(stream) => {
                    request.headers_mut().insert(HOST, host_of(&open.target));
                    return Ok(stream);
                }
                // It ended since it was chosen; another may be there.
                Err(OpenError::Ended | OpenError::Draining | OpenError::Ids) => {}
                Err(OpenError::Streams { .. } | OpenError::Budget) => full.push(id),
            }
        }
        Err(refusal_of(Absent::Full, cluster))
    }
}

/// What a request names as its host. The agent puts its own in place; a version 1 agent passes this one on.
pub(crate) fn host_of(target: &str) -> HeaderValue {
    HeaderValue::from_str(target).unwrap_or(HeaderValue::from_static("kubernetes"))
}

/// About what a waiting request holds in memory.
fn head_bytes(request: &Request<Body>) -> usize {
    let fields: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    request.uri().path_and_query().map_or(0, |target| target.as_str().len()) + fields
}

fn refusal_of(absent: Absent, cluster: &ClusterId) -> Refusal {
    let cluster = cluster.to_string();
    match absent {
        Absent::Unknown => Refusal::UnknownCluster { cluster },
        Absent::Offline { since, why, recent } => Refusal::Offline { cluster, since, why, recent },
        Absent::ParkingFull => Refusal::ParkingFull,
        Absent::Full => Refusal::SessionFull { cluster },
    }
}

/// Why no answer came, from the chain of an error.
fn broken(error: &(dyn Error + 'static), repeatable: bool) -> Refusal {
    match stream_error(error) {
        Some(StreamError::Reset { reason, text }) if reason.nothing_was_done() => {
            Refusal::NotTaken { why: if text.is_empty() { reason.to_string() } else { text.clone() } }
        }
        Some(error) => Refusal::Broken { why: error.to_string(), repeatable },
        None => Refusal::Broken { why: error.to_string(), repeatable },
    }
}

/// How the stream ended, if that is in the chain of an error.
pub(crate) fn stream_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a StreamError> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let found = inner.and_then(|inner| inner.downcast_ref::<StreamError>());
    found.or_else(|| error.source().and_then(stream_error))
}
