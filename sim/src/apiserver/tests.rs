//! The server as its callers see it: requests over bytes in memory, on a clock that stands still while nothing happens.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{AUTHORIZATION, HeaderName, TE, TRAILER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::*;

/// Bytes that wait between caller and server.
const PIPE_BYTES: usize = 64 * 1024;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn a_caller_without_the_token_is_refused_and_still_logged() {
    let server = server(Options { token: Some("secret".to_owned()), ..Options::default() });
    let mut caller = Caller::new(&server).await;
    let with =
        |token: &str| Request::get(PODS).header(AUTHORIZATION, format!("Bearer {token}")).body(no_body()).expect("a request");
    assert_eq!(caller.get(PODS).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(caller.send(with("wrong")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(caller.send(with("secret")).await.status(), StatusCode::OK);
    assert_eq!(caller.get("/readyz").await.status(), StatusCode::OK);
    server.set_tokens(vec!["secret".to_owned(), "rotated".to_owned()]);
    assert_eq!(caller.send(with("secret")).await.status(), StatusCode::OK);
    assert_eq!(caller.send(with("rotated")).await.status(), StatusCode::OK);
    server.set_tokens(vec!["rotated".to_owned()]);
    assert_eq!(caller.send(with("secret")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.requests().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_logged_byte_for_byte() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let target = "/echo//a/../b%2Fc;x?q=%zz&&q?";
    let echoed = json(caller.get(target).await).await;
    assert_eq!(echoed["target"], target);
    assert_eq!(server.requests().last().map(|request| request.target.clone()).as_deref(), Some(target));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_every_change_and_ends_with_its_caller() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let mut watch = Lines::new(caller.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", server.revision())).await);
    server.wait_for_watches(1).await;

    server.put("configmaps", "default", "seen", json!({ "data": { "k": "1" } }));
    server.put("configmaps", "default", "seen", json!({ "data": { "k": "2" } }));
    server.put("configmaps", "kube-system", "unseen", json!({}));
    server.delete("configmaps", "default", "seen");
    for wanted in ["ADDED", "MODIFIED", "DELETED"] {
        let event = watch.next().await;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(wanted), &json!("seen")));
    }

    drop((watch, caller));
    server.wait_for_watches(0).await;
    server.wait_for_requests_open(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_allows_bookmarks_gets_one_an_interval() {
    let server = server(Options { bookmark_every: Duration::from_secs(7), ..Options::default() });
    let mut caller = Caller::new(&server).await;
    let began = Instant::now();
    let query = format!("watch=1&allowWatchBookmarks=true&resourceVersion={}", server.revision());
    let mut watch = Lines::new(caller.get(&format!("{CONFIG_MAPS}?{query}")).await);
    let bookmark = watch.next().await;
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], server.revision().to_string());
    assert_eq!(began.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_timeout() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let began = Instant::now();
    let answer = caller.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=5&resourceVersion={}", server.revision())).await;
    assert!(answer.into_body().collect().await.expect("a clean end").to_bytes().is_empty());
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_before_a_compaction_is_told_410_and_ended() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let start = server.revision();
    server.put("configmaps", "default", "a", json!({}));
    server.compact();
    let mut watch = Lines::new(caller.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}")).await);
    let event = watch.next().await;
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(watch.body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn writes_are_logged_once_each_and_refused_ones_not() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let object = json!({ "metadata": { "name": "a" } }).to_string();
    let post = || Request::post(CONFIG_MAPS).body(Full::from(object.clone())).expect("a request");
    assert_eq!(caller.send(post()).await.status(), StatusCode::CREATED);
    assert_eq!(caller.send(post()).await.status(), StatusCode::CONFLICT);
    let writes = server.executed_writes();
    assert_eq!(writes.len(), 1);
    assert_eq!((writes[0].verb, writes[0].resource.as_str(), writes[0].name.as_str()), ("create", "configmaps", "a"));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_server_says_when_to_come_back() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let throttled = server.misbehave(Misbehavior::Throttled { retry_after: 1 });
    let answer = caller.get(PODS).await;
    assert_eq!((answer.status(), answer.headers()["retry-after"].as_bytes()), (StatusCode::TOO_MANY_REQUESTS, b"1".as_slice()));
    server.behave(throttled);
    assert_eq!(caller.get(PODS).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_grows_by_a_line_a_second_until_its_pod_is_gone() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let began = Instant::now();
    let mut log = caller.get(&format!("{PODS}/web-0/log?follow=true&tailLines=1")).await.into_body();
    for wanted in ["web line 9\n", "web line 10\n", "web line 11\n"] {
        assert_eq!(data(&mut log).await, wanted);
    }
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    server.delete("pods", "default", "web-0");
    assert!(log.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn exec_gives_back_what_it_is_sent_until_stdin_is_closed() {
    let server = server(Options::default());
    let mut exec = exec(&server, "command=cat&stdin=true&stdout=true", "v5.channel.k8s.io").await;
    assert_eq!(channel(&mut exec).await, (1, Bytes::new()));
    server.wait_for_execs(1).await;
    let piece: Vec<u8> = (0..32 * 1024).map(|i| (i % 251) as u8).collect();
    for _ in 0..20 {
        exec.send(Message::Binary([&[0], piece.as_slice()].concat().into())).await.expect("sent");
        assert_eq!(channel(&mut exec).await, (1, Bytes::from(piece.clone())));
    }
    exec.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.expect("sent");
    let (number, status) = channel(&mut exec).await;
    assert_eq!((number, status.as_ref()), (3, br#"{"metadata":{},"status":"Success"}"#.as_slice()));
    assert!(matches!(exec.next().await, Some(Ok(Message::Close(Some(frame)))) if frame.code == 1000_u16.into()));
    server.wait_for_execs(0).await;
}

#[tokio::test(start_paused = true)]
async fn exec_tells_the_exit_code_as_a_kubelet_does() {
    let server = server(Options::default());
    let query = "command=sh&command=-c&command=echo%20out%3B%20nope%3B%20exit%207&stdout=true&stderr=true";
    let mut exec = exec(&server, query, "v4.channel.k8s.io").await;
    let mut said = vec![Vec::new(); 4];
    while let Some(Ok(Message::Binary(payload))) = exec.next().await {
        said[usize::from(payload[0])].extend_from_slice(&payload[1..]);
    }
    assert_eq!(said[1], b"out\n");
    assert!(String::from_utf8_lossy(&said[2]).contains("not found"));
    let status: Value = serde_json::from_slice(&said[3]).expect("a status");
    assert_eq!((&status["reason"], &status["details"]["causes"][0]["message"]), (&json!("NonZeroExitCode"), &json!("7")));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_ends_its_exec() {
    let server = server(Options::default());
    let exec = exec(&server, "command=cat&stdin=true&stdout=true", "v4.channel.k8s.io").await;
    server.wait_for_execs(1).await;
    drop(exec);
    server.wait_for_execs(0).await;
}

#[tokio::test(start_paused = true)]
async fn spdy_is_refused_in_words() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let request =
        Request::post(format!("{PODS}/web-0/exec?command=cat")).header("upgrade", "SPDY/3.1").header("connection", "Upgrade");
    let answer = caller.send(request.body(no_body()).expect("a request")).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(json(answer).await["message"].as_str().is_some_and(|message| message.contains("SPDY/3.1 is not simulated")));
}

#[tokio::test(start_paused = true)]
async fn http_2_serves_many_requests_side_by_side() {
    let server = server(Options::default());
    let sender = http_2(&server).await;
    let watches = (0..100).map(|_| {
        let mut sender = sender.clone();
        async move { sender.send_request(Request::get(format!("{PODS}?watch=1")).body(no_body()).expect("a request")).await }
    });
    let watches: Vec<_> = futures_util::future::join_all(watches).await;
    server.wait_for_watches(100).await;
    assert!(watches.iter().all(Result::is_ok));
    drop(watches);
    server.wait_for_watches(0).await;
}

#[tokio::test(start_paused = true)]
async fn head_tells_the_length_and_sends_no_body() {
    let server = server(Options::default());
    let request = || Request::head(format!("{PODS}/web-0")).body(no_body()).expect("a request");
    let answers = [
        Caller::new(&server).await.send(request()).await,
        http_2(&server).await.send_request(request()).await.expect("an answer"),
    ];
    for answer in answers {
        assert!(answer.headers()["content-length"].to_str().is_ok_and(|length| length.len() > 2));
        assert!(answer.into_body().collect().await.expect("no body").to_bytes().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_body_is_its_pattern_with_and_without_a_length() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    for (query, length) in [("bytes=100000", Some("100000")), ("bytes=100000&chunked=1&pause_ms=10", None)] {
        let answer = caller.get(&format!("/bulk?{query}")).await;
        assert_eq!(answer.headers().get("content-length").and_then(|value| value.to_str().ok()), length);
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.len(), 100_000);
        assert!(body.iter().enumerate().all(|(at, byte)| *byte == pattern(at as u64)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_aborted_body_breaks_off_visibly() {
    let server = server(Options::default());
    for query in ["after=50000&bytes=100000", "after=50000"] {
        let mut caller = Caller::new(&server).await;
        let mut body = caller.get(&format!("/abort?{query}")).await.into_body();
        let mut n_bytes = 0;
        let broken = loop {
            match body.frame().await {
                Some(Ok(frame)) => n_bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(broken && n_bytes == 50_000, "{query}: {n_bytes} bytes, broken: {broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn declared_trailers_arrive_where_they_are_asked_for() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let answer = caller.send(Request::get("/trailers").header(TE, "trailers").body(no_body()).expect("a request")).await;
    assert_eq!(answer.headers()[TRAILER], "x-digest");
    let trailers = answer.into_body().collect().await.expect("a body").trailers().cloned();
    assert!(trailers.is_some_and(|trailers| trailers.contains_key(HeaderName::from_static("x-digest"))));
}

#[tokio::test(start_paused = true)]
async fn bodies_are_taken_and_given_back() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let sent = Bytes::from(vec![7; 300_000]);
    let post = |path: &str| Request::post(path).body(Full::from(sent.clone())).expect("a request");
    assert_eq!(caller.send(post("/echo")).await.into_body().collect().await.expect("a body").to_bytes(), sent);
    assert_eq!(json(caller.send(post("/upload")).await).await["bytes"], 300_000);
    assert_eq!(caller.get("/status/204").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(caller.get("/status/304").await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test(start_paused = true)]
async fn heads_of_256_fields_and_64_kib_are_taken() {
    let server = server(Options::default());
    let mut caller = Caller::new(&server).await;
    let mut request = Request::get("/echo");
    for field in 0..256 - 1 {
        request = request.header(format!("x-{field}"), "v".repeat(240));
    }
    let echoed = json(caller.send(request.header("host", "sim").body(no_body()).expect("a request")).await).await;
    assert_eq!(echoed["headers"].as_array().map(Vec::len), Some(256));
}

fn server(options: Options) -> ApiServer {
    ApiServer::new(Host::real(), options)
}

/// One HTTP/1.1 connection.
struct Caller(http1::SendRequest<Full<Bytes>>);

impl Caller {
    async fn new(server: &ApiServer) -> Self {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let served = server.clone();
        server.host().spawn("server", async move { served.serve_connection(far, false).await });
        let handshake = http1::Builder::new().max_headers(256).handshake(TokioIo::new(near)).await;
        let (sender, connection) = handshake.expect("a connection");
        server.host().spawn("caller", async move { drop(connection.with_upgrades().await) });
        Self(sender)
    }

    async fn get(&mut self, target: &str) -> Response<Incoming> {
        self.send(Request::get(target).body(no_body()).expect("a request")).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.0.ready().await.expect("an open connection");
        self.0.send_request(request).await.expect("an answer")
    }
}

async fn http_2(server: &ApiServer) -> http2::SendRequest<Full<Bytes>> {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let served = server.clone();
    server.host().spawn("server", async move { served.serve_connection(far, true).await });
    let handshake = http2::handshake(server.host().tasks().clone(), TokioIo::new(near)).await;
    let (sender, connection) = handshake.expect("a connection");
    server.host().spawn("caller", async move { drop(connection.await) });
    sender
}

/// A body of one JSON document a line.
struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    fn new(answer: Response<Incoming>) -> Self {
        assert_eq!(answer.status(), StatusCode::OK);
        Self { body: answer.into_body(), read: Vec::new() }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a JSON line");
            }
            self.read.extend(data(&mut self.body).await);
        }
    }
}

async fn exec(server: &ApiServer, query: &str, protocol: &str) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
    let mut caller = Caller::new(server).await;
    let request = Request::get(format!("{PODS}/web-0/exec?{query}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocol);
    let answer = caller.send(request.body(no_body()).expect("a request")).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    let upgraded = hyper::upgrade::on(answer).await.expect("an upgrade");
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// The next message: its channel and what it says.
async fn channel(exec: &mut WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) -> (u8, Bytes) {
    match exec.next().await {
        Some(Ok(Message::Binary(payload))) => (payload[0], payload.slice(1..)),
        other => panic!("no message on a channel: {other:?}"),
    }
}

async fn data(body: &mut Incoming) -> Bytes {
    body.frame().await.expect("more of the body").expect("a whole body").into_data().expect("no trailers")
}

async fn json(answer: Response<Incoming>) -> Value {
    serde_json::from_slice(&answer.into_body().collect().await.expect("a body").to_bytes()).expect("JSON")
}

fn no_body() -> Full<Bytes> {
    Full::new(Bytes::new())
}
