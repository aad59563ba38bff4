//! B2: what the way adds to the latency of a 2 KiB GET, at a fixed rate, and how often a request crosses a long link.

use anyhow::{Context, Result};

use super::b1::{self, PATH};
use crate::run::column::{Link, Setup};
use crate::run::report::{Bar, Better, POSTERN, Row};
use crate::run::stage::{Stage, milliseconds};
use crate::task::Load;

/// Added to what `direct` needs, at a third of the load: what a person would not notice in a hundred requests.
const ADDED_MAX_MS: f64 = 0.3;

/// The link that counts round trips.
const LINK: Link = Link { round_trip_ms: 100.0, mbit: None };

/// Over [`LINK`]: any second round trip, even of one in two requests, would show; processing and timers do not.
const ROUND_TRIPS: (f64, f64) = (1.0, 1.1);

/// Requests per second over the link: so few that nothing queues.
const LINK_RATE: f64 = 50.0;

/// Connections of the open loop; at these latencies fewer than a tenth are busy, and a hiccup does not run out of them.
const CALLERS: usize = 64;

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    b1::ensure_capacity(stage)?;
    // The same rate for all: shares of what both that are compared can carry.
    let chains = [POSTERN, "nginx"].iter().filter_map(|column| stage.capacity.get(*column).copied());
    let capacity = chains.reduce(f64::min).context("B2 takes shares of B1's rate, and neither postern nor nginx has one")?;
    let plan = stage.plan;
    let (warm_ms, ms) = plan.pick((500, 2500), (300, 1200));
    let shares = [(0.3, "30 %"), (0.7, "70 %")];

    let near = stage.turns(plan.runs(5, 2), b1::SETUP, |turn| {
        for (share, name) in shares {
            let rate = capacity * share;
            let load = Load::Open { way: turn.way(), path: PATH.to_owned(), rate, callers: CALLERS, warm_ms, ms };
            let outcome = turn.load(name, &load)?;
            for percentile in ["p50", "p99"] {
                turn.note(&format!("{percentile} at {name}"), milliseconds(&outcome, percentile)?);
            }
        }
        Ok(())
    })?;

    let far_ms = plan.pick(3000, 2000);
    let far = stage.turns(plan.runs(3, 1), Setup { link: Some(LINK), ..b1::SETUP }, |turn| {
        let load =
            Load::Open { way: turn.way(), path: PATH.to_owned(), rate: LINK_RATE, callers: CALLERS, warm_ms: 1000, ms: far_ms };
        let outcome = turn.load("over the link", &load)?;
        turn.note("round trips", milliseconds(&outcome, "p50")? / LINK.round_trip_ms);
        Ok(())
    })?;

    let row = |measure, bar| near.row("B2", measure, "ms", Better::Lower, bar);
    let (low, high) = ROUND_TRIPS;
    let exactly_one = Bar::between(low, high, "").said("exactly one");
    let mut trips = far.row("B2", "round trips", "", Better::Lower, Some(exactly_one));
    trips.measure = format!("p50 over a link of {LINK}, in round trips");
    Ok(vec![
        row("p50 at 30 %", Some(Bar::above_at_most("direct", ADDED_MAX_MS, "ms"))),
        row("p99 at 30 %", None),
        row("p50 at 70 %", Some(Bar::ratio_at_most("nginx", 1.0))),
        row("p99 at 70 %", Some(Bar::ratio_at_most("nginx", 1.0))),
        trips,
    ])
}
