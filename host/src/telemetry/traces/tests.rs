//! Spans and their delivery to collectors of every temper, over connections in memory and under a paused clock.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;
use tokio::sync::mpsc;

use super::*;
use crate::tls::{self, Alpn, ServerFiles, ServerTls};
use crate::{BoxFuture, Connection, Listen, System, Tasks, ops};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// More than all batches of a queue take at the longest pause, and at the longest delivery.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_span_is_delivered_as_a_child_of_what_its_caller_began() {
    let (host, mut collector) = place(Temper::Takes);
    let tracer = tracer(&host, 0.0);
    let parent = TraceParent::parse(PARENT).expect("well-formed");
    let span = tracer.span(SpanKind::Server, "GET", || Some(parent));
    span.tell("url.path", &"ü".repeat(ATTRIBUTE_BYTES_MAX));
    span.count("http.response.status_code", 503);
    span.fail("Offline", "no agent is connected");
    let passed_on = span.traceparent().expect("traces are on");
    assert_eq!(span.trace_id().as_deref(), Some("0af7651916cd43dd8448eb211c80319c"), "the caller's word counts, not the ratio");
    drop(span.clone());
    assert!(collector.bodies.try_recv().is_err());
    drop(span);
    tracer.flush().await;

    let request = collector.bodies.recv().await.expect("a delivery");
    assert_eq!(request.path, "/v1/traces");
    let resource = request.spans.resource_spans[0].resource.clone().expect("a resource");
    assert!(format!("{resource:?}").contains("postern-test"), "{resource:?}");
    let [span] = &spans(&request)[..] else { panic!("one span") };
    assert_eq!(passed_on, format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)));
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    assert_eq!((span.name.as_str(), span.kind()), ("GET", otlp::span::SpanKind::Server));
    let status = span.status.clone().expect("a status");
    assert_eq!((status.code(), status.message.as_str()), (otlp::status::StatusCode::Error, "no agent is connected"));
    let keys: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["url.path", "http.response.status_code", "error.type"]);
    let longest = span.attributes.iter().map(Message::encoded_len).max().expect("attributes");
    assert!(longest < ATTRIBUTE_BYTES_MAX + 32, "{longest}");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sampled_is_not_delivered_and_says_so_further_on() {
    let (host, mut collector) = place(Temper::Takes);
    let not_sampled = PARENT.replace("-01", "-00");
    let all = tracer(&host, 1.0);
    let span = all.span(SpanKind::Client, "GET", || TraceParent::parse(&not_sampled));
    let passed_on = span.traceparent().expect("traces are on");
    assert!(passed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && passed_on.ends_with("-00"), "{passed_on}");
    assert_eq!(span.trace_id(), None);
    drop(span);
    let none = tracer(&host, 0.0);
    assert!(none.span(SpanKind::Client, "GET", || None).traceparent().expect("traces are on").ends_with("-00"));
    for tracer in [all, none] {
        tracer.flush().await;
    }
    assert!(collector.bodies.try_recv().is_err());
    let off = Tracer::default().span(SpanKind::Client, "GET", || None);
    assert_eq!((off.traceparent(), off.trace_id()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_dead_silent_or_refuses_costs_its_spans_and_nothing_else() {
    for (temper, flushes_within) in [
        (Temper::Dead, Duration::from_secs(1)),
        (Temper::Silent, Duration::from_secs(6)),
        (Temper::Answers(StatusCode::SERVICE_UNAVAILABLE), Duration::from_secs(1)),
    ] {
        let (host, _collector) = place(temper);
        let tracer = tracer(&host, 1.0);
        let n_spans = 10_000;
        let began = tokio::time::Instant::now();
        (0..n_spans).for_each(|_| drop(tracer.span(SpanKind::Server, "GET", || None)));
        assert!(began.elapsed().is_zero(), "{temper:?}: ending a span waits for nothing");
        let flushing = tokio::time::Instant::now();
        tracer.flush().await;
        assert!(flushing.elapsed() <= flushes_within, "{temper:?}: {:?}", flushing.elapsed());
        while counted(&tracer) != (0, n_spans) {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(flushing.elapsed() < LONG, "{temper:?}: {:?} of {n_spans}", counted(&tracer));
        }
        let again = tokio::time::Instant::now();
        drop(tracer.span(SpanKind::Server, "GET", || None));
        tracer.flush().await;
        assert!(again.elapsed().is_zero(), "{temper:?}: nobody waits for a collector that is known to fail");
    }
}

#[tokio::test(start_paused = true)]
async fn spans_that_a_collector_refuses_are_counted_as_lost() {
    let (host, _collector) = place(Temper::TakesAllBut(3));
    let tracer = tracer(&host, 1.0);
    (0..10).for_each(|_| drop(tracer.span(SpanKind::Server, "GET", || None)));
    tracer.flush().await;
    assert_eq!(counted(&tracer), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn one_connection_serves_many_deliveries_and_another_follows_one_that_broke() {
    let (host, mut collector) = place(Temper::Takes);
    let tracer = tracer(&host, 1.0);
    let mut deliver = async || {
        drop(tracer.span(SpanKind::Server, "GET", || None));
        collector.bodies.recv().await.expect("a delivery").n_connections
    };
    assert_eq!([deliver().await, deliver().await], [1, 1]);
    collector.cut.send(()).expect("somebody to cut");
    while host.tasks().names().contains(&"traces connection") {
        tokio::task::yield_now().await;
    }
    assert_eq!([deliver().await, deliver().await], [2, 2]);
}

#[tokio::test]
async fn a_collector_behind_tls_is_believed_by_its_ca_alone() {
    tls::use_provider();
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let made = rcgen::generate_simple_self_signed(["collector".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["collector".to_owned()]).expect("a certificate");
    std::fs::write(path("cert"), made.cert.pem()).expect("a writable file");
    std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("a writable file");
    std::fs::write(path("other"), other.cert.pem()).expect("a writable file");
    let files = ServerFiles { cert: path("cert"), key: path("key"), client_ca: None, client_required: false };
    let of_collector = Arc::new(ServerTls::new(&Host::real(), "tls", files, Alpn::Http1).expect("usable material"));
    for (ca, delivered) in [("cert", (1, 0)), ("other", (0, 1))] {
        let (host, _far) = place_behind(Temper::Takes, Some(of_collector.clone()));
        let collector = Some("https://collector:4318".parse().expect("a URL"));
        let config = TraceConfig { collector, ca_cert: Some(path(ca)), ..TraceConfig::default() };
        let tracer = Tracer::new(&host, &config, "postern-test", "0").expect("a usable CA");
        drop(tracer.span(SpanKind::Server, "GET", || None));
        tracer.flush().await;
        assert_eq!(counted(&tracer), delivered, "{ca}");
    }
}

/// How a collector takes what it is sent.
#[derive(Debug, Clone, Copy)]
enum Temper {
    Takes,
    TakesAllBut(i64),
    Answers(StatusCode),
    Silent,
    Dead,
}

struct Delivered {
    path: String,
    spans: ExportTraceServiceRequest,
    n_connections: u64,
}

struct Far {
    bodies: mpsc::Receiver<Delivered>,
    cut: tokio::sync::broadcast::Sender<()>,
}

/// A host from which only a collector can be reached.
fn place(temper: Temper) -> (Host, Far) {
    place_behind(temper, None)
}

fn place_behind(temper: Temper, tls: Option<Arc<ServerTls>>) -> (Host, Far) {
    let (bodies, received) = mpsc::channel(64);
    let (cut, _) = tokio::sync::broadcast::channel(1);
    let chance = AtomicU64::new(1);
    let wire = Wire { temper, tls, bodies, cut: cut.clone(), chance, n_connections: AtomicU64::new(0) };
    (Host::new(Arc::new(wire), Tasks::new()), Far { bodies: received, cut })
}

struct Wire {
    temper: Temper,
    tls: Option<Arc<ServerTls>>,
    bodies: mpsc::Sender<Delivered>,
    cut: tokio::sync::broadcast::Sender<()>,
    chance: AtomicU64,
    n_connections: AtomicU64,
}

impl System for Wire {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        if matches!(self.temper, Temper::Dead) {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (near, far) = tokio::io::duplex(1 << 16);
        let n = self.n_connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (tls, temper, bodies) = (self.tls.clone(), self.temper, self.bodies.clone());
        let serving = async move {
            let connection = Connection::new(far, addr);
            let connection = match tls {
                None => Ok(connection),
                Some(tls) => tls.accept(connection).await.map(|(connection, _)| connection),
            };
            // Who does not believe it is gone.
            if let Ok(connection) = connection {
                serve(connection, temper, bodies, n).await;
            }
        };
        let mut cut = self.cut.subscribe();
        Tasks::new().spawn("collector", async move {
            tokio::select! {
                biased;
                _ = cut.recv() => {}
                () = serving => {}
            }
        });
        Box::pin(async move { Ok(Connection::new(near, addr)) })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        Host::real().read_file(path)
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn chance(&self) -> u64 {
        self.chance.fetch_add(1, Ordering::Relaxed)
    }
}

async fn serve(connection: Connection, temper: Temper, bodies: mpsc::Sender<Delivered>, n_connections: u64) {
    let service = service_fn(move |request: Request<Incoming>| {
        let bodies = bodies.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            let spans = ExportTraceServiceRequest::decode(body).expect("OTLP");
            let mut answer = ExportTraceServiceResponse::default();
            let mut response = Response::new(Full::new(Bytes::new()));
            match temper {
                Temper::Takes => bodies.send(Delivered { path, spans, n_connections }).await.expect("a reader"),
                Temper::TakesAllBut(rejected_spans) => {
                    answer.partial_success.insert(Default::default()).rejected_spans = rejected_spans;
                    *response.body_mut() = Full::new(answer.encode_to_vec().into());
                }
                Temper::Answers(status) => *response.status_mut() = status,
                Temper::Silent | Temper::Dead => pending().await,
            }
            Ok::<_, Infallible>(response)
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

fn tracer(host: &Host, sample: f64) -> Tracer {
    let collector = Some("http://collector:4318".parse().expect("a URL"));
    let config = TraceConfig { collector, sample, ..TraceConfig::default() };
    Tracer::new(host, &config, "postern-test", "0").expect("no file is needed")
}

fn spans(delivered: &Delivered) -> Vec<otlp::Span> {
    let of_scopes = delivered.spans.resource_spans.iter().flat_map(|of_resource| &of_resource.scope_spans);
    of_scopes.flat_map(|of_scope| of_scope.spans.clone()).collect()
}

/// Exported and dropped, by the metrics.
fn counted(tracer: &Tracer) -> (u64, u64) {
    let mut registry = Registry::default();
    tracer.register(&mut registry);
    let text = ops::metrics_text(&registry);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
        line.trim().parse().expect("a number")
    };
    (value("trace_spans_exported_total "), value("trace_spans_dropped_total "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
