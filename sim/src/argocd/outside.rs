//! Argo CD's part played at a real hub, over the operating system's network: the cache and the load of the stories.

use std::time::Duration;

use anyhow::Context;
use host::Host;

use super::{ArgoCd, ClusterCache, Load};
use crate::caller::{Caller, Ledger, Protocol};
use crate::trace::Trace;

/// How often it says what became of its requests: whoever waits for a line waits no longer than people do.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A caller at a real hub.
pub struct Outside {
    argocd: ArgoCd,
    ledger: Ledger,
    cluster: String,
    namespace: String,
}

impl Outside {
    /// A caller at `hub`, a `HOST:PORT`, for `cluster`; what its load reads and writes is in `namespace`.
    ///
    /// # Errors
    /// `hub` names no port.
    pub fn new(host: Host, hub: &str, cluster: &str, namespace: &str) -> anyhow::Result<Self> {
        let (name, port) = hub.rsplit_once(':').context("the hub is written HOST:PORT")?;
        let port = port.parse().with_context(|| format!("{port:?} is no port"))?;
        let ledger = Ledger::default();
        // Who asks over plain HTTP shows no credential.
        let caller =
            Caller::new("argocd", host, port, Protocol::Http1, Trace::new(), ledger.clone()).bearing(None).at(name).quiet();
        let (cluster, namespace) = (cluster.to_owned(), namespace.to_owned());
        Ok(Self { argocd: ArgoCd::new(caller), ledger, cluster, namespace })
    }

    /// Keeps a cache and a load of one request every so often, and logs what became of them. Does not end.
    pub async fn play(self, every: Duration) {
        let cache = self.argocd.cache(&self.cluster);
        let load = Load::start(&self.argocd, &self.cluster, &self.namespace, every);
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            self.tell(&cache, &load);
        }
    }

    fn tell(&self, cache: &ClusterCache, load: &Load) {
        let (counts, outcome) = (cache.counts(), load.so_far());
        let findings = self.ledger.look(|book| book.findings.clone());
        tracing::info!(
            kinds = cache.n_kinds(),
            lists = counts.n_lists,
            watches = counts.n_watches,
            broken = counts.n_failures,
            requests = outcome.n_requests,
            open = load.n_open(),
            failures = outcome.failures.len(),
            slowest_ms = outcome.slowest.as_millis() as u64,
            last_failure = outcome.failures.last().map(|trouble| trouble.why.as_str()).unwrap_or_default(),
            findings = findings.len(),
            last_finding = findings.last().map(String::as_str).unwrap_or_default(),
            "so far"
        );
    }
}
