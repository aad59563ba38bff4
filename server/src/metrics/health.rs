//! Metrics of every configured cluster's health, as the registry has it at each scrape.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;

use super::fleet::family;
use crate::registry::{Registry, State};

/// Name, labels and meaning of each, as REFERENCE.md prints them and a scrape explains them.
pub(crate) const METRICS: [(&str, &str, &str); 3] = [
    (
        "cluster_healthy",
        "cluster",
        "1 while the API server of the cluster answers probes, else 0, also while no agent is connected; absent while nothing is probed",
    ),
    ("cluster_probe_age_seconds", "cluster", "Time since the last probe ended, of clusters with a session"),
    ("cluster_probe_duration_seconds", "cluster", "Time that the last probe took, from the hub to the API server and back"),
];

/// What the registry knows of every cluster.
pub(crate) struct Health(pub(crate) Arc<Registry>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Health")
    }
}

impl Collector for Health {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let states = self.0.states();
        let each = || states.iter().map(|(cluster, state, probe)| ([("cluster", cluster.as_str())], *state, probe));
        if self.0.probes() {
            let healthy = |state: State| ConstGauge::new(i64::from(state == State::Healthy));
            family(&mut encoder, "cluster_healthy", each().map(|(label, state, _)| (label, healthy(state))))?;
        }
        let probed = || each().filter_map(|(label, _, probe)| Some((label, probe.as_ref()?)));
        let seconds = |time: Duration| ConstGauge::new(time.as_secs_f64());
        let ages = probed().map(|(label, probe)| (label, seconds(probe.at.elapsed())));
        family(&mut encoder, "cluster_probe_age_seconds", ages)?;
        let durations = probed().map(|(label, probe)| (label, seconds(probe.took)));
        family(&mut encoder, "cluster_probe_duration_seconds", durations)
    }
}
