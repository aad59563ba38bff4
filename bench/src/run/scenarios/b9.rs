//! B9: a cache that warms up: 150 kinds of 5,000 objects each, in pages of 500, gzipped as client-go asks for them.

use anyhow::{Result, ensure};

use super::b1::SETUP;
use super::b3::MEBIBYTE;
use crate::run::column::{Link, Setup};
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn};
use crate::task::Load;

/// Of the nginx chain's rate.
const SHARE_OF_NGINX: f64 = 0.9;

/// What a cluster with many operators has, and what Argo CD lists of it.
const KINDS: usize = 150;

const OBJECTS: usize = 5_000;

/// What client-go asks for.
const PAGE: usize = 500;

/// Kinds that are listed at once: Argo CD's `--kubectl-parallelism-limit` and its cache's own limit are of this size.
const PARALLEL: usize = 50;

/// A relay that only counts. It is in the way of nothing that is timed.
const COUNTING: Link = Link { round_trip_ms: 0.0, mbit: None };

/// How often all is listed in a turn: once takes half a second, of which opening connections is a good part.
const ROUNDS: usize = 4;

const TIME: &str = "all pages, seconds";
const RATE: &str = "pages per second";
const ANSWERS: &str = "bytes of answers";
const BACK: &str = "bytes on the link, to the hub";
const THERE: &str = "bytes on the link, to the cluster";

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let timed = stage.turns(plan.runs(5, 2), SETUP, |turn| {
        let rounds = (0..ROUNDS).map(|_| relist(turn, "relist")).collect::<Result<Vec<_>>>()?;
        let seconds: f64 = rounds.iter().map(|(seconds, _)| seconds).sum();
        turn.note(TIME, seconds / ROUNDS as f64);
        turn.note(RATE, (pages() * ROUNDS) as f64 / seconds);
        turn.note(ANSWERS, rounds.last().map_or(0.0, |(_, bytes)| *bytes as f64 / MEBIBYTE));
        Ok(())
    })?;
    let counted = stage.turns(1, Setup { link: Some(COUNTING), ..SETUP }, |turn| {
        relist(turn, "relist, counted")?;
        let carried = turn.column.end_link()?;
        // Postern's agent dials the hub; the others are dialled from there.
        let is_dialed_out = turn.column.postern.is_some();
        let (to_cluster, to_hub) = if is_dialed_out { (carried.back, carried.there) } else { (carried.there, carried.back) };
        turn.note(BACK, to_hub as f64 / MEBIBYTE);
        turn.note(THERE, to_cluster as f64 / MEBIBYTE);
        Ok(())
    })?;
    let link_bytes = |measure| {
        let mut row = counted.row("B9", measure, "MiB", Better::Lower, None);
        // Headers of IP and TCP are not seen from where it is counted.
        row.measure = format!("{measure} (TCP payload, TLS included)");
        row
    };
    Ok(vec![
        timed.row("B9", RATE, "1/s", Better::Higher, Some(Bar::ratio_at_least("nginx", SHARE_OF_NGINX))),
        timed.row("B9", TIME, "s", Better::Lower, None),
        timed.row("B9", ANSWERS, "MiB", Better::Lower, None),
        link_bytes(BACK),
        link_bytes(THERE),
    ])
}

/// All pages of all kinds.
const fn pages() -> usize {
    KINDS * OBJECTS.div_ceil(PAGE)
}

/// Lists everything once: how long it took, and the bytes of the answers as they came, compressed.
fn relist(turn: &mut Turn<'_>, label: &str) -> Result<(f64, u64)> {
    let load = Load::Relist { way: turn.way(), kinds: KINDS, objects: OBJECTS, page: PAGE, parallel: PARALLEL };
    let outcome = turn.load(label, &load)?;
    ensure!(outcome.ok == pages() as u64, "{} pages came, not {}", outcome.ok, pages());
    Ok((outcome.seconds, outcome.bytes))
}
