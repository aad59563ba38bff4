//! What the registry knows of clusters and their sessions, counted at each scrape.
//!
//! Only clusters of the clusters file have series, all of them and always: one that is offline has no sessions, and one that
//! was taken out has nothing.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tunnel::frame::Class;
use tunnel::{SessionHandle, Sums};

use super::help;
use crate::registry::Registry;

/// The collector.
pub(super) struct Fleet {
    pub(super) registry: Arc<Registry>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

/// One cluster at this moment.
struct Seen {
    cluster: String,
    n_streams: usize,
    /// To the nearest agent; none while nobody is connected, or nothing measured.
    round_trip_seconds: Option<f64>,
    sums: Sums,
}

impl Fleet {
    /// Sessions are asked with the registry unlocked: no request waits for a scrape.
    fn look(&self) -> Vec<Seen> {
        let fleet = self.registry.fleet().into_iter().map(|(cluster, past, sessions)| Seen {
            cluster: cluster.to_string(),
            n_streams: sessions.iter().map(SessionHandle::n_streams).sum(),
            round_trip_seconds: sessions.iter().filter_map(SessionHandle::rtt).min().map(|rtt| rtt.as_secs_f64()),
            sums: Sums::of(past, &sessions),
        });
        fleet.collect()
    }
}

impl Collector for Fleet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let fleet = self.look();
        let n_sessions = fleet.iter().map(|seen| seen.sums.sessions).sum();
        for (name, value) in [("agents_connected", n_sessions), ("requests_parked", self.registry.n_parked())] {
            let gauge = gauge(value);
            gauge.encode(encoder.encode_descriptor(name, help(name), None, gauge.metric_type())?)?;
        }
        let each = || fleet.iter().map(|seen| ([("cluster", seen.cluster.as_str())], seen));
        family(&mut encoder, "tunnel_sessions", each().map(|(label, seen)| (label, gauge(seen.sums.sessions))))?;
        family(&mut encoder, "tunnel_active_connections", each().map(|(label, seen)| (label, gauge(seen.n_streams))))?;
        let measured = each().filter_map(|(label, seen)| Some((label, ConstGauge::new(seen.round_trip_seconds?))));
        family(&mut encoder, "tunnel_round_trip_seconds", measured)?;
        let by_class = fleet.iter().flat_map(|seen| {
            let of_class = |class: Class| [("cluster", seen.cluster.as_str()), ("class", class.label())];
            Class::ALL.into_iter().zip(seen.sums.streams).map(move |(class, n)| (of_class(class), gauge(n)))
        });
        family(&mut encoder, "tunnel_streams", by_class)?;
        family(&mut encoder, "tunnel_buffered_bytes", each().map(|(label, seen)| (label, gauge(seen.sums.buffered))))?;
        let stalls = each().map(|(label, seen)| (label, ConstCounter::new(seen.sums.totals.credit_stalls)));
        family(&mut encoder, "tunnel_credit_stalls", stalls)?;
        let bytes = fleet.iter().flat_map(|seen| {
            let directions = [("received", seen.sums.totals.bytes_received), ("sent", seen.sums.totals.bytes_sent)];
            directions.map(|(direction, bytes)| {
                ([("cluster", seen.cluster.as_str()), ("direction", direction)], ConstCounter::new(bytes))
            })
        });
        family(&mut encoder, "tunnel_bytes", bytes)
    }
}

fn gauge(value: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Writes one metric with a series for each of `items`.
pub(super) fn family<L: EncodeLabelSet, M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    items: impl Iterator<Item = (L, M)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help(name), None, M::TYPE)?;
    for (label, metric) in items {
        metric.encode(family.encode_family(&label)?)?;
    }
    Ok(())
}
