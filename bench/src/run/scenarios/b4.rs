//! B4: GETs and exec sessions over a link, alone and then beside bulk LISTs and readers that never read.

use anyhow::Result;

use super::b1;
use super::b3::MEBIBYTE;
use crate::run::column::{Link, Setup};
use crate::run::process::Process;
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn, milliseconds};
use crate::task::Load;

const LINK: Link = Link { round_trip_ms: 20.0, mbit: Some(200) };

/// Beside the crowd, of what it was without.
const SLOWER_MAX: f64 = 2.0;

/// What one tunnel's bytes may take, by `--session-budget`'s default; beside it a process holds little that depends on load.
const BUDGET_MIB: f64 = 64.0;

const LISTS: usize = 4;

const STALLED: usize = 20;

/// GETs per second: enough for a p99 in seconds, a small part of the link.
const RATE: f64 = 100.0;

const ECHO_SESSIONS: usize = 10;

/// A keystroke, and what a shell says to it.
const ECHO_BYTES: usize = 64;

/// Together as many echoes per second as two hundred.
const ECHO_EVERY_MS: u64 = 50;

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let ms = plan.pick(5_000, 2_000);
    let tally = stage.turns(plan.runs(3, 1), Setup { link: Some(LINK), ..Setup::default() }, |turn| {
        both(turn, "alone", ms)?;
        let before = largest_mib(turn, |process| process.usage().rss_bytes);
        let way = turn.way();
        // Long enough that nobody's ends before the measuring does.
        let [list_path, stalled_path] = [256, 1024].map(|mebibytes: u64| format!("/api/v1/pods?bytes={}", mebibytes << 20));
        let crowd = turn.crowd(&Load::Crowd { way, lists: LISTS, list_path, stalled: STALLED, stalled_path })?;
        both(turn, "beside the crowd", ms)?;
        let after = largest_mib(turn, |process| process.usage().peak_bytes);
        drop(crowd);
        if let (Some(before), Some(after)) = (before, after) {
            turn.note("memory for the crowd, largest process", after - before);
        }
        for what in ["GET", "exec echo"] {
            let [alone, beside] = ["alone", "beside the crowd"].map(|when| turn.noted(&p99(what, when)));
            if let (Some(alone), Some(beside)) = (alone, beside) {
                turn.note(&format!("{what} p99, beside the crowd / alone"), beside / alone);
            }
        }
        Ok(())
    })?;
    let mut rows = Vec::new();
    for what in ["GET", "exec echo"] {
        let bar = Bar::at_most(SLOWER_MAX, "").said(&format!("≤ {SLOWER_MAX} × alone"));
        let measure = format!("{what} p99, beside the crowd / alone");
        rows.push(tally.row("B4", &measure, "", Better::Lower, Some(bar)));
        rows.extend(["alone", "beside the crowd"].map(|when| tally.row("B4", &p99(what, when), "ms", Better::Lower, None)));
    }
    let bar = Bar::at_most(BUDGET_MIB, "MiB");
    rows.push(tally.row("B4", "memory for the crowd, largest process", "MiB", Better::Lower, Some(bar)));
    Ok(rows)
}

fn p99(what: &str, when: &str) -> String {
    format!("{what} p99, {when}")
}

/// GETs and echoes at the same time; both together are a hundredth of the link.
fn both(turn: &mut Turn<'_>, when: &str, ms: u64) -> Result<()> {
    let (way, warm_ms) = (turn.way(), 1_000);
    let path = b1::PATH.to_owned();
    let get =
        turn.begin(&format!("GET, {when}"), &Load::Open { way: way.clone(), path, rate: RATE, callers: 32, warm_ms, ms })?;
    let path = "/api/v1/namespaces/bench/pods/shell/exec".to_owned();
    let (sessions, size, every_ms) = (ECHO_SESSIONS, ECHO_BYTES, ECHO_EVERY_MS);
    let echo = Load::Echo { way, path, sessions, size, every_ms, warm_ms, ms };
    let echo = turn.load(&format!("exec echo, {when}"), &echo)?;
    let get = turn.finish(get)?;
    turn.note(&p99("GET", when), milliseconds(&get, "p99")?);
    turn.note(&p99("exec echo", when), milliseconds(&echo, "p99")?);
    Ok(())
}

/// The largest of the column's own processes by some measure of memory; the link between them does not count.
fn largest_mib(turn: &Turn<'_>, bytes: fn(&Process) -> u64) -> Option<f64> {
    let members = turn.column.members.iter().filter(|member| member.name() != "relay");
    Some(members.map(bytes).max()? as f64 / MEBIBYTE)
}
