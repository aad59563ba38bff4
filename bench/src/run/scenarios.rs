//! The scenarios, each a function from a stage to rows of the table.

mod b1;
mod b10;
mod b11;
mod b12;
mod b2;
mod b3;
mod b4;
pub(crate) mod b5;
pub(crate) mod b6;
mod b7;
mod b8;
mod b9;

use anyhow::Result;

use super::column::Link;
use super::report::Row;
use super::stage::Stage;

/// A scenario.
pub(crate) struct Scenario {
    pub(crate) id: &'static str,
    pub(crate) about: &'static str,
    /// Whether `--quick` plays it.
    pub(crate) quick: bool,
    pub(crate) play: fn(&mut Stage) -> Result<Vec<Row>>,
}

/// All of them, in the order in which they play.
pub(crate) const ALL: [Scenario; 12] = [
    Scenario { id: "B1", about: "2 KiB GETs, closed loop", quick: true, play: b1::play },
    Scenario { id: "B2", about: "added latency, open loop", quick: true, play: b2::play },
    Scenario { id: "B3", about: "one LIST of 256 MiB, on loopback and over distance", quick: true, play: b3::play },
    Scenario { id: "B4", about: "small requests beside bulk lists and stalled readers", quick: true, play: b4::play },
    Scenario { id: "B5", about: "15,000 watches on 100 clusters, idle, then with events", quick: false, play: b5::play },
    Scenario { id: "B6", about: "memory per idle tunnel and per idle watch", quick: true, play: b6::play },
    Scenario { id: "B7", about: "a fleet of agents that comes back at once", quick: false, play: b7::play },
    Scenario { id: "B8", about: "exec sessions and port-forwards", quick: true, play: b8::play },
    Scenario { id: "B9", about: "a relist of 150 kinds, in gzipped pages", quick: false, play: b9::play },
    Scenario { id: "B10", about: "agent cold start, sizes of the binaries", quick: false, play: b10::play },
    Scenario { id: "B12", about: "an upload of 256 MiB, on loopback and over distance", quick: false, play: b12::play },
    Scenario { id: "B11", about: "half an hour of coming and going", quick: false, play: b11::play },
];

/// What ends the name of a measure that is a share of a link's rate.
const SHARE: &str = ", share of the link's rate";

/// The name of a measure: how much of a link was used.
pub(crate) fn share_of(link: Link) -> String {
    format!("{link}{SHARE}")
}

/// The round trip in milliseconds and the rate in Mbit/s of such a measure; none for others.
pub(crate) fn over_distance(measure: &str) -> Option<(f64, u64)> {
    let (ms, mbit) = measure.strip_suffix(SHARE)?.split_once(" ms, ")?;
    Some((ms.parse().ok()?, mbit.strip_suffix(" Mbit/s")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_and_rate_are_read_again_from_a_measures_name() {
        assert_eq!(over_distance(&share_of(Link { round_trip_ms: 80.0, mbit: Some(1000) })), Some((80.0, 1000)));
        assert_eq!(over_distance("32 callers"), None);
    }
}
