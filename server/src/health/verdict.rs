//! What the answer to a probe says: the version of Kubernetes, or in words what stands in its place.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use proxy::status::Status;
use serde::Deserialize;
use tunnel::OpenError;

use crate::foreign;
use crate::forward::stream_error;

/// Bytes of a version: `v1.33.4+k3s1`, with room for a distribution's own.
const VERSION_BYTES_MAX: usize = 64;

/// Bytes of words: a sentence with its causes.
pub(crate) const WORDS_BYTES_MAX: usize = 256;

/// What an API server says at `/version` (k8s.io/apimachinery, pkg/version), as far as it is read.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "gitVersion")]
    git_version: String,
}

/// What a whole answer says.
pub(super) fn of_answer(status: StatusCode, body: &[u8]) -> Result<String, String> {
    if status != StatusCode::OK {
        let told = Status::parse(body).map(|status| status.message).filter(|message| !message.trim().is_empty());
        let told = told.or_else(|| std::str::from_utf8(body).ok().filter(|text| !text.trim().is_empty()).map(str::to_owned));
        let words = told.map_or_else(|| status.to_string(), |told| format!("{status}: {told}"));
        return Err(foreign::shown(&words, WORDS_BYTES_MAX));
    }
    match serde_json::from_slice::<Version>(body) {
        Ok(version) if !version.git_version.trim().is_empty() => Ok(foreign::shown(&version.git_version, VERSION_BYTES_MAX)),
        Ok(_) | Err(_) => Err("the answer to GET /version names no version; is the agent's --target an API server?".to_owned()),
    }
}

/// Nothing came in time.
pub(super) fn no_answer(max: Duration) -> String {
    format!("no answer within {} s", max.as_secs())
}

/// The session had no room for the question: callers are refused for the same reason.
pub(super) fn not_asked(error: OpenError) -> String {
    foreign::shown(&format!("not asked: {error}"), WORDS_BYTES_MAX)
}

/// No answer, or not all of it, came.
pub(super) fn broken(error: &(dyn Error + 'static)) -> String {
    let words = stream_error(error).map_or_else(|| error.to_string(), |of_stream| format!("the stream broke off: {of_stream}"));
    foreign::shown(&words, WORDS_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_with_a_version_is_healthy() {
        let of = |status: u16, body: &str| of_answer(StatusCode::from_u16(status).expect("a status"), body.as_bytes());
        assert_eq!(of(200, r#"{"major": "1", "gitVersion": "v1.33.4+k3s1"}"#).as_deref(), Ok("v1.33.4+k3s1"));
        let no_version = "the answer to GET /version names no version; is the agent's --target an API server?";
        for body in
            ["", "ok", "{}", "null", "[]", r#"{"gitVersion": ""}"#, r#"{"gitVersion": 1}"#, r#"{"gitVersion": "v1"} and more"#]
        {
            assert_eq!(of(200, body), Err(no_version.to_owned()), "{body}");
        }
        for status in [201, 204, 301, 401, 403, 500, 503] {
            assert!(of(status, r#"{"gitVersion": "v1.33.4"}"#).is_err(), "{status}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words_and_no_more_than_can_be_shown() {
        let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"postern agent: the cluster is frozen by its own people","reason":"Frozen","code":503}"#;
        let told = of_answer(StatusCode::SERVICE_UNAVAILABLE, status.as_bytes());
        assert_eq!(told, Err("503 Service Unavailable: postern agent: the cluster is frozen by its own people".to_owned()));
        assert_eq!(
            of_answer(StatusCode::INTERNAL_SERVER_ERROR, b"etcd is gone\n"),
            Err("500 Internal Server Error: etcd is gone".to_owned())
        );
        assert_eq!(of_answer(StatusCode::BAD_GATEWAY, b"\xff\xfe"), Err("502 Bad Gateway".to_owned()));
        let long = of_answer(StatusCode::BAD_GATEWAY, "\u{202e}<script>".repeat(5000).as_bytes()).expect_err("no version");
        assert!(long.len() <= WORDS_BYTES_MAX && !long.contains('\u{202e}'), "{long}");
        let version = format!(r#"{{"gitVersion": "v1.33.4{}"}}"#, "x".repeat(5000));
        assert!(of_answer(StatusCode::OK, version.as_bytes()).expect("a version").len() <= VERSION_BYTES_MAX);
    }
}
