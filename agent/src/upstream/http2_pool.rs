//! HTTP/2 connections: as many as the API server's stream limit asks for, so that the 251st watch does not wait for the
//! end of another.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use host::Connection;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy::body::Body;
use proxy::head::HEAD_LIST_MAX;

use super::leased::{Lease, Leased};
use super::{TargetDialer, UpstreamError, bodiless_copy};

/// Streams that one connection carries, unless the API server allows fewer (RFC 9113 section 6.5.2 recommends no limit
/// below it; kube-apiserver has 250).
const STREAMS_PER_CONNECTION: usize = 100;

/// Streams before the API server has told its limit: it refuses those beyond it, and a request with a body cannot be sent
/// again. Its limit comes with the handshake, so the second stream does not wait longer than for a dial.
const STREAMS_BEFORE_SETTINGS: usize = 1;

/// What the API server may send on one stream unasked. Within a data centre 128 KiB carry 1 Gbit/s over 1 ms.
const STREAM_WINDOW: u32 = 128 * 1024;

/// All streams of a connection at once: many stalled lists never delay a GET or a watch beside them.
const CONNECTION_WINDOW: u32 = STREAMS_PER_CONNECTION as u32 * STREAM_WINDOW;

/// Bytes of a request that one stream may hold on its way out.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection from which nothing comes is pinged after this, and given up after [`PING_TIMEOUT`] more: client-go does
/// the same after 30 s and 15 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that turned out closed, or were closed before they took it, passed over for one request.
const ATTEMPTS_MAX: usize = 3;

/// Cancelled streams whose late frames are recognised.
const RESET_STREAMS_MAX: usize = 1000;

type Sender = http2::SendRequest<Body>;

/// What became of a request.
pub(super) enum Outcome {
    Answered(Response<Body>),
    /// The target speaks HTTP/1.1 only; the request is unsent and the connection fresh.
    Http1(Request<Body>, Connection),
}

pub(super) struct Http2Pool {
    dialer: Arc<TargetDialer>,
    connections: Mutex<Vec<Shared>>,
    /// One dials at a time; the others then find its connection, or its failure.
    /// Holds how the last failed dial did.
    dialling: tokio::sync::Mutex<String>,
    n_failures: AtomicU64,
}

/// A connection with room for streams.
struct Shared {
    sender: Sender,
    /// Streams that run on it; changed under the lock of `connections` when it grows.
    n_streams: Arc<AtomicUsize>,
    /// What the API server allows, as far as it has told.
    streams_max: Arc<AtomicUsize>,
    /// What the API server was believed by when it was dialled.
    trust: u64,
}

impl Http2Pool {
    pub(super) fn new(dialer: Arc<TargetDialer>) -> Self {
        Self { dialer, connections: Mutex::default(), dialling: tokio::sync::Mutex::default(), n_failures: AtomicU64::new(0) }
    }

    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Outcome, UpstreamError> {
        let mut copy = bodiless_copy(&request);
        let mut attempts = 0;
        loop {
            let (mut sender, place) = match self.place().await? {
                Ok(found) => found,
                Err(connection) => return Ok(Outcome::Http1(request, connection)),
            };
            attempts += 1;
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Outcome::Answered(response.map(|body| Leased::new(body, place).boxed_unsync())));
                }
                Err(mut error) => {
                    let returned = error.take_message();
                    let error = error.into_error();
                    if returned.is_none() && !was_not_processed(&error) {
                        return Err(UpstreamError::Broken(error));
                    }
                    // One that was on its way is sent once more.
                    match returned.or_else(|| copy.take()).filter(|_| attempts < ATTEMPTS_MAX) {
                        Some(again) => request = again,
                        None => return Err(UpstreamError::NotTaken(error)),
                    }
                }
            }
        }
    }

    /// A connection with a place for one more stream, or a fresh one that speaks HTTP/1.1.
    async fn place(&self) -> Result<Result<(Sender, Place), Connection>, UpstreamError> {
        if let Some(found) = self.look() {
            return Ok(Ok(found));
        }
        let n_failures = self.n_failures.load(Ordering::Acquire);
        let mut last_failure = self.dialling.lock().await;
        if let Some(found) = self.look() {
            return Ok(Ok(found));
        }
        if self.n_failures.load(Ordering::Acquire) > n_failures {
            // Who waited for a dial shares its failure: one after the other would wait for as many time limits.
            return Err(self.dialer.unreachable(std::io::Error::other(last_failure.clone())));
        }
        let trust = self.dialer.trust();
        let (connection, is_http2) = self.dialer.dial().await.inspect_err(|error| {
            *last_failure = proxy::program::chain(error);
            self.n_failures.fetch_add(1, Ordering::Release);
        })?;
        if !is_http2 {
            return Ok(Err(connection));
        }
        let shared = self.handshake(connection, trust).await.map_err(UpstreamError::Broken)?;
        let mut connections = self.connections();
        // Nobody else sees it yet, so there is room.
        let place = Place::take(&shared.n_streams);
        let sender = shared.sender.clone();
        connections.push(shared);
        Ok(Ok((sender, place)))
    }

    fn look(&self) -> Option<(Sender, Place)> {
        let mut connections = self.connections();
        // One of an earlier trust ends with the last stream on it.
        let trust = self.dialer.trust();
        connections.retain(|connection| connection.trust == trust && !connection.sender.is_closed());
        connections.iter().find_map(Shared::take_place)
    }

    async fn handshake(&self, connection: Connection, trust: u64) -> Result<Shared, hyper::Error> {
        let (sender, mut connection) = http2::Builder::new(self.dialer.host.tasks().clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .max_header_list_size(HEAD_LIST_MAX)
            // A session that is lost cancels all its requests at once; what the API server still sends for them is no
            // reason to end the connection of others.
            .max_local_error_reset_streams(None)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake::<_, Body>(TokioIo::new(connection))
            .await?;
        let streams_max = Arc::new(AtomicUsize::new(STREAMS_BEFORE_SETTINGS));
        let told = streams_max.clone();
        let mut gathered = false;
        let driving = std::future::poll_fn(move |cx| {
            gathered = !gathered;
            if gathered {
                // Whoever is ready to run may have a request too: they leave together, in one record and one system call.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let poll = Pin::new(&mut connection).poll(cx);
            told.store(connection.current_max_send_streams(), Ordering::Relaxed);
            poll
        });
        self.dialer.host.spawn("upstream http/2", async move {
            if let Err(error) = driving.await {
                tracing::info!(%error, "a connection to the API server ended");
            }
        });
        Ok(Shared { sender, n_streams: Arc::default(), streams_max, trust })
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the API server said that it has not acted on the request, whatever its method (RFC 9113 section 8.7): the last
/// stream of its GOAWAY is an earlier one, or it refused the stream.
fn was_not_processed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

impl Shared {
    /// Called under the lock of `connections`.
    fn take_place(&self) -> Option<(Sender, Place)> {
        let max = STREAMS_PER_CONNECTION.min(self.streams_max.load(Ordering::Relaxed));
        let has_room = self.n_streams.load(Ordering::Relaxed) < max;
        has_room.then(|| (self.sender.clone(), Place::take(&self.n_streams)))
    }
}

/// One stream's place on a connection.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(n_streams: &Arc<AtomicUsize>) -> Self {
        n_streams.fetch_add(1, Ordering::Relaxed);
        Self(n_streams.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease for Place {
    fn whole(self) {}
}
