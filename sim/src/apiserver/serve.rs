//! Connections: HTTP/1.1 with upgrades and HTTP/2 over any byte stream, TLS where asked for.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use host::Listen;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::{self, Body};
use super::gauge::Counted;
use super::tls::Tls;
use super::{ApiServer, route};

/// Bytes of one head: more than any leg of the product carries. kube-apiserver takes 1 MiB, but hyper would hold as much
/// of an answer too.
const HEAD_BYTES_MAX: u32 = 128 * 1024;

/// Fields of one head. Go has no limit: more than any leg of the product carries.
const HEADERS_MAX: usize = 1024;

/// HTTP/2 counts 32 bytes more for each field (RFC 9113 section 6.5.2).
const HEADER_LIST_MAX: u32 = HEAD_BYTES_MAX + 32 * HEADERS_MAX as u32;

/// What kube-apiserver offers (`--http2-max-streams-per-connection`).
const STREAMS_MAX: u32 = 250;

/// Windows such that every stream may be stalled and the connection still moves.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;

/// Answer bytes that one HTTP/2 stream may hold ready.
const SEND_BUF_BYTES: usize = 64 * 1024;

/// How long to wait after a failed accept: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl ApiServer {
    /// Serves one connection until it ends: HTTP/2 if ALPN chose it, else HTTP/1.1. As Go does, it understands no other
    /// protocol than the one that was agreed on.
    pub async fn serve_connection(&self, io: impl host::Io, alpn_h2: bool) {
        let server = self.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let io = TokioIo::new(io);
        let served = if alpn_h2 {
            http2::Builder::new(self.host().tasks().clone())
                .timer(TokioTimer::new())
                .max_header_list_size(HEADER_LIST_MAX)
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(SEND_BUF_BYTES)
                .serve_connection(io, service)
                .await
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX as usize).half_close(false);
            builder.serve_connection(io, service).with_upgrades().await
        };
        if let Err(error) = served {
            // A caller that goes away in the middle is an everyday event.
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Serves every connection of `listener`, over TLS if `tls` is given; ends only with its task.
    pub async fn listen_and_serve(&self, listener: Box<dyn Listen>, tls: Option<Tls>) {
        loop {
            let connection = match listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    // Out of file descriptors, say: asking again at once would spin.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (server, tls) = (self.clone(), tls.clone());
            self.host().spawn("apiserver connection", async move {
                let Some(tls) = tls else { return server.serve_connection(connection, false).await };
                match tls.accept(connection).await {
                    Ok((connection, alpn_h2)) => server.serve_connection(connection, alpn_h2).await,
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let open = self.open_requests().enter();
        let head = request.method() == Method::HEAD;
        let mut response = route::answer(self, request).await;
        if head {
            // Over HTTP/2 hyper would send the body all the same.
            if let Some(length) = response.body().size_hint().exact() {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            *response.body_mut() = body::full("");
        }
        response.map(|body| WithGauge { body, _open: open }.boxed_unsync())
    }
}

/// A body that counts as an open request until it is dropped.
struct WithGauge {
    body: Body,
    _open: Counted,
}

impl http_body::Body for WithGauge {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
