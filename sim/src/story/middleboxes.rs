//! What a story does to the middleboxes of its world.

use std::sync::atomic::{AtomicUsize, Ordering};

use host::Connection;

use super::Story;
use super::misfortunes::Fault;
use crate::middlebox::{Controls, dial_through};

impl Story {
    /// The box accepts connections and forwards nothing of them, until it forwards again; what runs through it goes on.
    /// What it accepted meanwhile stays dead.
    pub fn swallow(&self, middlebox: &str) -> Fault {
        self.control(middlebox, ["swallow", "forward"], |controls| &controls.n_swallows)
    }

    /// The box answers each new request with 502, as if nobody listened behind it, until it passes them on again; what
    /// runs through it goes on.
    pub fn bad_gateway(&self, middlebox: &str) -> Fault {
        self.control(middlebox, ["bad gateway", "pass"], |controls| &controls.n_bad_gateways)
    }

    /// The proxy's rules forbid every CONNECT, until they allow it again.
    pub fn forbid_connects(&self, middlebox: &str) -> Fault {
        self.control(middlebox, ["forbid CONNECTs at", "allow CONNECTs at"], |controls| &controls.n_forbidden)
    }

    /// Dials `target` (`name:port`) through the CONNECT proxy beside a cluster, from its agent's machine.
    pub async fn dial_through(&self, proxy: &str, target: &str, credentials: Option<&str>) -> anyhow::Result<Connection> {
        let place = crate::fabric::place_of(proxy);
        let host = self.stage().caller(&format!("{place}/agent"));
        dial_through(&host, proxy, target, credentials).await
    }

    fn control(&self, middlebox: &str, words: [&str; 2], count: fn(&Controls) -> &AtomicUsize) -> Fault {
        let controls = self.stage().controls(middlebox);
        self.note(&format!("{} {middlebox}", words[0]));
        count(&controls).fetch_add(1, Ordering::Relaxed);
        self.fault(format!("{} {middlebox}", words[1]), move |_| {
            count(&controls).fetch_sub(1, Ordering::Relaxed);
        })
    }
}
