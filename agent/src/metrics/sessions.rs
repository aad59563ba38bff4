//! What the sessions that are up tell of themselves, and what those that have ended came to, counted at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tunnel::frame::Class;
use tunnel::{SessionHandle, Sums};

use super::help;
use crate::sessions::Sessions;

/// The collector.
pub(super) struct OfSessions(pub(super) Sessions);

impl fmt::Debug for OfSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfSessions")
    }
}

impl Collector for OfSessions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (past, handles) = self.0.seen();
        let Sums { streams, buffered, totals, .. } = Sums::of(past, &handles);
        if let Some(rtt) = handles.iter().filter_map(SessionHandle::rtt).min() {
            let name = "agent_round_trip_seconds";
            let metric = encoder.encode_descriptor(name, help(name), None, MetricType::Gauge)?;
            ConstGauge::new(rtt.as_secs_f64()).encode(metric)?;
        }
        let name = "agent_streams";
        let mut family = encoder.encode_descriptor(name, help(name), None, MetricType::Gauge)?;
        for (class, n) in Class::ALL.into_iter().zip(streams) {
            gauge(n).encode(family.encode_family(&[("class", class.label())])?)?;
        }
        let name = "agent_tunnel_bytes";
        let mut family = encoder.encode_descriptor(name, help(name), None, MetricType::Counter)?;
        for (direction, bytes) in [("received", totals.bytes_received), ("sent", totals.bytes_sent)] {
            ConstCounter::new(bytes).encode(family.encode_family(&[("direction", direction)])?)?;
        }
        let name = "agent_credit_stalls";
        let metric = encoder.encode_descriptor(name, help(name), None, MetricType::Counter)?;
        ConstCounter::new(totals.credit_stalls).encode(metric)?;
        let name = "agent_buffered_bytes";
        gauge(buffered).encode(encoder.encode_descriptor(name, help(name), None, MetricType::Gauge)?)
    }
}

fn gauge(value: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host::{Host, Tracer};
    use tunnel::Budget;

    use super::super::{METRICS, Metrics};
    use super::*;

    #[tokio::test]
    async fn a_scrape_and_the_reference_name_the_same_metrics() {
        let host = Host::real();
        let mut metrics = Metrics::new(&host, Arc::new(Budget::new(1)), &Sessions::default());
        Tracer::default().register(&mut metrics.registry);
        let text = metrics.text();
        let scraped = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
        let of_all = ["process_", "config_files_", "certificate_", "trace_", "build"];
        let scraped = scraped.filter(|name| !of_all.iter().any(|of_all| name.starts_with(of_all)));
        // The guard's are its own, and no round trip was measured.
        let elsewhere = ["agent_guard_refused", "agent_guard_cut", "agent_frozen", "agent_round_trip_seconds"];
        let mut scraped: Vec<_> = scraped.chain(elsewhere).collect();
        let mut told: Vec<_> = METRICS.iter().map(|(name, _, _)| *name).collect();
        scraped.sort_unstable();
        told.sort_unstable();
        assert_eq!(scraped, told, "{text}");
        assert!(text.contains("agent_dials_failed_total{cause=\"refused\"} 0\n"), "{text}");
    }
}
