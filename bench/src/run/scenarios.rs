//! The scenarios, each a function from a stage to rows of the table.

mod b1;
mod b10;
mod b12;
mod b2;
mod b3;
mod b4;
mod b8;

use anyhow::Result;

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
pub(crate) const ALL: [Scenario; 7] = [
    Scenario { id: "B1", about: "2 KiB GETs, closed loop", quick: true, play: b1::play },
    Scenario { id: "B2", about: "added latency, open loop", quick: true, play: b2::play },
    Scenario { id: "B3", about: "one LIST of 256 MiB, on loopback and over distance", quick: true, play: b3::play },
    Scenario { id: "B4", about: "small requests beside bulk lists and stalled readers", quick: true, play: b4::play },
    Scenario { id: "B8", about: "exec sessions and port-forwards", quick: true, play: b8::play },
    Scenario { id: "B10", about: "agent cold start, sizes of the binaries", quick: false, play: b10::play },
    Scenario { id: "B12", about: "an upload of 256 MiB, on loopback and over distance", quick: false, play: b12::play },
];
