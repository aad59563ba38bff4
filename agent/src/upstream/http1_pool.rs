//! HTTP/1.1 connections: kept while idle, one request at a time, given away for good by an upgrade.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::Connection;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy::body::{Body, BoxError};
use proxy::head::{HEAD_BUFFER, HEAD_FIELDS_MAX};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::leased::{Lease, Leased};
use super::{Sent, TargetDialer, UpstreamError};

/// Connections kept while nobody needs them.
const IDLE_MAX: usize = 32;

/// An idle connection is closed after this; below the 90 s of common servers and balancers, so that we are first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may take to be free again after an answer.
const READY_MAX: Duration = Duration::from_secs(1);

/// A connection: dropping it closes it, also while hyper waits for the API server to take more of a body.
struct Exchange {
    sender: http1::SendRequest<Body>,
    alive: oneshot::Sender<()>,
    /// What the API server was believed by when it was dialled.
    trust: u64,
}

#[derive(Clone)]
pub(super) struct Http1Pool {
    dialer: Arc<TargetDialer>,
    idle: Arc<Mutex<Vec<(Exchange, Instant)>>>,
}

impl Http1Pool {
    pub(super) fn new(dialer: Arc<TargetDialer>) -> Self {
        Self { dialer, idle: Arc::default() }
    }

    /// Takes in a connection that was opened elsewhere.
    pub(super) async fn keep(&self, connection: Connection) {
        // It was dialled a moment ago.
        if let Ok(exchange) = self.handshake(connection, self.dialer.trust()).await {
            self.put(exchange);
        }
    }

    /// Sends one request; an idle connection that the other end has closed meanwhile is passed over.
    pub(super) async fn send(&self, mut request: Request<Body>, is_upgrade: bool) -> Result<Response<Body>, UpstreamError> {
        while let Some(exchange) = self.take() {
            match self.send_on(exchange, request, is_upgrade).await? {
                Sent::Answered(response) => return Ok(response),
                Sent::NotSent(returned) => request = returned,
            }
        }
        let trust = self.dialer.trust();
        let connection = self.dialer.dial_http1().await?;
        let exchange = self.handshake(connection, trust).await.map_err(UpstreamError::Broken)?;
        match self.send_on(exchange, request, is_upgrade).await? {
            Sent::Answered(response) => Ok(response),
            Sent::NotSent(_) => Err(self.dialer.unreachable(std::io::Error::other("it closed a new connection at once"))),
        }
    }

    async fn send_on(&self, mut exchange: Exchange, request: Request<Body>, is_upgrade: bool) -> Result<Sent, UpstreamError> {
        match exchange.sender.try_send_request(request).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                // From here on the two upgraded sides say how long it lasts.
                let _ = exchange.alive.send(());
                Ok(Sent::Answered(response.map(|body| body.map_err(BoxError::from).boxed_unsync())))
            }
            Ok(response) => {
                let lease = Held { pool: self.clone(), exchange, reusable: !is_upgrade };
                Ok(Sent::Answered(response.map(|body| Leased::new(body, lease).boxed_unsync())))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Ok(Sent::NotSent(request)),
                None => Err(UpstreamError::Broken(error.into_error())),
            },
        }
    }

    async fn handshake(&self, connection: Connection, trust: u64) -> Result<Exchange, hyper::Error> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEAD_FIELDS_MAX)
            .max_buf_size(HEAD_BUFFER)
            .handshake::<_, Body>(TokioIo::new(connection))
            .await?;
        let (alive, released) = oneshot::channel();
        self.dialer.host.spawn("upstream http/1.1", async move {
            let mut connection = std::pin::pin!(connection.with_upgrades());
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                released = released => match released {
                    Ok(()) => connection.await,
                    Err(_) => return,
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the API server ended");
            }
        });
        Ok(Exchange { sender, alive, trust })
    }

    fn take(&self) -> Option<Exchange> {
        let mut idle = self.idle();
        let trust = self.dialer.trust();
        idle.retain(|(exchange, since)| exchange.trust == trust && exchange.sender.is_ready() && since.elapsed() < IDLE_TIMEOUT);
        // The one used last is the one most surely alive.
        idle.pop().map(|(exchange, _)| exchange)
    }

    fn put(&self, exchange: Exchange) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push((exchange, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Exchange, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that a body is read from; dropping it before the end closes the connection.
struct Held {
    pool: Http1Pool,
    exchange: Exchange,
    reusable: bool,
}

impl Lease for Held {
    fn whole(self) {
        let Self { pool, mut exchange, reusable } = self;
        if !reusable {
            return;
        }
        let host = pool.dialer.host.clone();
        host.spawn("upstream idle", async move {
            // An error means that the other end wants no more requests; a body that it never asked for keeps the
            // connection busy for good.
            if let Ok(Ok(())) = tokio::time::timeout(READY_MAX, exchange.sender.ready()).await {
                pool.put(exchange);
            }
        });
    }
}
