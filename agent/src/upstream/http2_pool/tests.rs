//! What a pool does with requests that an API server did not take, frame by frame.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use host::Host;
use http::Method;
use http_body::Frame;
use proxy::body::{self, BoxError};
use proxy::flags::HostPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What the API server says to a request.
#[derive(Debug, Clone, Copy)]
enum Says {
    Ok,
    /// RST_STREAM with REFUSED_STREAM.
    Refused,
    /// GOAWAY without an error, and no stream was processed.
    Away,
    /// RST_STREAM with INTERNAL_ERROR.
    Failed,
}

#[tokio::test]
async fn a_request_that_was_not_processed_is_sent_again_whatever_its_method() {
    for says in [Says::Refused, Says::Away] {
        for method in [Method::GET, Method::POST] {
            let (pool, script) = scripted(&[says, Says::Ok]).await;
            let outcome = pool.send(request(&method, body::empty())).await.expect("an answer");
            let Outcome::Answered(response) = outcome else { panic!("{says:?}, {method}: no connection was left") };
            assert_eq!(response.status(), 200, "{says:?}, {method}");
            assert_eq!(script.left(), 0, "{says:?}, {method}");
        }
    }
}

#[tokio::test]
async fn a_request_is_sent_again_once_and_then_refused_as_not_taken() {
    let (pool, script) = scripted(&[Says::Refused, Says::Refused, Says::Ok]).await;
    let error = pool.send(request(&Method::POST, body::empty())).await.map(drop).expect_err("twice refused");
    assert!(matches!(error, UpstreamError::NotTaken(_)) && error.nothing_was_done(), "{error:?}");
    assert_eq!(script.left(), 1);
}

#[tokio::test]
async fn a_body_is_not_sent_again_but_its_caller_may_if_nothing_was_processed() {
    for says in [Says::Refused, Says::Away] {
        let (pool, script) = scripted(&[says, Says::Ok]).await;
        let error = pool.send(request(&Method::POST, streamed())).await.map(drop).expect_err("half a body is gone");
        assert!(matches!(error, UpstreamError::NotTaken(_)) && error.nothing_was_done(), "{says:?}: {error:?}");
        assert_eq!(script.left(), 1, "{says:?}");
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    for body in [body::empty(), streamed()] {
        let (pool, script) = scripted(&[Says::Failed, Says::Ok]).await;
        let error = pool.send(request(&Method::POST, body)).await.map(drop).expect_err("failed");
        assert!(matches!(error, UpstreamError::Broken(_)) && !error.nothing_was_done(), "{error:?}");
        assert_eq!(script.left(), 1);
    }
}

/// What is still to be said, on whichever connection a request comes.
#[derive(Clone)]
struct Script(Arc<Mutex<VecDeque<Says>>>);

impl Script {
    fn next(&self) -> Says {
        self.0.lock().expect("no panic").pop_front().expect("no request more than the script has")
    }

    fn left(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

/// A pool with two connections to an API server that says this.
async fn scripted(says: &[Says]) -> (Http2Pool, Script) {
    let host = Host::real();
    let script = Script(Arc::new(Mutex::new(says.iter().copied().collect())));
    let listener = host.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let addr = listener.local_addr();
    let target = HostPort { host: addr.ip().to_string(), port: addr.port() };
    let pool = Http2Pool::new(Arc::new(TargetDialer { host: host.clone(), target, tls: None }));
    for _ in 0..2 {
        let (near, far) = tokio::join!(host.connect(addr), listener.accept());
        let (far, script) = (far.expect("an accepted connection"), script.clone());
        host.spawn("scripted", async move {
            // The pool ended the connection.
            let _ = speak(far, &script).await;
        });
        let shared = pool.handshake(near.expect("a connection"), 0).await.expect("a handshake");
        pool.connections().push(shared);
    }
    (pool, script)
}

/// HTTP/2 as RFC 9113 sections 4.1 and 6 have it, with no more than the script needs.
async fn speak(mut connection: Connection, script: &Script) -> std::io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const ACK: u8 = 1;
    connection.read_exact(&mut [0; PREFACE.len()]).await?;
    connection.write_all(&frame(SETTINGS, 0, [0; 4], &[])).await?;
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        connection.read_exact(&mut vec![0; u32::from_be_bytes([0, a, b, c]) as usize]).await?;
        let answer = match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, [0; 4], &[]),
            HEADERS => match script.next() {
                // The end of stream and of its headers, which are `:status: 200` (RFC 7541 appendix A).
                Says::Ok => frame(HEADERS, 0x5, stream, &[0x88]),
                Says::Refused => frame(3, 0, stream, &[0, 0, 0, 7]),
                Says::Failed => frame(3, 0, stream, &[0, 0, 0, 2]),
                Says::Away => frame(7, 0, [0; 4], &[0; 8]),
            },
            _ => continue,
        };
        connection.write_all(&answer).await?;
    }
}

fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("a short frame");
    [&[0, 0, len, kind, flags], &stream[..], payload].concat()
}

fn request(method: &Method, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri("https://127.0.0.1/api").version(http::Version::HTTP_2);
    request.body(body).expect("a request")
}

/// A body that has begun and goes on.
fn streamed() -> Body {
    HalfSent(Some(Bytes::from_static(b"half"))).boxed_unsync()
}

struct HalfSent(Option<Bytes>);

impl http_body::Body for HalfSent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}
