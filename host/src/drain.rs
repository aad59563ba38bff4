//! Drain: take nothing new, finish what runs. One switch, any number of watchers.

use tokio::sync::watch;

/// Starts the drain of whoever holds the matching [`Drain`].
pub struct DrainSwitch(watch::Sender<bool>);

/// Tells when the drain has started. Cheap to clone.
#[derive(Clone)]
pub struct Drain(watch::Receiver<bool>);

impl DrainSwitch {
    /// A switch and its first watcher.
    pub fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Drain(receiver))
    }

    /// Starts the drain; a second call does nothing.
    pub fn start(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Resolves when the drain has started, or when its switch is gone. Cancel-safe.
    pub async fn started(&mut self) {
        // An error means that the switch was dropped: its owner is gone, which is a drain too.
        let _ = self.0.wait_for(|started| *started).await;
    }

    /// Whether the drain has started.
    pub fn is_started(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
