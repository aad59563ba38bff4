//! Kubernetes `Status` bodies (meta/v1): how an API server says no, so that client-go understands it.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::body::{self, Body};

/// A failed request, as the API server itself would tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    kind: String,
    api_version: String,
    /// Always there, always empty.
    #[serde(default)]
    metadata: Empty,
    status: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// For programs: one of the API's reasons, such as `ServiceUnavailable`.
    #[serde(default)]
    pub reason: String,
    /// More about the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status.
    #[serde(default)]
    pub code: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Empty {}

/// More about a [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// Each cause on its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// After how many seconds the caller may try again; 0 = no hint.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// One cause of a [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Status {
    /// A failure with `code`; `reason` is one of the API's, `message` is for people.
    pub fn failure(code: StatusCode, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: Empty {},
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.into(),
            details: None,
            code: code.as_u16(),
        }
    }

    /// Adds a cause.
    pub fn cause(mut self, reason: impl Into<String>, message: impl Into<String>) -> Self {
        self.details.get_or_insert_default().causes.push(Cause { reason: reason.into(), message: message.into() });
        self
    }

    /// Tells the caller to repeat the request after `seconds`, at least 1. client-go then repeats any verb, so only
    /// for a request that cannot have been executed, or one that may be executed twice.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds.max(1);
        self
    }

    /// The status that stands in a body, if one does.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|status: &Self| status.kind == "Status")
    }

    /// The answer: code, `Retry-After` if there is a hint, and the JSON body.
    pub fn into_response(self) -> Response<Body> {
        let json = serde_json::to_vec(&self).expect("strings and numbers always serialize");
        let mut response = Response::new(body::full(json));
        *response.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.details.map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_reads_as_the_api_servers_own() {
        let status = Status::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "cluster edge-1 has no agent")
            .cause("AgentOffline", "never seen")
            .retry_after(0);
        let response = status.clone().into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[RETRY_AFTER], "1");

        let body = response.into_body().collect().await.expect("a full body").to_bytes();
        let text = std::str::from_utf8(&body).expect("JSON");
        insta::assert_snapshot!(text, @r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"cluster edge-1 has no agent","reason":"ServiceUnavailable","details":{"causes":[{"reason":"AgentOffline","message":"never seen"}],"retryAfterSeconds":1},"code":503}"#);
        assert_eq!(Status::parse(&body), Some(status));
    }

    #[test]
    fn without_a_hint_there_is_no_retry_header_and_no_details() {
        let status = Status::failure(StatusCode::FORBIDDEN, "Forbidden", "no");
        assert!(!status.clone().into_response().headers().contains_key(RETRY_AFTER));
        assert_eq!(status.details, None);
    }

    #[test]
    fn what_the_api_server_sends_is_understood() {
        let body = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        assert_eq!(Status::parse(body).map(|status| status.code), Some(401));
        assert_eq!(Status::parse(b"bad gateway"), None);
    }
}
