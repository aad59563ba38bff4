//! B8: upgraded connections: a hundred exec sessions that echo over a link, and twenty port-forwards at full rate.

use anyhow::Result;

use super::b3::{MEBIBYTE, SHARE_OF_NGINX, share, share_bar};
use super::share_of;
use crate::run::column::{Link, Setup};
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn, milliseconds, more};
use crate::task::Load;

/// What the echoes cross: a region away, and never full.
const ECHO_LINK: Link = Link { round_trip_ms: 20.0, mbit: Some(1000) };

/// Beyond the link's own round trip; a person does not feel it.
const ECHO_ADDED_MAX_MS: f64 = 5.0;

const ECHO_SESSIONS: usize = 100;

/// A keystroke, and what a shell says to it.
const ECHO_BYTES: usize = 64;

/// Faster than anybody types.
const ECHO_EVERY_MS: u64 = 100;

const PIPES: usize = 20;

/// What the port-forwards cross at full rate.
const PIPES_LINK: Link = Link { round_trip_ms: 80.0, mbit: Some(1000) };

/// Together as much as B3's list on loopback.
const PIPE_BYTES: u64 = (256 << 20) / PIPES as u64;

/// More than the link carries in the time that it is watched.
const PIPE_BYTES_FAR: u64 = 256 << 20;

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let ms = plan.pick(5_000, 2_000);
    let echo = stage.turns(plan.runs(2, 1), Setup { link: Some(ECHO_LINK), ..Setup::default() }, |turn| {
        let (way, path) = (turn.way(), "/api/v1/namespaces/bench/pods/shell/exec".to_owned());
        let (sessions, size, every_ms) = (ECHO_SESSIONS, ECHO_BYTES, ECHO_EVERY_MS);
        let outcome = turn.load("exec echo", &Load::Echo { way, path, sessions, size, every_ms, warm_ms: 1_000, ms })?;
        for percentile in ["p50", "p99"] {
            turn.note(&echo_measure(percentile), milliseconds(&outcome, percentile)?);
        }
        Ok(())
    })?;

    let near = stage.turns(plan.runs(2, 1), Setup::default(), |turn| {
        let outcome = turn.load("port-forwards", &pipes(turn, PIPE_BYTES, 30_000))?;
        turn.note("port-forwards", outcome.bytes as f64 / outcome.seconds / MEBIBYTE);
        Ok(())
    })?;
    let far_ms = plan.pick(4_000, 3_000);
    let far = stage.turns(plan.runs(2, 1), Setup { link: Some(PIPES_LINK), ..Setup::default() }, |turn| {
        let outcome = turn.load(&format!("port-forwards, {PIPES_LINK}"), &pipes(turn, PIPE_BYTES_FAR, far_ms))?;
        let rate = more(&outcome, "bytes_per_second_after_first")?;
        turn.note(&share_of(PIPES_LINK), share(PIPES_LINK, rate));
        Ok(())
    })?;

    let p99_max = ECHO_LINK.round_trip_ms + ECHO_ADDED_MAX_MS;
    let bar = Bar::at_most(p99_max, "ms").said(&format!("≤ the link's {} ms + {ECHO_ADDED_MAX_MS} ms", ECHO_LINK.round_trip_ms));
    let mut share = far.row("B8", &share_of(PIPES_LINK), "", Better::Higher, Some(share_bar()));
    share.measure = format!("{PIPES} port-forwards, {}", share.measure);
    let mut rate = near.row("B8", "port-forwards", "MiB/s", Better::Higher, Some(Bar::ratio_at_least("nginx", SHARE_OF_NGINX)));
    rate.measure = format!("{PIPES} port-forwards, loopback");
    Ok(vec![
        echo.row("B8", &echo_measure("p50"), "ms", Better::Lower, None),
        echo.row("B8", &echo_measure("p99"), "ms", Better::Lower, Some(bar)),
        rate,
        share,
    ])
}

fn echo_measure(percentile: &str) -> String {
    format!("{ECHO_SESSIONS} exec echoes over {ECHO_LINK}, {percentile}")
}

fn pipes(turn: &Turn<'_>, bytes: u64, max_ms: u64) -> Load {
    let path = format!("/api/v1/namespaces/bench/pods/web/portforward?bytes={bytes}");
    Load::Pipes { way: turn.way(), path, sessions: PIPES, max_ms }
}
