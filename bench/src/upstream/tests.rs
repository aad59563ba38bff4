//! The upstream over real TLS, as load processes and agents speak to it.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::FutureExt;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::body::EVENT_BYTES;
use super::*;

/// More than all windows and buffers between the two ends.
const LONG: usize = 40 << 20;

#[tokio::test]
async fn a_list_has_as_many_bytes_as_asked_for_and_no_announced_length() {
    let running = Running::start();
    for http2 in [false, true] {
        let mut caller = running.caller(http2).await;
        let (head, body) = caller.get(&format!("/api/v1/pods?bytes={LONG}"), &[]).await;
        assert_eq!(body.len(), LONG);
        assert_eq!(head.get(CONTENT_LENGTH), None);
        assert_eq!(head.contains_key(TRANSFER_ENCODING), !http2);
    }
}

#[tokio::test]
async fn an_object_has_as_many_bytes_as_announced() {
    let running = Running::start();
    for http2 in [false, true] {
        let mut caller = running.caller(http2).await;
        for bytes in [0, 1, 2048, 100_000] {
            let (head, body) = caller.get(&format!("/api/v1/namespaces/bench/configmaps/a?bytes={bytes}"), &[]).await;
            assert_eq!(body.len(), bytes);
            assert_eq!(head[CONTENT_LENGTH], bytes.to_string());
        }
    }
}

#[tokio::test]
async fn the_pages_of_a_list_hold_every_object_once() {
    let running = Running::start();
    let mut caller = running.caller(true).await;
    let (mut names, mut next, mut n_pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/apis/bench.postern/v1/kind7?limit=500&continue={next}&total=1203");
        let (head, body) = caller.get(&path, &[]).await;
        let body: Value = serde_json::from_slice(&body).expect("a page is JSON");
        names.extend(body["items"].as_array().expect("items").iter().map(|item| item["metadata"]["name"].clone().to_string()));
        n_pages += 1;
        next = head["x-continue"].to_str().expect("text").to_owned();
        assert_eq!(body["metadata"]["continue"], *next);
        if next.is_empty() {
            break;
        }
    }
    names.sort();
    names.dedup();
    assert_eq!((names.len(), n_pages), (1203, 3));
}

#[tokio::test]
async fn a_compressed_page_is_the_plain_one() {
    let running = Running::start();
    let mut caller = running.caller(true).await;
    let path = "/apis/bench.postern/v1/kind7?limit=500";
    let (head, plain) = caller.get(path, &[]).await;
    assert_eq!(head.get(CONTENT_ENCODING), None);
    let (head, gzip) = caller.get(path, &[(ACCEPT_ENCODING.as_str(), "gzip")]).await;
    assert_eq!(head[CONTENT_ENCODING], "gzip");
    let mut unpacked = Vec::new();
    GzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).expect("gzip");
    assert!(unpacked == plain);
}

#[tokio::test]
async fn a_watch_tells_its_events_in_order_and_stays_open() {
    let running = Running::start();
    for http2 in [false, true] {
        let mut caller = running.caller(http2).await;
        let before = SystemTime::now();
        let from = before + Duration::from_millis(50);
        let from_ms = from.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
        let path = format!("/api/v1/configmaps?watch=true&from={from_ms}&every=5&count=20");
        let mut body = caller.send(get(&path, &[])).await.into_body();
        let mut told = Vec::new();
        while told.len() < 20 * EVENT_BYTES {
            told.extend(body.frame().await.expect("more events").expect("whole").into_data().expect("data"));
        }
        let lines: Vec<Value> = told.split_inclusive(|byte| *byte == b'\n').map(event).collect();
        let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().expect("a number")).collect();
        assert_eq!(seqs, (0..20).collect::<Vec<_>>());
        for line in &lines {
            let due_ms = from_ms + 5 * u128::from(line["seq"].as_u64().expect("a number"));
            assert!(u128::from(line["sent"].as_u64().expect("a number")) >= due_ms * 1_000_000, "sent before its time");
        }
        // Only a cut ends it; polling once shows that it has not ended by itself.
        assert!(body.frame().now_or_never().is_none());
    }
}

#[tokio::test]
async fn a_watch_without_a_beginning_answers_at_once_and_tells_nothing() {
    let running = Running::start();
    let mut caller = running.caller(true).await;
    let mut watch = caller.send(get("/api/v1/configmaps?watch=true", &[])).await;
    assert_eq!(watch.status(), StatusCode::OK);
    caller.get("/version", &[]).await;
    assert!(watch.frame().now_or_never().is_none());
}

#[tokio::test]
async fn an_exec_echoes_raw_bytes_until_it_is_closed() {
    let running = Running::start();
    let mut io = running.upgrade("/api/v1/namespaces/bench/pods/web-0/exec").await;
    for n in [1, 100, 16 << 10] {
        let sent: Vec<_> = (0..n).map(|n: usize| (n % 251) as u8).collect();
        io.write_all(&sent).await.expect("write");
        io.flush().await.expect("flush");
        let mut echoed = vec![0; n];
        io.read_exact(&mut echoed).await.expect("read");
        assert_eq!(echoed, sent);
    }
    io.shutdown().await.expect("half-close");
    assert_eq!(io.read(&mut [0]).await.expect("the other half-close"), 0);
}

#[tokio::test]
async fn a_port_forward_sends_its_bytes_and_closes() {
    let running = Running::start();
    let mut io = running.upgrade(&format!("/api/v1/namespaces/bench/pods/web-0/portforward?bytes={LONG}")).await;
    // What the other side never reads must not make it reset the connection.
    io.write_all(b"unasked").await.expect("write");
    let n = tokio::io::copy(&mut io, &mut tokio::io::sink()).await.expect("to its end");
    assert_eq!(n, LONG as u64);
}

#[tokio::test]
async fn an_upload_is_counted() {
    let running = Running::start();
    for http2 in [false, true] {
        let mut caller = running.caller(http2).await;
        let mut request = get("/api/v1/namespaces/bench/configmaps", &[]);
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = Full::new(Bytes::from(vec![b'x'; LONG]));
        let response = caller.send(request).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(collected(response).await.1, format!(r#"{{"bytes":{LONG}}}"#));
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_no_number_400() {
    let running = Running::start();
    let mut caller = running.caller(false).await;
    for (path, status) in [("/api/v1/nodes", 404), ("/api/v1/pods?bytes=x", 400), ("/api/v1/namespaces/b/pods/p/exec", 400)] {
        let response = caller.send(get(path, &[])).await;
        assert_eq!(response.status(), status, "{path}");
        collected(response).await;
    }
}

/// An upstream that runs, and who trusts it.
struct Running {
    addr: SocketAddr,
    roots: RootCertStore,
}

impl Running {
    fn start() -> Self {
        host::tls::use_provider();
        let (pem, ca) = fresh().expect("certificates");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a root");
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(serve(listener, server_config(&pem).expect("TLS")));
        Self { addr, roots }
    }

    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let socket = TcpStream::connect(self.addr).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(protocol));
        tls
    }

    async fn caller(&self, http2: bool) -> Caller {
        if http2 {
            let io = TokioIo::new(self.connect(b"h2").await);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            Caller::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(self.connect(b"http/1.1").await)).await.expect("HTTP/1.1");
            tokio::spawn(connection.with_upgrades());
            Caller::Http1(sender)
        }
    }

    async fn upgrade(&self, path: &str) -> TokioIo<hyper::upgrade::Upgraded> {
        let mut caller = self.caller(false).await;
        let headers = [(CONNECTION.as_str(), "Upgrade"), (UPGRADE.as_str(), "websocket")];
        let response = caller.send(get(path, &headers)).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"))
    }
}

/// One connection to it.
enum Caller {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await.expect("open");
                sender.send_request(request).await.expect("an answer")
            }
            Self::Http2(sender) => sender.send_request(request).await.expect("an answer"),
        }
    }

    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (HeaderMap, Bytes) {
        let response = self.send(get(path, headers)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        collected(response).await
    }
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(format!("https://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

async fn collected(response: Response<Incoming>) -> (HeaderMap, Bytes) {
    let (head, body) = response.into_parts();
    (head.headers, body.collect().await.expect("whole").to_bytes())
}

/// One event's line.
fn event(line: &[u8]) -> Value {
    assert_eq!(line.len(), EVENT_BYTES);
    serde_json::from_slice(line).expect("an event is JSON")
}
