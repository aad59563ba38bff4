//! Idleness: an HTTP/2 connection without a stream is there for nothing, even if its pings are answered.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use host::Tasks;
use hyper::rt::Executor;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::IDLE_TIMEOUT;

/// How many streams of one connection are open, from their request to the last byte of their answer.
#[derive(Default)]
pub(super) struct Streams {
    /// Never over HTTP/1.1, where hyper itself ends what is idle.
    any: AtomicBool,
    n_open: AtomicUsize,
    closed: Notify,
}

impl Streams {
    /// Resolves when there were streams, and then none for [`IDLE_TIMEOUT`].
    pub(super) async fn idle(&self) {
        loop {
            if !self.any.load(Ordering::Acquire) || self.n_open.load(Ordering::Acquire) > 0 {
                self.closed.notified().await;
            } else if timeout(IDLE_TIMEOUT, self.closed.notified()).await.is_err() && self.n_open.load(Ordering::Acquire) == 0 {
                return;
            }
        }
    }
}

/// Runs what a connection spawns and counts it: over HTTP/2 that is one task for each stream.
#[derive(Clone)]
pub(super) struct Counting {
    pub(super) tasks: Tasks,
    pub(super) streams: Arc<Streams>,
}

impl<F> Executor<F> for Counting
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let open = Open::new(&self.streams);
        self.tasks.execute(async move {
            let _open = open;
            future.await
        });
    }
}

/// An open stream.
struct Open(Arc<Streams>);

impl Open {
    fn new(streams: &Arc<Streams>) -> Self {
        streams.n_open.fetch_add(1, Ordering::AcqRel);
        streams.any.store(true, Ordering::Release);
        Self(streams.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.n_open.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_one();
    }
}
