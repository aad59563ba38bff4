//! What registration has come to: its metrics, and what is told of it in the log.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as Exposition;

use super::plan::{Action, Plan};

/// Name, labels and meaning of each, as REFERENCE.md prints them and a scrape explains them.
pub(crate) const METRICS: [(&str, &str, &str); 3] = [
    (
        "argocd_secrets",
        "state",
        "With --argocd-namespace: Argo CD's cluster Secrets, by state: registered, skipped (offline for argocd-skip-after: Argo CD leaves the cluster alone), removed (configured no longer, kept for argocd-retention), taken (somebody else has the name: the cluster is not registered), duplicate (another Secret has the same URL: Argo CD takes either)",
    ),
    (
        "argocd_registration_failing",
        "",
        "With --argocd-namespace: 1 while the hub's API server cannot be asked, or a write is refused, or changed by somebody else at once; the Secrets in question then stay as they are",
    ),
    ("argocd_secret_writes", "verb", "With --argocd-namespace: Secrets written: create, patch or delete"),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabel {
    verb: &'static str,
}

/// Counts of one server.
#[derive(Default)]
pub(crate) struct Account {
    secrets: Family<StateLabel, Gauge>,
    failing: Gauge,
    writes: Family<VerbLabel, Counter>,
}

impl Account {
    /// Has them scraped.
    pub(crate) fn register(&self, registry: &mut Exposition) {
        // From zero, or the first of each would be no increase.
        self.tell(&Plan::default(), 0);
        ["create", "patch", "delete"].iter().for_each(|verb| drop(self.writes.get_or_create(&VerbLabel { verb })));
        let [secrets, failing, writes] = METRICS;
        registry.register(secrets.0, secrets.2, self.secrets.clone());
        registry.register(failing.0, failing.2, self.failing.clone());
        registry.register(writes.0, writes.2, self.writes.clone());
    }

    /// How things are.
    pub(super) fn tell(&self, plan: &Plan, n_taken: usize) {
        let states = [
            ("registered", plan.n_registered),
            ("skipped", plan.n_skipped),
            ("removed", plan.n_removed),
            ("taken", n_taken),
            ("duplicate", plan.duplicates.values().map(|names| names.len() - 1).sum()),
        ];
        for (state, n) in states {
            self.secrets.get_or_create(&StateLabel { state }).set(i64::try_from(n).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn failing(&self, is_failing: bool) {
        self.failing.set(i64::from(is_failing));
    }

    pub(super) fn wrote(&self, action: &Action) {
        self.writes.get_or_create(&VerbLabel { verb: action.verb() }).inc();
    }
}
