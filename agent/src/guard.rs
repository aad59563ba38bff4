//! What this agent lets through, even for a trusted server.

use http::{Method, Request, StatusCode};
use proxy::hygiene;
use proxy::status::Status;

/// The "no" to a request that breaks a rule which holds for every cluster. The server has checked the same rules, and the
/// agent believes nobody.
pub(crate) fn refusal<B>(request: &Request<B>) -> Option<Status> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        // TRACE would show the agent's token to the caller.
        let message = format!("postern agent: {} is not forwarded", request.method());
        return Some(Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message).cause("BadMethod", "refused by the agent"));
    }
    if request.uri().authority().is_some() || !request.uri().path().starts_with('/') {
        // What names another place than our target, or none, is nothing that a server sends.
        let message = "postern agent: the request target is not a path".to_owned();
        return Some(Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message).cause("BadTarget", "refused by the agent"));
    }
    if hygiene::is_coded(request.headers()) {
        let message = "postern agent: a body has no transfer coding but chunked, once".to_owned();
        return Some(Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message).cause("Coded", "refused by the agent"));
    }
    let header = hygiene::impersonation(request.headers())?;
    let message = format!("postern agent: the header {header} is not allowed: it would run with the agent's rights");
    Some(Status::failure(StatusCode::FORBIDDEN, "Forbidden", message).cause("Impersonation", "refused by the agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_is_refused() {
        let request = |target: &str| Request::get(target).body(()).expect("a request");
        assert_eq!(refusal(&request("/api?a=b")), None);
        for target in ["http://169.254.169.254/latest", "*", "kubernetes:443"] {
            assert_eq!(refusal(&request(target)).expect("refused").code, 400, "{target}");
        }
    }

    #[test]
    fn a_body_in_an_unknown_coding_is_refused() {
        let request = |coding: &str| Request::post("/api").header("transfer-encoding", coding).body(()).expect("a request");
        assert_eq!(refusal(&request("chunked")), None);
        assert_eq!(refusal(&request("gzip, chunked")).expect("refused").code, 400);
    }

    #[test]
    fn who_asks_to_be_somebody_else_is_refused_and_not_stripped() {
        let request = |name: &str| Request::get("/api").header(name, "x").body(()).expect("a request");
        assert_eq!(refusal(&request("accept")), None);
        let refused = refusal(&request("Impersonate-User")).expect("refused");
        assert_eq!(refused.code, 403);
    }
}
