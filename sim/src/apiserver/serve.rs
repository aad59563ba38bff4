//! Connections: HTTP/1.1 with upgrades and HTTP/2 over any byte stream, TLS where asked for.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
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
use tokio::sync::Notify;
use tokio::time::timeout;

use super::arrivals::Arriving;
use super::body::{self, Body};
use super::gauge::{Counted, Gauge};
use super::tls::Tls;
use super::{ApiServer, route};

/// Bytes of one head: more than any leg of the product carries. kube-apiserver takes 1 MiB, but hyper would hold as much
/// of an answer too.
const HEAD_BYTES_MAX: u32 = 128 * 1024;

/// Fields of one head. Go has no limit: more than any leg of the product carries.
const HEADERS_MAX: usize = 1024;

/// HTTP/2 counts 32 bytes more for each field (RFC 9113 section 6.5.2).
const HEADER_LIST_MAX: u32 = HEAD_BYTES_MAX + 32 * HEADERS_MAX as u32;

/// What one HTTP/2 stream may be sent unasked.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Answer bytes that one HTTP/2 stream may hold ready.
const SEND_BUF_BYTES: usize = 64 * 1024;

/// How long to wait after a failed accept: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a drained server lets requests run: the request timeout of kube-apiserver.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

impl ApiServer {
    /// Serves one connection until it ends: HTTP/2 if ALPN chose it, else HTTP/1.1. As Go does, it understands no other
    /// protocol than the one that was agreed on.
    pub async fn serve_connection(&self, io: impl host::Io, alpn_h2: bool) {
        let going_away = Arc::new(Notify::new());
        let (server, goes_away) = (self.clone(), going_away.clone());
        let service = service_fn(move |request| {
            let (server, goes_away) = (server.clone(), goes_away.clone());
            async move {
                let answer = server.answer(request).await;
                if server.misbehaviors().goes_away(server.host().chance()) {
                    goes_away.notify_one();
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let io = TokioIo::new(io);
        let served = if alpn_h2 {
            let mut builder = http2::Builder::new(self.host().tasks().clone());
            let streams_max = self.options().http2_streams_max;
            builder.timer(TokioTimer::new()).max_header_list_size(HEADER_LIST_MAX).max_concurrent_streams(streams_max);
            // Every stream may be stalled and the connection still moves.
            builder.initial_stream_window_size(STREAM_WINDOW_BYTES);
            builder.initial_connection_window_size(streams_max.saturating_mul(STREAM_WINDOW_BYTES));
            let mut connection = pin!(builder.max_send_buf_size(SEND_BUF_BYTES).serve_connection(io, service));
            let drain = &mut self.drain();
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => Some(ended),
                () = drain.started() => None,
                () = going_away.notified() => None,
            };
            match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX as usize).half_close(false);
            let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
            let drain = &mut self.drain();
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => Some(ended),
                () = drain.started() => None,
            };
            match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        if let Err(error) = served {
            // A caller that goes away in the middle is an everyday event.
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Serves every connection of `listener`, over TLS if `tls` is given, until the server is drained: then nobody is
    /// accepted any more, watches end, connections say so, and what runs is finished.
    pub async fn listen_and_serve(&self, listener: Box<dyn Listen>, tls: Option<Tls>) {
        let open = Gauge::default();
        let mut drain = self.drain();
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.started() => break,
                accepted = listener.accept() => accepted,
            };
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    // Out of file descriptors, say: asking again at once would spin.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (server, tls, open) = (self.clone(), tls.clone(), open.enter());
            self.host().spawn("apiserver connection", async move {
                let _open = open;
                let Some(tls) = tls else { return server.serve_connection(connection, false).await };
                match tls.accept(connection).await {
                    Ok((connection, alpn_h2)) => server.serve_connection(connection, alpn_h2).await,
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            });
        }
        drop(listener);
        // What still runs then is cut with the end of its tasks.
        let _ = timeout(SHUTDOWN_MAX, open.wait_for(0)).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let open = self.open_requests().enter();
        let arriving = self.options().arrivals.arrive(request.headers());
        let head = request.method() == Method::HEAD;
        let mut response = route::answer(self, request).await;
        if let Some(arriving) = &arriving {
            arriving.answered(response.status());
        }
        if !head {
            response = self.misbehaviors().spoil(response).await;
        } else {
            // Over HTTP/2 hyper would send the body all the same.
            if let Some(length) = response.body().size_hint().exact() {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            *response.body_mut() = body::full("");
        }
        response.map(|body| WithGauge { body, _open: open, _arriving: arriving }.boxed_unsync())
    }
}

/// A body that counts as an open request until it is dropped.
struct WithGauge {
    body: Body,
    _open: Counted,
    _arriving: Option<Arriving>,
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
