//! Each kind of load against a small upstream, in the test's own process.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sim::certs::Authority;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::run;
use crate::task::{Load, Outcome, Way};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How often something was asked for that is refused at first.
static REFUSALS: AtomicUsize = AtomicUsize::new(0);

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Frames, and then either the end or nothing more for ever.
fn frames(frames: Vec<io::Result<Bytes>>, ends: bool) -> Body {
    let tail = stream::pending().take(usize::from(!ends));
    StreamBody::new(stream::iter(frames).chain(tail).map(|data| data.map(Frame::data))).boxed_unsync()
}

fn events(seqs: &[u64], ends: bool) -> Body {
    let sent = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    frames(seqs.iter().map(|seq| Ok(format!("{{\"seq\":{seq},\"sent\":{sent}}}\n").into())).collect(), ends)
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let mut response = Response::new(full(""));
    match path.as_str() {
        "/p/bytes" => *response.body_mut() = full(vec![b'a'; 100_000]),
        "/p/broken" => *response.body_mut() = frames(vec![Ok("half".into()), Err(io::ErrorKind::BrokenPipe.into())], true),
        "/p/post" => {
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            *response.body_mut() = full(body.len().to_string());
        }
        "/p/echo" | "/p/pipe" => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut reader, mut writer) = split(TokioIo::new(upgraded.await.expect("an upgrade")));
                if path == "/p/echo" {
                    let _ = copy(&mut reader, &mut writer).await;
                } else {
                    let _ = writer.write_all(&[b'a'; 50_000]).await;
                    let _ = writer.shutdown().await;
                }
            });
        }
        "/p/api/v1/configmaps" => *response.body_mut() = events(&[0, 1, 2], false),
        "/gap/api/v1/configmaps" => *response.body_mut() = events(&[0, 2], false),
        "/end/api/v1/configmaps" => *response.body_mut() = events(&[0, 1], true),
        "/p/apis/bench.postern/v1/kind0" | "/p/apis/bench.postern/v1/kind1" => {
            let next = if query.contains("continue=2") { "" } else { "2" };
            response.headers_mut().insert("x-continue", next.parse().expect("a header"));
            *response.body_mut() = full("page");
        }
        "/c0/late" if REFUSALS.fetch_add(1, Ordering::Relaxed) > 2 => {}
        "/c1/late" => {}
        _ => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    Ok(response)
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection_with_upgrades(TokioIo::new(io), service_fn(answer)).await;
}

/// A way to a fresh upstream.
async fn way(prefix: &str, http2: bool) -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    Way { base: format!("http://{address}{prefix}"), ca: None, http2 }
}

/// A way to a fresh upstream over TLS that offers both protocols; its CA is in a file of this test's own.
async fn way_over_tls(name: &str, http2: bool) -> Way {
    host::tls::use_provider();
    let authority = Authority::new(SystemTime::now()).expect("an authority");
    let leaf = authority.server("upstream", &["127.0.0.1"]).expect("a leaf");
    let certs = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key).expect("a server");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(socket).await {
                    serve(tls).await;
                }
            });
        }
    });
    let ca = std::env::temp_dir().join(format!("postern-bench-{name}-{}.pem", std::process::id()));
    std::fs::write(&ca, authority.pem().certificate).expect("a file");
    Way { base: format!("https://{address}/p"), ca: Some(ca.display().to_string()), http2 }
}

async fn outcome(load: Load) -> Outcome {
    tokio::time::timeout(Duration::from_secs(30), run(load)).await.expect("an end").expect("an outcome")
}

#[tokio::test]
async fn churn_has_failed_in_every_kind_of_which_none_went_well() {
    // Nothing of what callers ask for is there.
    let way = way("/nowhere", false).await;
    let churn = outcome(Load::Churn { way, ms: 1 }).await;
    assert_eq!((churn.ok, churn.failed), (0, 8), "{churn:?}");
    assert!(churn.errors[0].contains("none went well"), "{churn:?}");
}

#[tokio::test]
async fn a_closed_loop_counts_answers_and_their_bytes() {
    for http2 in [false, true] {
        let way = way("/p", http2).await;
        let load = Load::Closed { way, path: "/bytes".into(), callers: 3, warm_ms: 10, ms: 100 };
        let outcome = outcome(load).await;
        assert!(outcome.ok >= 3, "{outcome:?}");
        assert_eq!((outcome.failed, outcome.bytes), (0, outcome.ok * 100_000), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_open_loop_asks_as_often_as_it_should_and_counts_refusals_as_failures() {
    let good = way("/p", false).await;
    let load = |way, path: &str| Load::Open { way, path: path.into(), rate: 200.0, callers: 4, warm_ms: 50, ms: 100 };
    let answered = outcome(load(good.clone(), "/bytes")).await;
    assert_eq!((answered.ok, answered.failed), (20, 0), "{answered:?}");
    let refused = outcome(load(good, "/nothing")).await;
    assert_eq!((refused.ok, refused.failed), (0, 20), "{refused:?}");
    assert!(refused.latency_us["p50"] >= 10_000_000.0, "{refused:?}");
}

#[tokio::test]
async fn a_fetch_whose_answer_breaks_off_or_is_too_short_has_failed() {
    for http2 in [false, true] {
        let way = way("/p", http2).await;
        let load = |path: &str| Load::Fetch { way: way.clone(), path: path.into(), max_ms: 10_000 };
        let whole = outcome(load("/bytes?bytes=100000")).await;
        assert_eq!((whole.ok, whole.bytes, whole.failed), (1, 100_000, 0), "{whole:?}");
        assert!(whole.more.contains_key("first_byte_us"), "{whole:?}");
        assert_eq!(outcome(load("/bytes?bytes=100001")).await.failed, 1);
        assert_eq!(outcome(load("/broken")).await.failed, 1);
    }
}

#[tokio::test]
async fn an_upload_sends_all_its_bytes() {
    for http2 in [false, true] {
        let way = way("/p", http2).await;
        let load = Load::Upload { way, path: "/post".into(), bytes: 3_000_001, max_ms: 10_000 };
        let outcome = outcome(load).await;
        assert_eq!((outcome.ok, outcome.bytes), (1, 3_000_001), "{outcome:?}");
    }
}

#[tokio::test]
async fn echoes_come_back_on_every_session() {
    let way = way("/p", false).await;
    let load = Load::Echo { way, path: "/echo".into(), sessions: 3, size: 64, every_ms: 30, warm_ms: 30, ms: 90 };
    let outcome = outcome(load).await;
    assert_eq!((outcome.ok, outcome.failed, outcome.bytes), (9, 0, 9 * 64), "{outcome:?}");
}

#[tokio::test]
async fn pipes_are_read_to_their_end_and_one_that_ends_early_has_failed() {
    let way = way("/p", false).await;
    let load = |path: &str| Load::Pipes { way: way.clone(), path: path.into(), sessions: 4, max_ms: 10_000 };
    let whole = outcome(load("/pipe?bytes=50000")).await;
    assert_eq!((whole.ok, whole.failed, whole.bytes), (4, 0, 200_000), "{whole:?}");
    assert_eq!(outcome(load("/pipe?bytes=50001")).await.failed, 4);
}

#[tokio::test]
async fn events_that_a_watch_leaves_out_or_never_sends_are_lost() {
    let load = |way| Load::Watches { way, clusters: 2, watches: 1, idle_ms: 0, rate: 20.0, ms: 150, hold: false };
    for http2 in [false, true] {
        let whole = outcome(load(way("/p", http2).await)).await;
        assert_eq!((whole.ok, whole.failed), (6, 0), "{whole:?}");
        for prefix in ["/gap", "/end"] {
            let lossy = outcome(load(way(prefix, http2).await)).await;
            assert_eq!((lossy.ok, lossy.failed), (4, 2), "{lossy:?}");
        }
    }
}

#[tokio::test]
async fn a_relist_takes_all_pages_of_all_kinds() {
    for http2 in [false, true] {
        let way = way("/p", http2).await;
        let load = |objects| Load::Relist { way: way.clone(), kinds: 2, objects, page: 10, parallel: 2 };
        let whole = outcome(load(20)).await;
        assert_eq!((whole.ok, whole.failed, whole.bytes), (4, 0, 16), "{whole:?}");
        assert_eq!(outcome(load(30)).await.failed, 2, "a page is missing");
    }
}

#[tokio::test]
async fn clusters_that_refuse_at_first_are_asked_again() {
    let way = way("/{cluster}", false).await;
    let load = |clusters, max_ms| Load::Reach { way: way.clone(), path: "/late".into(), clusters, parallel: 2, max_ms };
    let reached = outcome(load(2, 10_000)).await;
    assert_eq!((reached.ok, reached.failed), (2, 0), "{reached:?}");
    let never = outcome(load(3, 50)).await;
    assert_eq!((never.ok, never.failed), (2, 1), "{never:?}");
}

#[tokio::test]
async fn an_https_base_is_trusted_by_the_ca_of_its_way_alone() {
    let stranger = way_over_tls("stranger", false).await;
    for http2 in [false, true] {
        let way = way_over_tls("own", http2).await;
        let trusted_ca = way.ca.clone().expect("a CA");
        let load = |way| Load::Fetch { way, path: "/bytes?bytes=100000".into(), max_ms: 10_000 };
        let trusted = outcome(load(way.clone())).await;
        assert_eq!((trusted.ok, trusted.failed), (1, 0), "{trusted:?}");
        let untrusted = run(load(Way { ca: stranger.ca.clone(), ..way })).await;
        assert!(untrusted.is_err_and(|error| format!("{error:#}").contains("certificate")));
        std::fs::remove_file(trusted_ca).expect("a file");
    }
    std::fs::remove_file(stranger.ca.expect("a CA")).expect("a file");
}
