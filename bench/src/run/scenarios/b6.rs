//! B6: what an idle tunnel and an idle watch hold of memory at each end, as slopes over growing numbers of them.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run::column::Setup;
use crate::run::fleet::AGENTS;
use crate::run::process::Process;
use crate::run::report::{Bar, Better, Row};
use crate::run::slope::Line;
use crate::run::stage::{Stage, Turn};
use crate::run::tally::Tally;
use crate::task::{Load, Way};

/// At each end.
const TUNNEL_MAX_KIB: f64 = 48.0;

/// At the server, for callers that have their watches on few connections.
const WATCH_HTTP2_MAX_KIB: f64 = 16.0;

/// At the server, for callers with a connection for each watch.
const WATCH_HTTP1_MAX_KIB: f64 = 40.0;

/// Of different sizes (1 : 2 : …), so that the slope over them is that of an agent and not that of a process.
const AGENT_PROCESSES: usize = 8;

const TUNNELS: usize = 5_000;

/// As many as Argo CD has in the capacity that is published.
const CLUSTERS: usize = 100;

/// Per cluster; 150 are what Argo CD watches on one.
const WATCHES: [usize; 3] = [30, 75, 150];

/// Per cluster, with nginx: each watch costs it three connections and two handshakes, and ports of one address are finite.
const NGINX_WATCHES: [usize; 3] = [10, 25, 50];

/// Until what was needed only to begin (handshakes, heads) is given back; in a quick run, most of it.
const SETTLED: Duration = Duration::from_secs(2);
const SETTLED_QUICK: Duration = Duration::from_millis(400);

const KIBIBYTE: f64 = 1024.0;

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let runs = plan.runs(1, 1);
    let tunnels = plan.pick(TUNNELS, TUNNELS / 10);
    let idle_tunnels = stage.turns(runs, Setup { clusters: tunnels, ..Setup::default() }, |turn| {
        if turn.column.postern.is_some() { grow_tunnels(turn, tunnels) } else { Ok(()) }
    })?;
    let clusters = plan.pick(CLUSTERS, CLUSTERS / 10);
    let mut rows = ["server", AGENTS].map(|end| row(&idle_tunnels, &per_tunnel(end), Some(TUNNEL_MAX_KIB))).to_vec();
    for (http2, server_max) in [(true, WATCH_HTTP2_MAX_KIB), (false, WATCH_HTTP1_MAX_KIB)] {
        let tally = stage.turns(runs, Setup { clusters, ..Setup::default() }, |turn| grow_watches(turn, clusters, http2))?;
        rows.push(row(&tally, &per_watch("hub", http2), Some(server_max)));
        rows.push(row(&tally, &per_watch("cluster", http2), None));
    }
    Ok(rows)
}

fn row(tally: &Tally, measure: &str, max_kib: Option<f64>) -> Row {
    tally.row("B6", measure, "KiB", Better::Lower, max_kib.map(|max| Bar::at_most(max, "KiB")))
}

pub(crate) fn per_tunnel(end: &str) -> String {
    format!("{end}, per idle tunnel")
}

pub(crate) fn per_watch(end: &str, http2: bool) -> String {
    let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
    format!("{end}'s end, per idle watch of {version} callers")
}

/// One process with agents after another; the server's memory is looked at after each, the agents' at the end.
fn grow_tunnels(turn: &mut Turn<'_>, tunnels: usize) -> Result<()> {
    let shares = AGENT_PROCESSES * (AGENT_PROCESSES + 1) / 2;
    let mut server = vec![(0.0, rss_kib(turn, "server"))];
    let (mut connected, mut counts) = (0, Vec::new());
    for n in 1..=AGENT_PROCESSES {
        let until = tunnels * n * (n + 1) / 2 / shares;
        turn.start_agents(connected, until - connected)?;
        counts.push(until - connected);
        turn.until_connected(until)?;
        connected = until;
        settle(turn);
        server.push((connected as f64, rss_kib(turn, "server")));
    }
    // The one that was started last is the first member.
    let processes = turn.column.members.iter().filter(|member| member.name() == AGENTS).rev();
    let agents: Vec<_> = counts.iter().zip(processes).map(|(count, process)| (*count as f64, kib(process))).collect();
    note_slope(turn, &per_tunnel("server"), &server)?;
    note_slope(turn, &per_tunnel(AGENTS), &agents)
}

/// More and more watches on the same clusters; those that are there stay.
fn grow_watches(turn: &mut Turn<'_>, clusters: usize, http2: bool) -> Result<()> {
    let nginx = turn.column.member("nginx-hub").is_ok();
    if turn.column.postern.is_some() {
        turn.start_agents(0, clusters)?;
        turn.until_connected(clusters)?;
    } else if http2 || !nginx {
        // nginx speaks HTTP/1.1 to all; who goes directly has nobody on the way.
        return Ok(());
    }
    let (steps, hub, cluster) = if nginx { (NGINX_WATCHES, "nginx-hub", "nginx-edge") } else { (WATCHES, "server", AGENTS) };
    settle(turn);
    let mut hubs = vec![(0.0, rss_kib(turn, hub))];
    let mut ends = vec![(0.0, rss_kib(turn, cluster))];
    let (mut open, mut crowds) = (0, Vec::new());
    for watches in steps {
        let way = Way { http2, ..turn.way() };
        let load = Load::Watches { way, clusters, watches: watches - open, idle_ms: 0, rate: 0.0, ms: 0, hold: true };
        crowds.push(turn.crowd(&load)?);
        open = watches;
        settle(turn);
        let total = (clusters * open) as f64;
        hubs.push((total, rss_kib(turn, hub)));
        ends.push((total, rss_kib(turn, cluster)));
    }
    crowds.iter_mut().try_for_each(Process::alive)?;
    note_slope(turn, &per_watch("hub", http2), &hubs)?;
    note_slope(turn, &per_watch("cluster", http2), &ends)
}

fn note_slope(turn: &mut Turn<'_>, measure: &str, points: &[(f64, f64)]) -> Result<()> {
    let told: Vec<_> = points.iter().map(|(n, kib)| format!("{n:.0}: {:.1} MiB", kib / KIBIBYTE)).collect();
    let line = Line::through(points).with_context(|| format!("{measure}: no line through {told:?}"))?;
    eprintln!("  {measure}: {:.1} KiB ± {:.1} over {}", line.slope, line.margin, told.join(", "));
    turn.note(measure, line.slope);
    Ok(())
}

fn settle(turn: &Turn<'_>) {
    sleep(turn.stage.plan.pick(SETTLED, SETTLED_QUICK));
}

fn rss_kib(turn: &Turn<'_>, name: &str) -> f64 {
    turn.column.members.iter().filter(|member| member.name() == name).map(kib).sum()
}

fn kib(process: &Process) -> f64 {
    process.usage().rss_bytes as f64 / KIBIBYTE
}
