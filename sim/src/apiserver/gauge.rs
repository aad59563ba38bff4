//! A count of things that are open, which goes down by itself when they are dropped.

use tokio::sync::watch;

/// How many are open. Clones share the count.
#[derive(Clone)]
pub(crate) struct Gauge(watch::Sender<usize>);

/// One open thing.
pub(crate) struct Counted(Gauge);

impl Default for Gauge {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Gauge {
    pub(crate) fn enter(&self) -> Counted {
        self.0.send_modify(|n| *n += 1);
        Counted(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Resolves as soon as the count is `n`. Cancel-safe.
    pub(crate) async fn wait_for(&self, n: usize) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|count| *count == n).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}
