//! Refusal: every "no" given at the front door, with its status, its words, its retry hint and its metric label.
//!
//! Under `/tunnel/` never 401, 404, 409 or 410: client-go reads those as facts about objects. `Retry-After` makes
//! client-go repeat any verb, so it is sent only when nothing of the request can have reached the API server, or when
//! the request is a GET or HEAD.

use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;
use proxy::body::Body;
use proxy::status::Status;

use crate::callers::Denial;

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The path names no cluster.
    BadPath,
    /// A page of another site has a browser ask.
    CrossSite,
    /// The target has a `#`.
    Fragment,
    /// The path and query are longer than the limit.
    TooLong { max: usize },
    /// A list or a watch with more parameters than can be read surely.
    ManyParameters { max: usize },
    /// A method that is never forwarded.
    BadMethod { method: String },
    /// The body is coded for its way in a manner that would be lost.
    Coded,
    /// The request's body is longer than the limit.
    BodyTooLarge { max: usize },
    /// The request's body stopped coming.
    Stalled { max: Duration },
    /// No such cluster.
    UnknownCluster { cluster: String },
    /// The caller is nobody, or may not know the cluster.
    Denied(Denial),
    /// The caller may reach the cluster, but not do this there.
    VerbDenied { caller: String, verb: String, cluster: String },
    /// The request asks to act as somebody else.
    Impersonation { why: String },
    /// What it does could not be recorded.
    Unaudited,
    /// Over the rate that the flag `limit` sets.
    RateLimited { limit: &'static str, retry_after: Duration },
    /// The caller has as many requests running as it may.
    CallerFull { max: usize },
    /// No agent is connected.
    Offline { cluster: String, since: Timestamp, why: Option<String>, recent: bool },
    /// Too many requests wait for sessions.
    ParkingFull,
    /// The server is draining.
    Draining,
    /// All places for connections are taken.
    Crowded,
    /// The cluster's sessions have no room for another stream.
    SessionFull { cluster: String },
    /// The agent did not take the request; nothing of it was acted on.
    NotTaken { why: String },
    /// The tunnel or the upstream broke before an answer began.
    Broken { why: String, repeatable: bool },
    /// The upstream did not begin its answer in time.
    Timeout { max: Duration, repeatable: bool },
}

/// What all refusals of one kind have in common: a line of REFERENCE.md.
pub(crate) struct Kind {
    /// The metric label and the `Status` cause.
    pub(crate) label: &'static str,
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The `Status` reason, one of the API's.
    reason: &'static str,
    /// When it is given.
    pub(crate) when: &'static str,
    /// When it carries `Retry-After`.
    pub(crate) retry: &'static str,
}

const fn kind(label: &'static str, status: StatusCode, reason: &'static str, when: &'static str, retry: &'static str) -> Kind {
    Kind { label, status, reason, when, retry }
}

const BAD_PATH: Kind = kind("BadPath", StatusCode::BAD_REQUEST, "BadRequest", "the path names no cluster", "never");
const CROSS_SITE: Kind = kind(
    "CrossSite",
    StatusCode::FORBIDDEN,
    "Forbidden",
    "the request's `Origin` is another site's, and it carries no bearer token",
    "never",
);
const FRAGMENT: Kind =
    kind("Fragment", StatusCode::BAD_REQUEST, "BadRequest", "the request target has a `#` (HTTP/1.1)", "never");
const TOO_LONG: Kind =
    kind("TooLong", StatusCode::URI_TOO_LONG, "RequestURITooLong", "path and query are longer than 32 KiB", "never");
const MANY_PARAMETERS: Kind = kind(
    "ManyParameters",
    StatusCode::BAD_REQUEST,
    "BadRequest",
    "a list or watch has more than 1000 query parameters, which API servers may drop",
    "never",
);
const BAD_METHOD: Kind = kind(
    "BadMethod",
    StatusCode::BAD_REQUEST,
    "BadRequest",
    "the method is CONNECT or TRACE, which no API server serves",
    "never",
);
const CODED: Kind = kind(
    "Coded",
    StatusCode::BAD_REQUEST,
    "BadRequest",
    "the body has a `Transfer-Encoding` other than `chunked` (HTTP/1.1)",
    "never",
);
const BODY_TOO_LARGE: Kind = kind(
    "BodyTooLarge",
    StatusCode::PAYLOAD_TOO_LARGE,
    "RequestEntityTooLarge",
    "the body is longer than `request-body-max`",
    "never",
);
const STALLED: Kind =
    kind("Stalled", StatusCode::BAD_REQUEST, "BadRequest", "nothing of the body came for `upload-idle-timeout`", "never");
const UNKNOWN_CLUSTER: Kind =
    kind("UnknownCluster", StatusCode::BAD_GATEWAY, "BadGateway", "the cluster is not in the clusters file", "never");
const DENIED: Kind = kind(
    "Denied",
    StatusCode::FORBIDDEN,
    "Forbidden",
    "the callers file knows no such caller, or does not let it reach the cluster, which may not be there at all",
    "never",
);
const VERB_DENIED: Kind = kind(
    "VerbDenied",
    StatusCode::FORBIDDEN,
    "Forbidden",
    "the callers file lets the caller reach the cluster, but not do this there",
    "never",
);
const IMPERSONATION: Kind = kind(
    "Impersonation",
    StatusCode::FORBIDDEN,
    "Forbidden",
    "the request has `Impersonate-*` headers that the cluster does not allow",
    "never",
);
const UNAUDITED: Kind = kind(
    "Unaudited",
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailable",
    "the audit log cannot be written, and the request is no mere reading",
    "always",
);
const RATE_LIMITED: Kind = kind(
    "RateLimited",
    StatusCode::TOO_MANY_REQUESTS,
    "TooManyRequests",
    "a turn under `caller-rate-limit`, `cluster-rate-limit` or `rate-limit` comes too late",
    "always",
);
const CALLER_FULL: Kind = kind(
    "CallerFull",
    StatusCode::TOO_MANY_REQUESTS,
    "TooManyRequests",
    "the caller has `caller-streams-max` requests running",
    "always",
);
const OFFLINE: Kind = kind(
    "Offline",
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailable",
    "no agent of the cluster is connected, also after waiting `park-max`",
    "when the last session was lost within `park-window`",
);
const PARKING_FULL: Kind = kind(
    "ParkingFull",
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailable",
    "too many requests wait for lost agents: 1000 (16 MiB of heads) in all, or as many of one cluster as are free",
    "always",
);
const DRAINING: Kind =
    kind("Draining", StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the server is stopping", "always");
const CROWDED: Kind = kind(
    "Crowded",
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailable",
    "all places for callers' connections are taken",
    "always",
);
const SESSION_FULL: Kind = kind(
    "SessionFull",
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailable",
    "the cluster's sessions have no room for another stream",
    "always",
);
const NOT_TAKEN: Kind = kind(
    "NotTaken",
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailable",
    "the agent did not take the request; nothing was executed",
    "always",
);
const BROKEN: Kind =
    kind("Broken", StatusCode::BAD_GATEWAY, "BadGateway", "the tunnel broke before an answer began", "for GET and HEAD");
const TIMEOUT: Kind = kind(
    "Timeout",
    StatusCode::GATEWAY_TIMEOUT,
    "Timeout",
    "no answer began within `response-header-timeout`",
    "for GET and HEAD",
);

/// Every kind, for REFERENCE.md.
pub(crate) const KINDS: &[Kind] = &[
    BAD_PATH,
    CROSS_SITE,
    FRAGMENT,
    TOO_LONG,
    MANY_PARAMETERS,
    BAD_METHOD,
    CODED,
    BODY_TOO_LARGE,
    STALLED,
    UNKNOWN_CLUSTER,
    DENIED,
    VERB_DENIED,
    IMPERSONATION,
    UNAUDITED,
    RATE_LIMITED,
    CALLER_FULL,
    OFFLINE,
    PARKING_FULL,
    DRAINING,
    CROWDED,
    SESSION_FULL,
    NOT_TAKEN,
    BROKEN,
    TIMEOUT,
];

impl Refusal {
    /// What kind of refusal it is.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::BadPath => BAD_PATH,
            Self::CrossSite => CROSS_SITE,
            Self::Fragment => FRAGMENT,
            Self::TooLong { .. } => TOO_LONG,
            Self::ManyParameters { .. } => MANY_PARAMETERS,
            Self::BadMethod { .. } => BAD_METHOD,
            Self::Coded => CODED,
            Self::BodyTooLarge { .. } => BODY_TOO_LARGE,
            Self::Stalled { .. } => STALLED,
            Self::UnknownCluster { .. } => UNKNOWN_CLUSTER,
            Self::Denied(_) => DENIED,
            Self::VerbDenied { .. } => VERB_DENIED,
            Self::Impersonation { .. } => IMPERSONATION,
            Self::Unaudited => UNAUDITED,
            Self::RateLimited { .. } => RATE_LIMITED,
            Self::CallerFull { .. } => CALLER_FULL,
            Self::Offline { .. } => OFFLINE,
            Self::ParkingFull => PARKING_FULL,
            Self::Draining => DRAINING,
            Self::Crowded => CROWDED,
            Self::SessionFull { .. } => SESSION_FULL,
            Self::NotTaken { .. } => NOT_TAKEN,
            Self::Broken { .. } => BROKEN,
            Self::Timeout { .. } => TIMEOUT,
        }
    }

    /// The words.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::BadPath => "the path must be /tunnel/CLUSTER/ and the API server's path".to_owned(),
            Self::CrossSite => {
                "a page of another site may not ask through a browser (Origin); a bearer token is needed".to_owned()
            }
            Self::Fragment => "a request target has no fragment: write # as %23".to_owned(),
            Self::TooLong { max } => format!("path and query are longer than {max} bytes"),
            Self::ManyParameters { max } => format!("a list or watch has more than {max} query parameters"),
            Self::BadMethod { method } => format!("{method} is not forwarded"),
            Self::Coded => "a body has no transfer coding but chunked, once".to_owned(),
            Self::BodyTooLarge { max } => format!("the body is longer than {max} bytes (request-body-max)"),
            Self::Stalled { max } => {
                format!("nothing of the body came for {max:?} (upload-idle-timeout); the request may have been executed")
            }
            Self::UnknownCluster { cluster } => format!("there is no cluster {cluster:?}; see the server's clusters file"),
            Self::Denied(_) => "this is not allowed, or there is no such cluster; the server's log says why".to_owned(),
            Self::VerbDenied { caller, verb, cluster } => {
                format!("the caller {caller} may not {verb} in cluster {cluster}; see the server's callers file")
            }
            Self::Impersonation { why } => format!("{why}; without the header the request would have the agent's own rights"),
            Self::Unaudited => {
                "the server's audit log cannot be written; until it can, nothing is done that would have to stand in it"
                    .to_owned()
            }
            Self::RateLimited { limit, .. } => format!("the rate limit of this server is reached ({limit})"),
            Self::CallerFull { max } => format!("{max} requests of this caller run already (caller-streams-max)"),
            Self::Offline { cluster, since, why, .. } => {
                let why = why.as_ref().map(|why| format!(", last error: {why}")).unwrap_or_default();
                format!("the agent of cluster {cluster} is offline since {since}{why}")
            }
            Self::ParkingFull => "too many requests wait for agents that were just lost".to_owned(),
            Self::Draining => "the server is stopping".to_owned(),
            Self::Crowded => "all places for connections are taken".to_owned(),
            Self::SessionFull { cluster } => format!("the sessions of cluster {cluster} have no room for another request"),
            Self::NotTaken { why } => format!("the agent did not take the request: {why}"),
            Self::Broken { why, .. } => {
                format!("the tunnel broke before an answer came; the request may have been executed: {why}")
            }
            Self::Timeout { max, .. } => {
                format!("no answer began within {max:?} (response-header-timeout); the request may have been executed")
            }
        }
    }

    /// Whether it is because nobody knows who asks.
    pub(crate) fn is_of_identity(&self) -> bool {
        matches!(self, Self::Denied(denial) if *denial != Denial::Cluster)
    }

    /// The words for the log, which may say more.
    pub(crate) fn words_for_log(&self) -> String {
        if let Self::Denied(denial) = self { format!("denied: {denial}") } else { self.message() }
    }

    /// The answer, with the request id for finding it in the logs.
    pub(crate) fn into_response(self, request_id: &str) -> Response<Body> {
        let Kind { label, status, reason, .. } = self.kind();
        let message = self.message();
        let text = format!("postern: {message} (request {request_id})");
        let status = Status::failure(status, reason, text).cause(label, message);
        let mut response = match self.retry_after() {
            Some(seconds) => status.retry_after(seconds),
            None => status,
        }
        .into_response();
        if matches!(self, Self::Draining | Self::Crowded) {
            // The next connection goes to another replica, or finds a place.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Seconds of `Retry-After`.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::BadPath
            | Self::CrossSite
            | Self::Fragment
            | Self::TooLong { .. }
            | Self::ManyParameters { .. }
            | Self::BadMethod { .. }
            | Self::Coded
            | Self::BodyTooLarge { .. }
            | Self::Stalled { .. }
            | Self::UnknownCluster { .. }
            | Self::Denied(_)
            | Self::VerbDenied { .. }
            | Self::Impersonation { .. } => None,
            Self::RateLimited { retry_after, .. } => Some(whole_seconds(*retry_after)),
            // Who went a while ago will not be back in seconds.
            Self::Offline { recent, .. } => recent.then_some(1),
            // Until somebody has made room on a disk.
            Self::Unaudited => Some(10),
            // Until some of those who wait have given up.
            Self::ParkingFull => Some(5),
            Self::CallerFull { .. } | Self::Draining | Self::Crowded | Self::SessionFull { .. } | Self::NotTaken { .. } => {
                Some(1)
            }
            Self::Broken { repeatable, .. } | Self::Timeout { repeatable, .. } => repeatable.then_some(1),
        }
    }
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Refusal> {
        let offline = |recent| Refusal::Offline { cluster: "edge-1".into(), since: Timestamp::UNIX_EPOCH, why: None, recent };
        vec![
            Refusal::BadPath,
            Refusal::CrossSite,
            Refusal::Fragment,
            Refusal::TooLong { max: 1 },
            Refusal::ManyParameters { max: 1 },
            Refusal::Coded,
            Refusal::BodyTooLarge { max: 1 },
            Refusal::Stalled { max: Duration::from_secs(1) },
            Refusal::UnknownCluster { cluster: "nowhere".into() },
            Refusal::Denied(Denial::Stranger),
            Refusal::VerbDenied { caller: "argocd".into(), verb: "create".into(), cluster: "edge-1".into() },
            Refusal::Impersonation { why: "the header impersonate-user is not allowed".into() },
            Refusal::Unaudited,
            Refusal::RateLimited { limit: "rate-limit", retry_after: Duration::from_millis(1500) },
            Refusal::CallerFull { max: 1 },
            offline(true),
            offline(false),
            Refusal::BadMethod { method: "TRACE".into() },
            Refusal::ParkingFull,
            Refusal::Draining,
            Refusal::Crowded,
            Refusal::SessionFull { cluster: "edge-1".into() },
            Refusal::NotTaken { why: "no".into() },
            Refusal::Broken { why: "gone".into(), repeatable: true },
            Refusal::Broken { why: "gone".into(), repeatable: false },
            Refusal::Timeout { max: Duration::from_secs(1), repeatable: false },
        ]
    }

    #[test]
    fn no_refusal_reads_as_a_fact_about_an_object() {
        for refusal in all() {
            let code = refusal.kind().status.as_u16();
            assert!([400, 403, 413, 414, 429, 502, 503, 504].contains(&code), "{refusal:?}");
        }
    }

    #[test]
    fn what_may_have_been_executed_carries_no_retry_hint() {
        for refusal in all() {
            let hinted = refusal.clone().into_response("r").headers().contains_key("retry-after");
            let may_have_run =
                matches!(refusal, Refusal::Broken { repeatable: false, .. } | Refusal::Timeout { repeatable: false, .. });
            assert!(!(hinted && may_have_run), "{refusal:?}");
        }
    }

    #[test]
    fn a_retry_hint_is_never_shorter_than_the_wait() {
        let response = Refusal::RateLimited { limit: "rate-limit", retry_after: Duration::from_millis(1500) }.into_response("r");
        assert_eq!(response.headers()["retry-after"], "2");
    }
}
