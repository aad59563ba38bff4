//! The account of a request: one log line when its answer has ended, however it ends.

use std::sync::{Arc, OnceLock};

use host::Span;
use http::{Method, Request, Response, StatusCode};
use proxy::audit::{Asked, Log, Outcome, Trail};
use proxy::body::{self, BoxError};
use proxy::request::RequestInfo;
use proxy::traces;
use proxy::upgrade::Pumped;
use tokio::time::Instant;
use tunnel::frame::Open;

/// What is known of one request; told when dropped.
pub(super) struct Account {
    told: Told,
    method: Method,
    status: StatusCode,
    bytes: u64,
    end: Option<String>,
    refused: Option<(&'static str, String)>,
    trail: Option<Trail>,
    /// The hub asked for itself, as it does all the time.
    pub(super) is_probe: bool,
}

/// What a request and what goes on after it have in common.
#[derive(Clone)]
struct Told {
    /// Who asks, by the hub's word; empty for who is not known.
    caller: Arc<str>,
    path: String,
    began: Instant,
    /// Why the guard has cut it, if it has.
    cut: Arc<OnceLock<String>>,
    span: Span,
}

impl Told {
    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How it ended: as was `seen`, else because somebody has cut it.
    fn end<'a>(&'a self, seen: Option<&'a str>) -> &'a str {
        seen.or(self.cut.get().map(String::as_str)).unwrap_or("the hub left")
    }

    /// Nothing is told of who is not known.
    fn caller(&self) -> Option<&str> {
        Some(&*self.caller).filter(|caller| !caller.is_empty())
    }
}

impl Account {
    /// The account of what came on a stream opened by `open`. Whoever cuts the request says why in `cut`.
    pub(super) fn begin<B>(
        open: &Open,
        (request, span): (&Request<B>, Span),
        cut: Arc<OnceLock<String>>,
        audit: Option<&Arc<Log>>,
    ) -> Self {
        span.tell("postern.request_id", &open.request_id);
        let (caller, path) = (open.caller.as_str().into(), request.uri().path().to_owned());
        let told = Told { caller, path, began: Instant::now(), cut, span };
        // 499 is what proxies write when who asks left before an answer (nginx).
        let status = StatusCode::from_u16(499).unwrap_or_default();
        let trail = audit.map(|log| trail(log, open, request));
        Self { told, method: request.method().clone(), status, bytes: 0, end: None, refused: None, trail, is_probe: false }
    }

    /// The request's span.
    pub(super) fn span(&self) -> &Span {
        &self.told.span
    }

    /// The answer's head is known.
    pub(super) fn answered<B>(&mut self, response: &Response<B>) {
        self.status = response.status();
        self.trail.iter_mut().for_each(|trail| trail.answered(response.status().as_u16()));
    }

    /// It is refused, by a label of the reference and with these words.
    pub(super) fn refused(&mut self, label: &'static str, why: String) {
        self.refused = Some((label, why));
    }

    /// A second account of the same request, for what goes on after its head was answered.
    pub(super) fn continued(&mut self) -> Continued {
        let trail = self.trail.as_mut().map(|trail| trail.continued(StatusCode::SWITCHING_PROTOCOLS.as_u16()));
        Continued { told: self.told.clone(), pumped: Pumped::default(), end: None, trail }
    }
}

impl body::Account for Account {
    fn passed(&mut self, n: u64) {
        self.bytes += n;
    }

    fn ended(&mut self, end: Result<(), &BoxError>) {
        if let Err(error) = end {
            self.told.span.fail("broken", &error.to_string());
        }
        self.end = Some(end.map_or_else(|error| format!("broken: {error}"), |()| "whole".to_owned()));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Self { told, method, status, bytes, end, refused, trail, is_probe } = self;
        let end = told.end(end.as_deref());
        if let Some(trail) = trail {
            let refused = refused.as_ref().map(|(label, why)| (*label, why.as_str()));
            trail.ended(Outcome { status: status.as_u16(), bytes: *bytes, end, refused, ..Outcome::default() });
        }
        let (caller, path, ms) = (told.caller(), &told.path, told.ms());
        traces::answered(&told.span, status.as_u16(), *bytes, 400);
        let trace_id = told.span.trace_id();
        if *is_probe {
            tracing::debug!(code = status.as_u16(), ms, end, trace_id, "probe");
            return;
        }
        tracing::info!(caller, %method, path, code = status.as_u16(), bytes, ms, end, trace_id, "request");
    }
}

fn trail<B>(log: &Arc<Log>, open: &Open, request: &Request<B>) -> Trail {
    let (path, query) = (request.uri().path(), request.uri().query());
    let info = RequestInfo::parse(request.method(), path, query);
    let asked = Asked { caller: open.caller.clone(), ..Asked::new(&open.request_id, &info, path) };
    Trail::begin(log, &info, asked)
}

/// What is known of an upgraded connection; told when dropped.
pub(super) struct Continued {
    told: Told,
    pub(super) pumped: Pumped,
    end: Option<String>,
    trail: Option<Trail>,
}

impl Continued {
    /// Both directions have ended.
    pub(super) fn ended(&mut self, end: String) {
        self.end = Some(end);
    }
}

impl Drop for Continued {
    fn drop(&mut self) {
        let Self { told, pumped, end, trail } = self;
        let end = told.end(end.as_deref());
        let (caller, path, ms) = (told.caller(), &told.path, told.ms());
        let (from_hub, from_upstream) = (pumped.from_a(), pumped.from_b());
        if let Some(trail) = trail {
            let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
            trail.ended(Outcome { status, bytes: from_upstream, bytes_from_caller: Some(from_hub), end, ..Outcome::default() });
        }
        tracing::info!(caller, path, from_hub, from_upstream, ms, end, "upgraded connection ended");
    }
}
