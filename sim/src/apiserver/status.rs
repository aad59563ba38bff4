//! Every "no" of the fake API server, as the `Status` body that a real one sends.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::kinds::Kind;

/// A refusal in the words of the Kubernetes API conventions ("Response Status Kind").
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
    /// Seconds to wait before trying again, sent as `Retry-After` too.
    retry_after: Option<u32>,
    /// Where a list may go on all the same.
    next: Option<String>,
}

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, retry_after: None, next: None }
    }

    /// With empty details: kubectl looks into those of such a status without asking whether there are any.
    fn generic(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { details: json!({}), ..Self::new(code, reason, message) }
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> u16 {
        self.code.as_u16()
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// What an API server answers whose etcd has lost its quorum (k8s.io/apiserver, `NewInternalError` of etcd's words).
    pub(crate) fn leaderless() -> Self {
        let message = "Internal error occurred: etcdserver: no leader";
        Self::generic(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.resource());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    pub(crate) fn no_such_path() -> Self {
        Self::generic(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::generic(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.resource());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// One field of an object is wrong; `why` reads as in "Required value: name or generateName is required".
    pub(crate) fn invalid(kind: &Kind, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is invalid: {field}: {why}", kind.kind);
        let mut status = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name);
        let reason = if why.starts_with("Required value") { "FieldValueRequired" } else { "FieldValueInvalid" };
        status.details["kind"] = kind.kind.into();
        status.details["causes"] = json!([{ "reason": reason, "message": why, "field": field }]);
        status
    }

    /// The request is well formed and does not fit the object.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::generic(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// The history that was asked for is gone; a client lists again.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A page's revision is gone; `next` is the token to read the rest as it is now.
    pub(crate) fn continue_expired(next: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                       list without the continue parameter, or use the continue token in this response to retrieve the \
                       remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
                       that were created, modified, or deleted between the time the first chunk was returned and now may show \
                       up in the list.";
        Self { next: Some(next), ..Self::expired(message) }
    }

    pub(crate) fn revision_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut status = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        status.details = json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        });
        status.retry_after = Some(1);
        status
    }

    /// An admission webhook was asked and did not answer in time.
    pub(crate) fn webhook_timed_out() -> Self {
        let why = "failed calling webhook \"validate.policy.example.com\": failed to call webhook: \
                   Post \"https://policy.policy-system.svc:443/validate?timeout=10s\": context deadline exceeded";
        let mut status = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("Internal error occurred: {why}"));
        status.details = json!({ "causes": [{ "message": why }] });
        status
    }

    /// The request took longer than the server lets it.
    pub(crate) fn timed_out() -> Self {
        let message = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Self::generic(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, application/json;stream=watch";
        Self::generic(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::generic(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// A real API server does this; the fake refuses rather than doing it almost right.
    pub(crate) fn not_simulated(what: &str) -> Self {
        let message = format!("{what} is not simulated; use a real API server");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({ "name": name, "kind": kind.plural });
        if !kind.group.is_empty() {
            self.details["group"] = kind.group.into();
        }
        self
    }

    /// The body, also as the object of an `ERROR` watch event.
    pub(crate) fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if let Some(next) = &self.next {
            status["metadata"]["continue"] = next.as_str().into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = body::json(self.code, &self.to_json());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
