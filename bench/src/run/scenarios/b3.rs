//! B3: one LIST of 256 MiB, on loopback and over links with distance; B12 is the same the other way.

use anyhow::Result;

use super::share_of;
use crate::run::column::{Link, Setup};
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn, more};
use crate::task::Load;

/// A list of all pods of a very large cluster.
pub(crate) const BYTES: u64 = 256 << 20;

/// On loopback: of what the nginx chain carries.
pub(crate) const SHARE_OF_NGINX: f64 = 0.9;

/// Over distance: of the link's own rate, once the first second is over.
pub(crate) const SHARE_OF_LINK: f64 = 0.9;

pub(crate) const MEBIBYTE: f64 = (1 << 20) as f64;

/// The links: near, across an ocean, by satellite; each slow and fast.
pub(crate) fn links(stage: &Stage) -> Vec<Link> {
    let trips = stage.plan.pick(&[20.0, 80.0, 200.0][..], &[80.0]);
    let link = |round_trip_ms: &f64| [100, 1000].map(|mbit| Link { round_trip_ms: *round_trip_ms, mbit: Some(mbit) });
    trips.iter().flat_map(link).collect()
}

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let load = |turn: &Turn<'_>, max_ms| Load::Fetch { way: turn.way(), path: format!("/api/v1/pods?bytes={BYTES}"), max_ms };
    let near = stage.turns(plan.runs(5, 2), Setup::default(), |turn| {
        let outcome = turn.load("loopback", &load(turn, 30_000))?;
        turn.note("loopback", outcome.bytes as f64 / outcome.seconds / MEBIBYTE);
        Ok(())
    })?;
    let bar = Bar::ratio_at_least("nginx", SHARE_OF_NGINX);
    let mut rows = vec![near.row("B3", "loopback", "MiB/s", Better::Higher, Some(bar))];

    let far_ms = plan.pick(3_500, 3_000);
    for link in links(stage) {
        let far = stage.turns(plan.runs(2, 1), Setup { link: Some(link), ..Setup::default() }, |turn| {
            let outcome = turn.load(&link.to_string(), &load(turn, far_ms))?;
            let rate = more(&outcome, "bytes_per_second_after_first")?;
            turn.note(&share_of(link), share(link, rate));
            Ok(())
        })?;
        rows.push(far.row("B3", &share_of(link), "", Better::Higher, Some(share_bar())));
    }
    Ok(rows)
}

/// What `bytes_per_second` of payload are of the rate of `link`.
pub(crate) fn share(link: Link, bytes_per_second: f64) -> f64 {
    link.mbit.map_or(f64::NAN, |mbit| bytes_per_second * 8.0 / (mbit * 1_000_000) as f64)
}

pub(crate) fn share_bar() -> Bar {
    Bar::at_least(SHARE_OF_LINK, "").said(&format!("≥ {SHARE_OF_LINK} of the link after the first second"))
}
