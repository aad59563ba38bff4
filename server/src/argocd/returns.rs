//! Which clusters Argo CD is to leave alone, and when each that is back is given back to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::Host;
use tokio::time::Instant;

use super::plan::Standing;
use super::secret::{Found, SKIPPED_SINCE};
use crate::config::argocd::ArgoCdConfig;

/// What is remembered of clusters that are away or back.
#[derive(Default)]
pub(super) struct Returns {
    /// When a cluster that is back is given back to Argo CD.
    moments: BTreeMap<String, Instant>,
    /// Moments that have passed while nothing could be written are no spread.
    redraws: bool,
    /// A session of any cluster was here. Before that a server knows nothing: during a rollout all may be at the other one.
    has_met_any: bool,
    /// Clusters that are away from here, and whose Secrets are skipped.
    skipped: BTreeSet<String>,
    /// Clusters that are away from here, and that somebody else gave back: another server that has them, or a person.
    elsewhere: BTreeSet<String>,
}

impl Returns {
    /// Nothing could be written for a while.
    pub(super) fn redraw(&mut self) {
        self.redraws = true;
    }

    /// How clusters stand whose last sessions have been gone for their `absences`, with a moment drawn for each that is back.
    pub(super) fn standings(
        &mut self,
        absences: Vec<(String, Option<Duration>)>,
        found: &[Found],
        config: &ArgoCdConfig,
        host: &Host,
    ) -> BTreeMap<String, Standing> {
        let now = Instant::now();
        // What is being deleted is not written any more, and so never given back.
        let live = found.iter().filter(|found| !found.is_ending);
        let live = live.filter_map(|found| Some((found.cluster_of(&config.hub)?, found)));
        let is_skipped: BTreeMap<_, _> =
            live.map(|(cluster, found)| (cluster, found.annotations.contains_key(SKIPPED_SINCE))).collect();
        self.has_met_any |= absences.iter().any(|(_, absent)| absent.is_none());
        let redraws = std::mem::take(&mut self.redraws);
        self.moments.retain(|cluster, due| is_skipped.get(cluster.as_str()) == Some(&true) && !(redraws && *due <= now));
        let mut standings = BTreeMap::new();
        for (cluster, absent) in absences {
            let is_skipped = is_skipped.get(cluster.as_str()).copied();
            let standing = match absent {
                None => self.back(&cluster, is_skipped == Some(true), now, config, host),
                Some(absent) => self.away(&cluster, is_skipped, absent, config),
            };
            standings.insert(cluster, standing);
        }
        self.skipped.retain(|cluster| standings.contains_key(cluster));
        self.elsewhere.retain(|cluster| standings.contains_key(cluster));
        standings
    }

    /// Sees which Secrets are skipped after a look, so that the next tells which of them somebody else gave back.
    pub(super) fn see(&mut self, found: &[Found], hub: &str) {
        let skipped = found.iter().filter(|found| found.annotations.contains_key(SKIPPED_SINCE));
        self.skipped.extend(skipped.filter_map(|found| found.cluster_of(hub)).map(str::to_owned));
    }

    fn back(&mut self, cluster: &str, is_skipped: bool, now: Instant, config: &ArgoCdConfig, host: &Host) -> Standing {
        self.skipped.remove(cluster);
        self.elsewhere.remove(cluster);
        if !is_skipped {
            return Standing::Keep;
        }
        let share = (host.chance() >> 11) as f64 / (1u64 << 53) as f64;
        let drawn = now + config.return_spread.mul_f64(share);
        let due = *self.moments.entry(cluster.to_owned()).or_insert(drawn);
        if now >= due { Standing::Lift } else { Standing::Keep }
    }

    /// `is_skipped` is what its Secret says, if it has one.
    fn away(&mut self, cluster: &str, is_skipped: Option<bool>, absent: Duration, config: &ArgoCdConfig) -> Standing {
        self.moments.remove(cluster);
        // This server gives nobody back who is away.
        if is_skipped == Some(false) && self.skipped.remove(cluster) {
            self.elsewhere.insert(cluster.to_owned());
        }
        let is_known = self.has_met_any && !self.elsewhere.contains(cluster);
        let is_over = config.skip_after.is_some_and(|max| absent >= max);
        if is_known && is_over { Standing::Skip } else { Standing::Keep }
    }

    /// The next moment.
    pub(super) fn next(&self) -> Option<Instant> {
        self.moments.values().copied().filter(|due| *due > Instant::now()).min()
    }
}
