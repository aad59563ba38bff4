//! Requests by cluster, method and code. Whatever callers send and agents answer, there are only so many series: clusters of the
//! clusters file, methods and codes that somebody has registered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use proxy::traces;

use super::help;
use crate::registry::Registry;

/// Upper bounds of request durations in seconds: from a cached GET to a watch of ten minutes.
const DURATION_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0];

/// What proxies write when the caller left before an answer (nginx); not registered.
const CALLER_LEFT: u16 = 499;

/// All requests that have ended. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    registry: Arc<Registry>,
    /// By cluster; those of no cluster, or one that is not there any more, have the empty name.
    clusters: Arc<RwLock<BTreeMap<String, OfCluster>>>,
}

struct OfCluster {
    counts: RwLock<BTreeMap<(&'static str, Code), Counter>>,
    durations: Histogram,
}

/// A status code, or any of those that nobody has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Code {
    Registered(u16),
    Other,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(code) => write!(f, "{code}"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl Code {
    fn of(code: u16) -> Self {
        let is_registered = StatusCode::from_u16(code).is_ok_and(|code| code.canonical_reason().is_some());
        if is_registered || code == CALLER_LEFT { Self::Registered(code) } else { Self::Other }
    }
}

impl OfCluster {
    fn new() -> Self {
        Self { counts: RwLock::default(), durations: Histogram::new(DURATION_BUCKETS) }
    }

    fn ended(&self, method: &'static str, code: Code, seconds: f64) {
        self.durations.observe(seconds);
        if let Some(count) = self.counts.read().unwrap_or_else(PoisonError::into_inner).get(&(method, code)) {
            count.inc();
            return;
        }
        self.counts.write().unwrap_or_else(PoisonError::into_inner).entry((method, code)).or_default().inc();
    }
}

impl Requests {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, clusters: Arc::default() }
    }

    /// A request ended.
    pub(super) fn ended(&self, cluster: &str, method: &Method, code: u16, seconds: f64) {
        // Methods outside the standard set are one label value.
        let (method, code) = (traces::standard(method).unwrap_or("OTHER"), Code::of(code));
        if let Some(known) = self.clusters.read().unwrap_or_else(PoisonError::into_inner).get(cluster) {
            return known.ended(method, code, seconds);
        }
        // One that outlived its cluster must not bring its series back.
        let cluster = if self.registry.knows(cluster) { cluster } else { "" };
        let mut clusters = self.clusters.write().unwrap_or_else(PoisonError::into_inner);
        clusters.entry(cluster.to_owned()).or_insert_with(OfCluster::new).ended(method, code, seconds);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let is_here = |cluster: &str| cluster.is_empty() || self.registry.knows(cluster);
        self.clusters.write().unwrap_or_else(PoisonError::into_inner).retain(|cluster, _| is_here(cluster));
        // Requests end meanwhile, and take their place among those that read.
        let clusters = self.clusters.read().unwrap_or_else(PoisonError::into_inner);
        let name = "proxy_requests";
        let mut family = encoder.encode_descriptor(name, help(name), None, MetricType::Counter)?;
        for (cluster, of_cluster) in clusters.iter() {
            for ((method, code), count) in of_cluster.counts.read().unwrap_or_else(PoisonError::into_inner).iter() {
                let code = code.to_string();
                let labels = [("cluster", cluster.as_str()), ("method", *method), ("code", &code)];
                count.encode(family.encode_family(&labels)?)?;
            }
        }
        let name = "proxy_request_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help(name), None, MetricType::Histogram)?;
        for (cluster, of_cluster) in clusters.iter() {
            of_cluster.durations.encode(family.encode_family(&[("cluster", cluster.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_nobody_has_registered_makes_no_new_label() {
        assert_eq!([200, 418, 499].map(Code::of), [200, 418, 499].map(Code::Registered));
        assert_eq!([0, 299, 599, 999, 1000].map(Code::of), [Code::Other; 5]);
    }
}
