//! Ctrl-C and SIGTERM as a question that every wait asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often a wait looks up: what runs beside it on a small machine should not notice.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether somebody wants us to stop.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes the signals that ask a program to end: Ctrl-C, SIGTERM, a closed terminal.
    pub(crate) fn on_signals() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, asked.clone())?;
        }
        Ok(Self(asked))
    }

    /// Whether they came.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once they came, so that what runs ends in order.
    pub(crate) fn check(&self) -> Result<()> {
        if self.asked() {
            bail!("stopped by a signal");
        }
        Ok(())
    }
}
