//! The agent's token towards an API server that gives canned answers.

use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use tempfile::NamedTempFile;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

#[tokio::test]
async fn a_new_token_is_used_soon_after_it_was_written() {
    let (server, token) = (MockServer::start().await, token_file("first"));
    for (token, body) in [("first", "one"), ("second", "two")] {
        Mock::given(header("authorization", format!("Bearer {token}")))
            .respond_with(ResponseTemplate::new(200).set_body_string(body))
            .mount(&server)
            .await;
    }
    let upstream = upstream(&server, &token);
    assert_eq!(text(upstream.send(request("GET"), false).await).await, "one");
    write(&token, "second\n");
    pass(token::AGE_MAX).await;
    assert_eq!(text(upstream.send(request("GET"), false).await).await, "two");
}

#[tokio::test]
async fn a_refused_token_is_told_as_the_agents_own_fault() {
    let (server, token) = (MockServer::start().await, token_file("stale"));
    Mock::given(method("GET")).respond_with(unauthorized()).expect(1).mount(&server).await;
    let error = upstream(&server, &token).send(request("GET"), false).await.expect_err("refused");
    assert!(matches!(&error, UpstreamError::TokenRefused { path } if path.as_str() == path_of(&token)), "{error}");
}

#[tokio::test]
async fn a_token_that_was_rotated_meanwhile_is_tried_once_for_what_changes_nothing() {
    let (server, token) = (MockServer::start().await, token_file("old"));
    let rotated = path_of(&token).to_owned();
    let rotate = move |_: &wiremock::Request| {
        std::fs::write(&rotated, "new").expect("a writable file");
        unauthorized()
    };
    Mock::given(header("authorization", "Bearer old")).respond_with(rotate).mount(&server).await;
    Mock::given(header("authorization", "Bearer new"))
        .respond_with(ResponseTemplate::new(200).set_body_string("in"))
        .mount(&server)
        .await;

    let upstream = upstream(&server, &token);
    assert_eq!(text(upstream.send(request("GET"), false).await).await, "in");
    write(&token, "old");
    pass(token::AGE_MAX).await;
    let error = upstream.send(request("POST"), false).await.expect_err("a POST is not repeated");
    assert!(matches!(error, UpstreamError::TokenRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_401_from_behind_the_api_server_is_passed_on() {
    let (server, token) = (MockServer::start().await, token_file("t"));
    let page = ResponseTemplate::new(401).insert_header("www-authenticate", "Basic").set_body_string("sign in");
    Mock::given(path("/grafana")).respond_with(page).mount(&server).await;
    Mock::given(path("/api/v1/namespaces/a/services/b/proxy/")).respond_with(unauthorized()).mount(&server).await;
    let upstream = upstream(&server, &token);
    for path in ["/grafana", "/api/v1/namespaces/a/services/b/proxy/"] {
        let mut request = request("GET");
        *request.uri_mut() = path.parse().expect("a path");
        let response = upstream.send(request, false).await.expect("an answer");
        assert_eq!(response.status(), 401, "{path}");
        assert!(!response.into_body().collect().await.expect("whole").to_bytes().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn an_unreachable_api_server_has_seen_nothing() {
    let token = token_file("t");
    // Port 1 (tcpmux) has had no user for decades.
    let target = HostPort { host: "127.0.0.1".to_owned(), port: 1 };
    let upstream = Upstream::new(Host::real(), target, None, path_of(&token).to_owned());
    let error = upstream.send(request("POST"), false).await.expect_err("nobody there");
    assert!(error.nothing_was_done(), "{error}");
}

#[tokio::test]
async fn an_answers_own_headers_are_not_touched() {
    let (server, token) = (MockServer::start().await, token_file("t"));
    let answer = ResponseTemplate::new(200).set_body_raw("{}", "application/vnd.kubernetes.protobuf;stream=watch");
    Mock::given(method("GET")).respond_with(answer).mount(&server).await;
    let response = upstream(&server, &token).send(request("GET"), false).await.expect("an answer");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
}

fn upstream(server: &MockServer, token: &NamedTempFile) -> Upstream {
    let target = HostPort { host: server.address().ip().to_string(), port: server.address().port() };
    Upstream::new(Host::real(), target, None, path_of(token).to_owned())
}

/// What an API server says to a token that it does not know.
fn unauthorized() -> ResponseTemplate {
    let status = Status::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
    ResponseTemplate::new(401).set_body_json(status)
}

fn request(method: &str) -> Request<Body> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    Request::builder().method(method).uri("/api").body(body::empty()).expect("a request")
}

async fn text(response: Result<Response<Body>, UpstreamError>) -> String {
    let body = response.expect("an answer").into_body().collect().await.expect("whole").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

fn token_file(content: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    write(&file, content);
    file
}

fn write(file: &NamedTempFile, content: &str) {
    std::fs::write(file.path(), content).expect("a writable file");
}

fn path_of(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a plain path")
}

/// Lets time pass that nobody has to wait for.
async fn pass(time: std::time::Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
