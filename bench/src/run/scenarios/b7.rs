//! B7: the storm after a hub was killed and is back, and a cluster beside a storm of others.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::b1;
use crate::run::column::Setup;
use crate::run::fleet::{AGENTS, THERE_MAX, agents_connected};
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn, milliseconds};
use crate::task::{Load, Way, cluster, token};

/// How many agents come back at once, and in how many seconds all must be routable.
const STORMS: [(usize, f64); 2] = [(1_000, 10.0), (5_000, 30.0)];

/// During the storm of others, of what it was before.
const SLOWER_MAX: f64 = 2.0;

/// As many as B6 has, too: each begins with a few megabytes of its own.
const PROCESSES: usize = 8;

/// How long the hub is away: what a scheduler takes for another pod at best, and long enough that every agent has noticed.
const AWAY: Duration = Duration::from_secs(5);

/// How exactly the last session's time is told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who looks whether clusters answer.
const SEEKERS: usize = 64;

/// GETs per second to the cluster beside the storm: enough for a p99 in seconds, a small part of what the machine can do.
const RATE: f64 = 200.0;

const CALLERS: usize = 32;

/// Connections to the cluster beside the storm stand before it begins.
const WARM: Duration = Duration::from_secs(1);

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let runs = plan.runs(2, 1);
    let mut rows = Vec::new();
    for (full, max_seconds) in STORMS {
        let agents = plan.pick(full, full / 10);
        let tally = stage.turns(runs, Setup { clusters: agents, ..Setup::default() }, |turn| {
            if turn.column.postern.is_some() { recover(turn, agents) } else { Ok(()) }
        })?;
        let bars = [Some(Bar::at_most(max_seconds, "s")), None];
        rows.extend(
            ["all answer", "all are connected"]
                .into_iter()
                .zip(bars)
                .map(|(what, bar)| tally.row("B7", &after(agents, what), "s", Better::Lower, bar)),
        );
        let tally = stage.turns(runs, Setup { clusters: agents + 1, ..Setup::default() }, |turn| {
            if turn.column.postern.is_some() { stand_beside(turn, agents) } else { Ok(()) }
        })?;
        let bar = Bar::at_most(SLOWER_MAX, "").said(&format!("< {SLOWER_MAX} × before"));
        rows.push(tally.row("B7", &beside(agents, "during / before"), "", Better::Lower, Some(bar)));
        rows.extend(["before", "during"].map(|when| tally.row("B7", &beside(agents, when), "ms", Better::Lower, None)));
    }
    Ok(rows)
}

fn after(agents: usize, what: &str) -> String {
    format!("hub is back, {agents} agents: {what}")
}

fn beside(agents: usize, when: &str) -> String {
    format!("GET p99 of a cluster beside a storm of {agents} agents, {when}")
}

/// Kills the server of a fleet, starts another, and measures from its start until the last cluster has answered.
fn recover(turn: &mut Turn<'_>, agents: usize) -> Result<()> {
    turn.start_fleet(0, agents, PROCESSES)?;
    turn.until_connected(agents)?;
    // Agents in service have connections to their API servers; and a fleet that does not answer at all is told as such.
    let reach = reach(turn, agents);
    turn.load(&format!("{agents} clusters, each once"), &reach)?;

    turn.column.kill("server");
    thread::sleep(AWAY);
    let addresses = turn.addresses()?;
    let place = &turn.stage.place;
    let mut command = place.server(&addresses.bins, addresses.listens, addresses.internal, &addresses.clusters);
    let began = Instant::now();
    let server = place.start("server", &mut command)?;
    turn.column.members.push(server);
    let loading = turn.begin(&format!("{agents} clusters, hub is back"), &reach)?;
    let before_seeking = began.elapsed().as_secs_f64();
    let connecting = thread::spawn(move || seconds_until_connected(addresses.internal, agents, began));
    let outcome = turn.finish(loading);
    let connected = connecting.join().ok().flatten();
    turn.note(&after(agents, "all answer"), before_seeking + outcome?.seconds);
    turn.note(&after(agents, "all are connected"), connected.context("not all agents came back")?);
    Ok(())
}

fn reach(turn: &Turn<'_>, clusters: usize) -> Load {
    let max_ms = THERE_MAX.as_millis() as u64;
    Load::Reach { way: turn.way(), path: "/version".to_owned(), clusters, parallel: SEEKERS, max_ms }
}

fn seconds_until_connected(internal: SocketAddr, agents: usize, began: Instant) -> Option<f64> {
    while began.elapsed() < THERE_MAX {
        // Until somebody listens there is no answer.
        if agents_connected(internal).is_ok_and(|connected| connected >= agents) {
            return Some(began.elapsed().as_secs_f64());
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}

/// A cluster whose agent stays, while all others' agents are killed and start again at once.
fn stand_beside(turn: &mut Turn<'_>, agents: usize) -> Result<()> {
    let addresses = turn.addresses()?;
    let place = &turn.stage.place;
    let mut command = place.agent(&addresses.bins, addresses.public, turn.stage.upstream_addr, &token(0), None);
    let agent = place.start("agent", &mut command)?;
    turn.column.members.insert(0, agent);
    turn.until_connected(1)?;

    // A first storm tells how long one lasts: what is measured longer than that is not measured during it.
    let began = Instant::now();
    turn.start_fleet(1, agents, PROCESSES)?;
    turn.until_connected(agents + 1)?;
    let lasts = began.elapsed();
    let calm = gets(turn, Duration::from_secs(5));
    let before = milliseconds(&turn.load(&beside(agents, "before"), &calm)?, "p99")?;

    turn.column.kill(AGENTS);
    let gets = gets(turn, lasts);
    let loading = turn.begin(&beside(agents, "during"), &gets)?;
    thread::sleep(WARM);
    turn.start_fleet(1, agents, PROCESSES)?;
    let during = milliseconds(&turn.finish(loading)?, "p99")?;
    turn.until_connected(agents + 1)?;
    turn.note(&beside(agents, "before"), before);
    turn.note(&beside(agents, "during"), during);
    turn.note(&beside(agents, "during / before"), during / before);
    Ok(())
}

fn gets(turn: &Turn<'_>, length: Duration) -> Load {
    let way = turn.way();
    let way = Way { base: way.base.replace("{cluster}", &cluster(0)), ..way };
    let (warm_ms, ms) = (WARM.as_millis() as u64, length.as_millis() as u64);
    Load::Open { way, path: b1::PATH.to_owned(), rate: RATE, callers: CALLERS, warm_ms, ms }
}
