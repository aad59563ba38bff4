//! The account of a request: one log line and one set of metrics when its answer has ended, however it ends.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use proxy::body::{Body, BoxError};
use proxy::request::{self, RequestInfo};
use proxy::trailers;
use tokio::time::Instant;
use tunnel::frame::Class;

use super::Caller;
use super::exchange::Alive;
use crate::callers;
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
}

impl Record {
    pub(crate) fn begin(
        metrics: Arc<Metrics>,
        request_id: String,
        caller: &Caller,
        cluster: &str,
        request: &Request<Body>,
    ) -> Self {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        Self {
            account: Some(Account {
                metrics,
                request_id,
                caller: caller.name.clone(),
                peer: caller.peer,
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
            }),
        }
    }

    pub(crate) fn request_id(&self) -> &str {
        self.account.as_ref().map(|account| account.request_id.as_str()).unwrap_or_default()
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

    /// A second account of the same request, for what goes on after its head was answered.
    pub(super) fn continued(&self) -> Continued {
        let account = self.account.as_ref();
        Continued {
            request_id: self.request_id().to_owned(),
            cluster: account.map(|account| account.cluster.clone()).unwrap_or_default(),
            path: account.map(|account| account.path.clone()).unwrap_or_default(),
            began: account.map_or_else(Instant::now, |account| account.began),
            _place: account.and_then(|account| account.place.clone()),
            _running: account.and_then(|account| account.running.clone()),
        }
    }

    /// The request was refused.
    pub(crate) fn refused(mut self, status: StatusCode, why: String) {
        if let Some(account) = &mut self.account {
            account.status = Some(status);
            account.end = format!("refused: {why}");
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(account) = self.account.take() else { return };
        let Account { metrics, request_id, caller, peer, cluster, method, path, info, began, status, bytes, end, .. } = account;
        let elapsed = began.elapsed();
        // 499 is what proxies write when the caller left before an answer (nginx).
        let code = status.map_or(499, |status| status.as_u16());
        metrics.request_ended(&cluster, &method, code, elapsed.as_secs_f64());
        metrics.caller_ended(&caller);
        let (verb, resource) = (info.verb.as_str(), info.resource_text());
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(request_id, %caller, %peer, cluster, %method, path, verb, resource, code, bytes, ms, end, "request");
    }
}

/// What is known of an upgraded connection.
pub(super) struct Continued {
    request_id: String,
    cluster: String,
    path: String,
    began: Instant,
    _place: Option<Arc<StreamPlace>>,
    _running: Option<Arc<callers::Place>>,
}

impl Continued {
    /// Both directions have ended.
    pub(super) fn ended(self, from_caller: u64, from_upstream: u64, end: &std::io::Result<()>) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let end = end.as_ref().map_or_else(ToString::to_string, |()| "whole".to_owned());
        let Self { request_id, cluster, path, .. } = self;
        tracing::info!(request_id, cluster, path, from_caller, from_upstream, ms, end, "upgraded connection ended");
    }
}

/// The answer with its body under account. While the body lives the exchange does; a body that breaks off is an error
/// to whoever reads it, so that the caller's connection is aborted visibly.
pub(super) fn track(response: Response<Body>, alive: Option<Alive>, mut record: Record) -> Response<Body> {
    if let Some(account) = &mut record.account {
        account.status = Some(response.status());
        if response.body().is_end_stream() {
            account.end = "whole".to_owned();
        }
    }
    response.map(|body| Tracked { body, record, _alive: alive }.boxed_unsync())
}

struct Tracked {
    body: Body,
    record: Record,
    _alive: Option<Alive>,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            trailers::clean(frame);
        }
        let is_end = self.body.is_end_stream();
        if let Some(account) = &mut self.record.account {
            match &frame {
                Some(Ok(frame)) => account.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(error)) => account.end = format!("broken: {error}"),
                None => {}
            }
            if is_end && !matches!(frame, Some(Err(_))) || frame.is_none() {
                account.end = "whole".to_owned();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
