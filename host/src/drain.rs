//! Drain: take nothing new, finish what runs. One switch, any number of watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Starts the drain of whoever holds the matching [`Drain`].
pub struct DrainSwitch(Arc<Signal>);

/// Tells when the drain has started. Cheap to clone.
#[derive(Clone)]
pub struct Drain(Arc<Signal>);

/// Not a `watch`, which wakes its receivers in an order of its own dice: a simulation must repeat itself.
#[derive(Default)]
struct Signal {
    has_started: AtomicBool,
    started: Notify,
}

impl DrainSwitch {
    /// A switch and its first watcher.
    pub fn new() -> (Self, Drain) {
        let signal = Arc::<Signal>::default();
        (Self(signal.clone()), Drain(signal))
    }

    /// Starts the drain; a second call does nothing.
    pub fn start(&self) {
        self.0.has_started.store(true, Ordering::Release);
        self.0.started.notify_waiters();
    }
}

impl Drop for DrainSwitch {
    /// Its owner is gone, which is a drain too.
    fn drop(&mut self) {
        self.start();
    }
}

impl Drain {
    /// Resolves when the drain has started, or when its switch is gone. Cancel-safe.
    pub async fn started(&mut self) {
        // Before the look, so that a start between the two is not missed.
        let started = self.0.started.notified();
        if !self.is_started() {
            started.await;
        }
    }

    /// Whether the drain has started.
    pub fn is_started(&self) -> bool {
        self.0.has_started.load(Ordering::Acquire)
    }
}
