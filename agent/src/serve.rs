//! One inbound stream to one request at the API server.

mod account;

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use host::{Span, SpanKind, TraceParent};
use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy::audit::Log;
use proxy::body::{Body, BoxError, accounted};
use proxy::head::{INNER_FIELDS_MAX, INNER_HEAD_BUFFER};
use proxy::hygiene;
use proxy::program::chain;
use proxy::request::RequestInfo;
use proxy::status::Status;
use proxy::upgrade::{Pumped, decline, may_switch};
use proxy::{traces, trailers};
use tokio::time::Instant;
use tracing::Instrument;
use tunnel::frame::Open;
use tunnel::{Protocol, Reason, StreamWatch, TunnelStream};

use crate::Agent;
use crate::connect::Dialed;
use crate::guard::{Asked, Refused};
use crate::sessions::Held;
use crate::upstream::UpstreamError;
use account::Account;

/// How long a request's head may take to come through the tunnel, once its stream is open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves the streams of a session until it ends.
pub(crate) async fn serve(agent: Arc<Agent>, session: Dialed, held: Held) {
    let Dialed { handle, mut incoming, protocol, .. } = session;
    let began = Instant::now();
    while let Some((open, stream)) = incoming.next().await {
        if held.is_outdated() {
            stream.reset(Reason::Refused, "the session is outdated");
            continue;
        }
        let span = tracing::info_span!("request", request_id = open.request_id, stream = stream.id().0);
        let agent_ = agent.clone();
        agent.host.spawn("stream", serve_stream(agent_, protocol, open, stream).instrument(span));
    }
    agent.metrics.session_ended(began.elapsed(), &handle.ended().await);
}

async fn serve_stream(agent: Arc<Agent>, protocol: Protocol, open: Open, stream: TunnelStream) {
    // A version 1 server names the place to dial; this agent dials its own target only.
    if protocol == Protocol::V1 && open.target != agent.config.target.to_string() {
        tracing::warn!(asked = open.target, target = %agent.config.target, "refused to dial an address that is not the target");
        stream.reset(Reason::Refused, "address not allowed");
        return;
    }
    stream.accept();
    let request_id = HeaderValue::from_str(&open.request_id).ok().filter(|id| !id.is_empty());
    let watch = stream.watch();
    let passed = Arc::new(OnceLock::new());
    let hub = Hub { watch: watch.clone(), passed: passed.clone(), open: Arc::new(open), cut: Arc::default() };
    let cut = hub.cut.clone();
    let guard = agent.guard.clone();
    let service = service_fn(move |request| {
        let (agent, request_id, hub) = (agent.clone(), request_id.clone(), hub.clone());
        async move { Ok::<_, Infallible>(answer(agent, request, request_id, hub).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(INNER_FIELDS_MAX)
        .max_buf_size(INNER_HEAD_BUFFER)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // hyper looks at the stream only when it wants to read or write it, so a caller that leaves while the API server
    // takes no more of the body would not be noticed.
    tokio::select! {
        biased;
        served = connection => if let Err(error) = served {
            tracing::debug!(%error, "a stream ended early");
        },
        error = watch.cut() => tracing::debug!(%error, "a stream was cut"),
        refused = guard.closes(&passed) => close(&watch, &refused, &cut),
    }
}

/// The hub's end of a request.
#[derive(Clone)]
struct Hub {
    watch: StreamWatch,
    /// The request, once it has passed the guard.
    passed: Arc<OnceLock<Asked>>,
    /// What the hub says of it.
    open: Arc<Open>,
    /// Why the guard has cut it, if it has.
    cut: Arc<OnceLock<String>>,
}

/// Ends a stream whose request passed the guard and would not pass it again.
fn close(hub: &StreamWatch, refused: &Refused, cut: &OnceLock<String>) {
    let _ = cut.set(format!("cut by the guard: {refused}"));
    tracing::info!(why = %refused, "a running request was cut by the guard");
    hub.reset(Reason::Forbidden, &refused.to_string());
}

async fn answer(agent: Arc<Agent>, request: Request<Incoming>, request_id: Option<HeaderValue>, hub: Hub) -> Response<Body> {
    let asked = Asked::of(&request).called_probe(hub.open.is_probe, &request);
    // What the hub asks all the time is nobody's request.
    let begin = || traces::begin(&agent.tracer, SpanKind::Client, &request, &hub.open.trace);
    let span = if asked.is_probe() { Span::default() } else { begin() };
    let audit = agent.audit.as_ref().filter(|_| !asked.is_probe());
    let mut account = Account::begin(&hub.open, (&request, span), hub.cut.clone(), audit);
    let mut request = request.map(|body| trailers::cleaned(body.map_err(BoxError::from).boxed_unsync()));
    let hub_side = may_switch(&request).then(|| hyper::upgrade::on(&mut request));
    account.is_probe = asked.is_probe();
    let mut response = match agent.guard.admit(&asked) {
        Err(refused) => {
            account.span().fail(refused.label(), &refused.to_string());
            account.refused(refused.label(), refused.to_string());
            refused.status().into_response()
        }
        Ok(()) if agent.audit.as_ref().is_some_and(|log| is_forbidden(log, &request)) => {
            account.span().fail("unaudited", UNAUDITED);
            account.refused("unaudited", UNAUDITED.to_owned());
            unaudited().into_response()
        }
        Ok(()) => {
            trace(&agent, account.span(), &hub.open, request.headers_mut());
            // One request per stream.
            let is_probe = asked.is_probe();
            let _ = hub.passed.set(asked);
            match forward(&agent, request, request_id, is_probe).await {
                Ok(response) => response,
                Err(status) => status.into_response(),
            }
        }
    };
    match hub_side {
        Some(hub_side) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let (upstream_side, guard) = (hyper::upgrade::on(&mut response), agent.guard.clone());
            let mut account = account.continued();
            let pumped = async move {
                let end = tokio::select! {
                    biased;
                    end = pump(hub_side, upstream_side, &account.pumped) => end,
                    error = hub.watch.cut() => error.to_string(),
                    refused = guard.closes(&hub.passed) => {
                        close(&hub.watch, &refused, &hub.cut);
                        return;
                    }
                };
                account.ended(end);
            };
            agent.host.spawn("upgrade", pumped.in_current_span());
        }
        Some(hub_side) => agent.host.spawn("declined upgrade", decline(hub_side)),
        None => {}
    }
    account.answered(&response);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // One request per stream. Told here and not by hyper's setting, which would spoil the `Connection` of a 101.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| accounted(body, account))
}

/// The API server's part of the trace: it belongs to our span, else to the hub's, else to what the caller began.
fn trace(agent: &Agent, span: &Span, open: &Open, headers: &mut HeaderMap) {
    span.tell("server.address", &agent.config.target.host);
    span.count("server.port", agent.config.target.port.into());
    let of_hub = || TraceParent::parse(&open.trace).map(|_| open.trace.clone());
    traces::pass_on(span.traceparent().or_else(of_hub), headers);
}

async fn forward(
    agent: &Agent,
    mut request: Request<Body>,
    request_id: Option<HeaderValue>,
    is_probe: bool,
) -> Result<Response<Body>, Status> {
    let repeatable = matches!(*request.method(), Method::GET | Method::HEAD);
    let version = request.version();
    let is_upgrade = hygiene::upgrade(version, request.headers()).is_some();
    hygiene::clean_request(version, request.headers_mut());
    if let Some(id) = request_id {
        // The API server writes it in its audit log (Kubernetes "Auditing").
        request.headers_mut().insert("audit-id", id);
    }
    agent.metrics.upstream_requests.inc();
    let sent = agent.upstream.send(request, is_upgrade).await;
    let mut response = sent.map_err(|error| {
        agent.metrics.upstream_errors.inc();
        // Probes fail for as long as it is away, a dozen a minute: the first says so.
        match is_probe && agent.is_upstream_away.swap(true, Ordering::Relaxed) {
            false => tracing::warn!(error = %chain(&error), target = %agent.config.target, "a request to the API server failed"),
            true => tracing::debug!(error = %chain(&error), "the API server is still away"),
        }
        refusal(&error, repeatable)
    })?;
    if is_probe && agent.is_upstream_away.swap(false, Ordering::Relaxed) {
        tracing::info!(target = %agent.config.target, "the API server answers again");
    }
    hygiene::clean_response(response.status(), response.headers_mut());
    Ok(response)
}

/// Bytes both ways, and how they ended. Our side of the tunnel switches only after the 101 was written to it.
async fn pump(hub_side: OnUpgrade, upstream_side: OnUpgrade, pumped: &Pumped) -> String {
    match (upstream_side.await, hub_side.await) {
        (Ok(upstream), Ok(hub)) => {
            let end = proxy::upgrade::pump(TokioIo::new(hub), TokioIo::new(upstream), pumped).await;
            end.map_or_else(|error| error.to_string(), |()| "whole".to_owned())
        }
        (Err(error), _) | (_, Err(error)) => format!("an upgrade did not come about: {error}"),
    }
}

/// Why a request is refused that nothing else forbids.
const UNAUDITED: &str = "the agent's audit log cannot be written; until it can, nothing is done that would have to stand in it";

/// Whether a request must not go on while the log cannot be written.
fn is_forbidden(log: &Log, request: &Request<Body>) -> bool {
    let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
    log.forbids(&info, hygiene::upgrade(request.version(), request.headers()).is_some())
}

/// What the caller is told then. Nothing was done, and whoever looks after the disk needs a while.
fn unaudited() -> Status {
    let message = format!("postern agent: {UNAUDITED}");
    let status = Status::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
    status.cause("Unaudited", "refused by the agent").retry_after(10)
}

/// What the caller is told when the API server gave no answer.
fn refusal(error: &UpstreamError, repeatable: bool) -> Status {
    let status = Status::failure(StatusCode::BAD_GATEWAY, "BadGateway", format!("postern agent: {}", chain(error)));
    let status = status.cause(error.label(), chain(error));
    // client-go repeats any verb on a hint: only when nothing can have been executed, or it does no harm.
    if error.nothing_was_done() || repeatable { status.retry_after(1) } else { status }
}
