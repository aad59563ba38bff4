//! What registration remembers from one look to the next.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::plan::{Action, Plan, Wanted};
use super::returns::Returns;
use super::secret::Found;
use super::setbacks::Setbacks;

/// All of it; a restart begins with nothing.
#[derive(Default)]
pub(super) struct Memory {
    /// What was there when it was listed, with what was written since.
    pub(super) found: Vec<Found>,
    pub(super) listed_at: Option<Instant>,
    /// Names that somebody else has, and whose they are.
    pub(super) taken: BTreeMap<String, String>,
    /// Who is away, and who is back.
    pub(super) returns: Returns,
    /// Since when clusters that have Secrets are seen not to be configured.
    pub(super) gone: BTreeMap<String, Instant>,
    /// URLs of several Secrets that were told.
    pub(super) duplicates: BTreeSet<Vec<u8>>,
    /// Writes that came to nothing.
    pub(super) setbacks: Setbacks,
    pub(super) had_setbacks: bool,
    /// What is wrong with all of it, if anything is.
    pub(super) failing: Option<(&'static str, u16)>,
}

impl Memory {
    /// Tells `wanted` what is seen to be gone, and for how long.
    pub(super) fn see_gone(&mut self, wanted: &mut Wanted) {
        let clusters = self.found.iter().filter_map(|found| found.cluster_of(&wanted.hub));
        let gone = clusters.filter(|cluster| !wanted.clusters.contains_key(*cluster));
        let since = |cluster: &str| self.gone.get(cluster).copied().unwrap_or_else(Instant::now);
        self.gone = gone.map(|cluster| (cluster.to_owned(), since(cluster))).collect();
        wanted.seen_gone_for = self.gone.iter().map(|(cluster, since)| (cluster.clone(), since.elapsed())).collect();
    }

    /// Tells once of URLs to which several Secrets lead.
    pub(super) fn tell_duplicates(&mut self, plan: &Plan) {
        for (url, names) in plan.duplicates.iter().filter(|(url, _)| !self.duplicates.contains(*url)) {
            let (url, names) = (String::from_utf8_lossy(url), names.join(", "));
            let cure = "leave one, or Argo CD takes either of them";
            tracing::warn!(%url, names, cure, "several Secrets lead Argo CD to the same cluster");
        }
        self.duplicates = plan.duplicates.keys().cloned().collect();
    }

    /// Whether it would make what has the name of somebody else's.
    pub(super) fn is_taken(&self, action: &Action) -> bool {
        action.is_creation() && self.taken.contains_key(action.name())
    }
}
