//! B5: what Argo CD is to a hub: 150 watches on each of 100 clusters, at first idle, then with events on all of them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::b3::MEBIBYTE;
use crate::run::column::{Link, Setup};
use crate::run::fleet::AGENTS;
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn, milliseconds};
use crate::run::tally::Tally;
use crate::run::usage::Usage;
use crate::task::Load;

pub(crate) const CLUSTERS: usize = 100;

/// On each cluster: one for each kind that it has.
pub(crate) const WATCHES: usize = 150;

/// As many as there may be at most; an agent of its own for each cluster would measure the start of processes.
const AGENT_PROCESSES: usize = 8;

/// Events per second and cluster: one with some hundreds of pods that come and go.
pub(crate) const RATE: f64 = 10.0;

/// Beyond what the link takes, from the upstream's writing to the caller's reading.
const DELAY_MAX_MS: f64 = 10.0;

/// A region away.
const LINK: Link = Link { round_trip_ms: 20.0, mbit: None };

/// nginx opens a connection from hub to edge for each watch, and the link, which is one process, has two files for each: more
/// than these clusters would go beyond the usual limit of 20,000.
const NGINX_CLUSTERS_OVER_LINK: usize = 60;

/// Until what was needed only to open watches is given back, and is no part of being idle.
const SETTLED: Duration = Duration::from_secs(2);

/// At least; opening mostly takes less than was reserved for it, and the rest is idle, too.
const IDLE_MS: u64 = 8_000;

/// For nginx, which shakes hands twice for each watch, beside what is reserved for opening over HTTP/2.
const NGINX_IDLE_MS: u64 = 45_000;

/// Base of the capacity's formulas.
pub(crate) const SERVER_ALONE: &str = "server without agents, memory";
pub(crate) const AGENT_ALONE: &str = "one agent without watches, memory";
pub(crate) const AGENT_WITH_WATCHES: &str = "one agent with 150 idle watches, memory";

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let mut rows = play_over(stage, None)?;
    rows.extend(play_over(stage, Some(LINK))?);
    rows.extend(one_agent(stage)?);
    Ok(rows)
}

/// Both programs as they are started in life, where one cluster is one process.
fn one_agent(stage: &mut Stage) -> Result<Vec<Row>> {
    let runs = stage.plan.runs(2, 1);
    let tally = stage.turns(runs, Setup { http2: true, ..Setup::default() }, |turn| {
        if turn.column.postern.is_none() {
            return Ok(());
        }
        sleep(SETTLED);
        turn.note(AGENT_ALONE, turn.usage_of("agent").rss_bytes as f64 / MEBIBYTE);
        let way = turn.way();
        let load = Load::Watches { way, clusters: 1, watches: WATCHES, idle_ms: 0, rate: 0.0, ms: 0, hold: true };
        let _watches = turn.crowd(&load)?;
        sleep(SETTLED);
        turn.note(AGENT_WITH_WATCHES, turn.usage_of("agent").rss_bytes as f64 / MEBIBYTE);
        Ok(())
    })?;
    let row = |measure| tally.row("B5", measure, "MiB", Better::Lower, None);
    Ok(vec![row(AGENT_ALONE), row(AGENT_WITH_WATCHES)])
}

fn play_over(stage: &mut Stage, link: Option<Link>) -> Result<Vec<Row>> {
    let runs = stage.plan.runs(1, 1);
    let setup = Setup { link, http2: true, clusters: CLUSTERS, ..Setup::default() };
    let tally = stage.turns(runs, setup, |turn| shape(turn, link))?;

    let one_way = link.map_or(0.0, |link| link.round_trip_ms / 2.0);
    let delay_max = match link {
        Some(_) => Bar::at_most(one_way + DELAY_MAX_MS, "ms").said(&format!("≤ the link's {one_way} ms + {DELAY_MAX_MS} ms")),
        None => Bar::at_most(DELAY_MAX_MS, "ms"),
    };
    let row = |measure: &str, unit, bar| row(&tally, link, measure, unit, bar);
    let mut rows = vec![
        row(&delay("p50"), "ms", None),
        row(&delay("p99"), "ms", Some(delay_max)),
        row(LOST, "", Some(Bar::at_most(0.0, "").said("none"))),
    ];
    if link.is_none() {
        for end in ENDS {
            rows.push(row(&idle_cpu(end.name), "% of a core", None));
            rows.push(row(&event_cpu(end.name), "µs", None));
            rows.push(row(&memory(end.name), "MiB", None));
        }
        rows.push(row(SERVER_ALONE, "MiB", None));
    }
    Ok(rows)
}

fn row(tally: &Tally, link: Option<Link>, measure: &str, unit: &str, bar: Option<Bar>) -> Row {
    let mut row = tally.row("B5", measure, unit, Better::Lower, bar);
    if let Some(link) = link {
        row.measure = format!("{measure}, link of {link} (nginx: {NGINX_CLUSTERS_OVER_LINK} clusters)");
    }
    row
}

/// One end of the way, and how its processes are named in the columns that have it.
struct End {
    name: &'static str,
    processes: [&'static str; 2],
}

const ENDS: [End; 2] =
    [End { name: "hub", processes: ["server", "nginx-hub"] }, End { name: "clusters", processes: [AGENTS, "nginx-edge"] }];

const LOST: &str = "events lost";

fn delay(percentile: &str) -> String {
    format!("event delay {percentile}")
}

pub(crate) fn idle_cpu(end: &str) -> String {
    format!("{end}, CPU while {} watches are idle", CLUSTERS * WATCHES)
}

pub(crate) fn event_cpu(end: &str) -> String {
    format!("{end}, CPU per event")
}

fn memory(end: &str) -> String {
    format!("{end}, memory while {} watches are idle", CLUSTERS * WATCHES)
}

fn shape(turn: &mut Turn<'_>, link: Option<Link>) -> Result<()> {
    if turn.column.postern.is_some() {
        turn.note(SERVER_ALONE, turn.usage_of("server").rss_bytes as f64 / MEBIBYTE);
        turn.start_fleet(0, CLUSTERS, AGENT_PROCESSES)?;
        turn.until_connected(CLUSTERS)?;
    }
    let is_nginx = turn.column.member("nginx-hub").is_ok();
    let clusters = if is_nginx && link.is_some() { NGINX_CLUSTERS_OVER_LINK } else { CLUSTERS };
    let idle_ms = if is_nginx { NGINX_IDLE_MS } else { IDLE_MS };
    let ms = turn.stage.plan.pick(10_000, 3_000);
    let load = Load::Watches { way: turn.way(), clusters, watches: WATCHES, idle_ms, rate: RATE, ms, hold: false };

    let mut loading = turn.begin("watches", &load)?;
    turn.sign(&mut loading)?;
    sleep(SETTLED);
    let (open, idle_since) = (ends(turn), Instant::now());
    turn.sign(&mut loading)?;
    let (idle, idle_seconds) = (ends(turn), idle_since.elapsed().as_secs_f64());
    let outcome = turn.finish(loading)?;
    let after = ends(turn);

    for percentile in ["p50", "p99"] {
        turn.note(&delay(percentile), milliseconds(&outcome, percentile)?);
    }
    turn.note(LOST, outcome.failed as f64);
    for (n, end) in ENDS.iter().enumerate().filter(|(n, _)| after[*n].processes > 0) {
        turn.note(&idle_cpu(end.name), (idle[n].cpu_seconds - open[n].cpu_seconds) / idle_seconds * 100.0);
        turn.note(&event_cpu(end.name), (after[n].cpu_seconds - idle[n].cpu_seconds) / outcome.ok as f64 * 1e6);
        turn.note(&memory(end.name), idle[n].rss_bytes as f64 / MEBIBYTE);
    }
    Ok(())
}

/// What the processes of each end have used by now.
fn ends(turn: &Turn<'_>) -> [Usage; 2] {
    ENDS.map(|end| end.processes.iter().map(|name| turn.usage_of(name)).fold(Usage::default(), Usage::and))
}
