//! The account of a request: one log line and one set of metrics when its answer has ended, however it ends.

use std::net::SocketAddr;
use std::sync::Arc;

use host::Span;
use http::{Method, Request, Response, StatusCode};
use proxy::audit::{Asked, Log, Outcome, Trail};
use proxy::body::{self, Body, BoxError, accounted};
use proxy::request::{self, RequestInfo};
use proxy::upgrade::Pumped;
use proxy::{traces, trailers};
use tokio::time::Instant;
use tunnel::frame::Class;

use super::Caller;
use super::exchange::Alive;
use crate::callers;
use crate::front_door::refusal::Kind;
use crate::limits::StreamPlace;
use crate::metrics::Metrics;

/// What is known of one request; told when dropped.
pub(crate) struct Record {
    account: Option<Account>,
}

struct Account {
    metrics: Arc<Metrics>,
    request_id: String,
    caller: Arc<str>,
    peer: SocketAddr,
    cluster: String,
    method: Method,
    path: String,
    info: RequestInfo,
    began: Instant,
    status: Option<StatusCode>,
    bytes: u64,
    end: String,
    place: Option<Arc<StreamPlace>>,
    running: Option<Arc<callers::Place>>,
    span: Span,
    refused: Option<(&'static str, String)>,
    trail: Option<Trail>,
}

impl Record {
    pub(crate) fn begin(
        (metrics, audit): (Arc<Metrics>, Option<&Arc<Log>>),
        request_id: String,
        caller: &Caller,
        cluster: &str,
        (request, span): (&Request<Body>, Span),
    ) -> Self {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        let peer = caller.peer;
        traces::tell(&span, &info);
        for (key, value) in [("postern.cluster", cluster), ("postern.caller", &*caller.name), ("postern.request_id", &request_id)]
        {
            span.tell(key, value);
        }
        let trail = audit.map(|log| {
            let asked = Asked::new(&request_id, &info, request.uri().path());
            let (caller, cluster) = (caller.name.to_string(), cluster.to_owned());
            Trail::begin(log, &info, Asked { caller, peer: Some(peer), cluster, ..asked })
        });
        Self {
            account: Some(Account {
                metrics,
                request_id,
                caller: caller.name.clone(),
                peer,
                cluster: cluster.to_owned(),
                method: request.method().clone(),
                // Without the query, which may hold the command line of an exec.
                path: request.uri().path().to_owned(),
                info,
                began: Instant::now(),
                status: None,
                bytes: 0,
                end: "caller left".to_owned(),
                place: None,
                running: None,
                span,
                refused: None,
                trail,
            }),
        }
    }

    pub(crate) fn request_id(&self) -> &str {
        self.account.as_ref().map(|account| account.request_id.as_str()).unwrap_or_default()
    }

    /// The span of the request; nothing while traces are off.
    pub(crate) fn span(&self) -> Span {
        self.account.as_ref().map(|account| account.span.clone()).unwrap_or_default()
    }

    /// Keeps the request among those that run until its answer, and what goes on after it, has ended.
    pub(super) fn run(&mut self, place: callers::Place) {
        if let Some(account) = &mut self.account {
            account.running = Some(Arc::new(place));
        }
    }

    /// Keeps the caller's place until the answer, and what goes on after it, has ended.
    pub(super) fn hold(&mut self, place: StreamPlace) {
        if let Some(account) = &mut self.account {
            account.place = Some(Arc::new(place));
        }
    }

    /// How urgent the request is.
    pub(super) fn class(&self, is_upgrade: bool) -> Class {
        let class = self.account.as_ref().map(|account| account.info.class(is_upgrade));
        match class {
            Some(request::Class::Interactive) => Class::Interactive,
            Some(request::Class::Watch) => Class::Watch,
            Some(request::Class::Small) | None => Class::Small,
        }
    }

    /// Whether it must not go on while the log cannot be written.
    pub(super) fn is_forbidden_by(&self, log: &Log, is_upgrade: bool) -> bool {
        self.account.as_ref().is_some_and(|account| log.forbids(&account.info, is_upgrade))
    }

    /// A second account of the same request, for what goes on after its head was answered.
    pub(super) fn continued(&mut self) -> Continued {
        let trail = self.account.as_mut().and_then(|account| account.trail.as_mut());
        let trail = trail.map(|trail| trail.continued(StatusCode::SWITCHING_PROTOCOLS.as_u16()));
        let account = self.account.as_ref();
        Continued {
            pumped: Pumped::default(),
            end: "cut".to_owned(),
            request_id: self.request_id().to_owned(),
            cluster: account.map(|account| account.cluster.clone()).unwrap_or_default(),
            path: account.map(|account| account.path.clone()).unwrap_or_default(),
            began: account.map_or_else(Instant::now, |account| account.began),
            trail,
            _place: account.and_then(|account| account.place.clone()),
            _running: account.and_then(|account| account.running.clone()),
            _span: self.span(),
        }
    }

    /// The request was refused.
    pub(crate) fn refused(mut self, kind: &Kind, why: String) {
        if let Some(account) = &mut self.account {
            account.status = Some(kind.status);
            account.end = format!("refused: {why}");
            account.refused = Some((kind.label, why));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(account) = self.account.take() else { return };
        let Account { metrics, request_id, caller, peer, cluster, method, path, info, began, status, bytes, end, span, .. } =
            account;
        let (trail, refused) = (account.trail, account.refused);
        let elapsed = began.elapsed();
        // 499 is what proxies write when the caller left before an answer (nginx).
        let code = status.map_or(499, |status| status.as_u16());
        metrics.request_ended(&cluster, &method, code, elapsed.as_secs_f64());
        metrics.caller_ended(&caller);
        traces::answered(&span, code, bytes, 500);
        let trace_id = span.trace_id();
        let (verb, resource) = (info.verb.as_str(), info.resource_text());
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if let Some(trail) = trail {
            let refused = refused.as_ref().map(|(label, why)| (*label, why.as_str()));
            let end = if refused.is_some() { "" } else { &end };
            trail.ended(Outcome { status: code, bytes, end, refused, ..Outcome::default() });
        }
        tracing::info!(request_id, %caller, %peer, cluster, %method, path, verb, resource, code, bytes, ms, end, trace_id, "request");
    }
}

/// What is known of an upgraded connection; told when dropped.
pub(super) struct Continued {
    pub(super) pumped: Pumped,
    /// How it ended; cut short by the end of the process if nobody says.
    end: String,
    request_id: String,
    cluster: String,
    path: String,
    began: Instant,
    trail: Option<Trail>,
    _place: Option<Arc<StreamPlace>>,
    _running: Option<Arc<callers::Place>>,
    /// Goes on as long.
    _span: Span,
}

impl Continued {
    /// Both directions have ended.
    pub(super) fn ended(&mut self, end: &str) {
        end.clone_into(&mut self.end);
    }
}

impl Drop for Continued {
    fn drop(&mut self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (from_caller, from_upstream) = (self.pumped.from_a(), self.pumped.from_b());
        let Self { request_id, cluster, path, end, trail, .. } = self;
        if let Some(trail) = trail {
            let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
            let bytes_from_caller = Some(from_caller);
            trail.ended(Outcome { status, bytes: from_upstream, bytes_from_caller, end, ..Outcome::default() });
        }
        tracing::info!(request_id, cluster, path, from_caller, from_upstream, ms, end, "upgraded connection ended");
    }
}

/// The answer with its body under account. While the body lives the exchange does; a body that breaks off is an error
/// to whoever reads it, so that the caller's connection is aborted visibly.
pub(super) fn track(response: Response<Body>, alive: Option<Alive>, mut record: Record) -> Response<Body> {
    if let Some(account) = &mut record.account {
        account.status = Some(response.status());
        account.trail.iter_mut().for_each(|trail| trail.answered(response.status().as_u16()));
    }
    response.map(|body| accounted(trailers::cleaned(body), Tracked { record, _alive: alive }))
}

struct Tracked {
    record: Record,
    _alive: Option<Alive>,
}

impl body::Account for Tracked {
    fn passed(&mut self, n: u64) {
        if let Some(account) = &mut self.record.account {
            account.bytes += n;
        }
    }

    fn ended(&mut self, end: Result<(), &BoxError>) {
        if let Some(account) = &mut self.record.account {
            if let Err(error) = end {
                account.span.fail("broken", &error.to_string());
            }
            account.end = end.map_or_else(|error| format!("broken: {error}"), |()| "whole".to_owned());
        }
    }
}
