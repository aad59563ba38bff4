//! B11: a soak: callers, agents and links come and go for half an hour, and nothing may grow.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::b3::MEBIBYTE;
use crate::run::ask::metric;
use crate::run::column::{Link, Setup};
use crate::run::fleet::AGENTS;
use crate::run::place::free_addresses;
use crate::run::process::Process;
use crate::run::report::{Bar, Better, Row};
use crate::run::slope::Line;
use crate::run::stage::{Stage, Turn};
use crate::task::{Load, Way, cluster, token};

/// Without `--soak-minutes`.
const MINUTES: u64 = 30;

/// To see whether the scenario itself works; it says nothing about growth.
const MINUTES_QUICK: u64 = 3;

/// A sixth of the time, five minutes of thirty: until pools, allocators and tables are as large as the load makes them.
const WARM_SHARE: u32 = 6;

const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Samples that follow each other err alike, while the error of a line is told for points that err each on its own: a line
/// goes through means of a minute.
const SAMPLES_PER_POINT: usize = 12;

/// Growth in an hour that is nothing: 24 MiB a day, so that a process with room for 1 GiB lives for six weeks; and what an
/// allocator's own ups and downs look like in half an hour.
const RSS_MAX_MIB: f64 = 1.0;

/// Growth in an hour that is nothing: less than one in the time that is looked at.
const COUNT_MAX: f64 = 2.0;

/// Nothing in between but a process that can be killed: what cuts sessions.
const LINK: Link = Link { round_trip_ms: 0.0, mbit: None };

/// How often the agent of the second cluster is killed and starts anew, and the link of both.
const AGENT_LIVES: Duration = Duration::from_secs(17);
const LINK_LIVES: Duration = Duration::from_secs(71);

/// The first cluster's agent stays for the whole time and is looked at; the second one's comes and goes.
const CLUSTERS: usize = 2;

/// What is looked at, and how much of it may come in an hour.
const MEASURES: [(&str, &str, f64); 4] =
    [("RSS", "MiB/h", RSS_MAX_MIB), ("open files", "1/h", COUNT_MAX), ("threads", "1/h", COUNT_MAX), ("tasks", "1/h", COUNT_MAX)];

const ENDS: [&str; 2] = ["server", "agent"];

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let minutes = plan.soak_minutes.unwrap_or(plan.pick(MINUTES, MINUTES_QUICK));
    let length = Duration::from_secs(60 * minutes);
    let setup = Setup { link: Some(LINK), clusters: CLUSTERS, ..Setup::default() };
    let tally =
        stage.turns(plan.runs(1, 1), setup, |turn| if turn.column.postern.is_some() { soak(turn, length) } else { Ok(()) })?;
    let mut rows = Vec::new();
    for end in ENDS {
        for (what, unit, max) in MEASURES {
            let bar = Bar::at_most(max, unit);
            rows.push(tally.row("B11", &certain(end, what), unit, Better::Lower, Some(bar)));
            rows.push(tally.row("B11", &slope(end, what), unit, Better::Lower, None));
        }
    }
    Ok(rows)
}

fn slope(end: &str, what: &str) -> String {
    format!("{end}, {what}, slope")
}

/// The lower end of the slope's confidence interval of 95 %, and not less than nothing.
fn certain(end: &str, what: &str) -> String {
    format!("{end}, {what}, growth that is certain")
}

/// One look at a process: a value for each of [`MEASURES`], and when, in hours.
struct Sample {
    hours: f64,
    values: [f64; MEASURES.len()],
}

fn soak(turn: &mut Turn<'_>, length: Duration) -> Result<()> {
    let addresses = turn.addresses()?;
    let [health] = free_addresses()?;
    let place = &turn.stage.place;
    let mut command = place.agent(&addresses.bins, addresses.public, turn.stage.upstream_addr, &token(0), Some(health));
    let agent = place.start("agent", &mut command)?;
    turn.column.members.insert(0, agent);
    turn.start_agents(1, 1)?;
    turn.until_connected(CLUSTERS)?;

    let ms = length.as_millis() as u64;
    let churn = |way: Way, n| Load::Churn { way: Way { base: way.base.replace("{cluster}", &cluster(n)), ..way }, ms };
    let loads = ["whose agent stays", "whose agent comes and goes"];
    let loads: Vec<_> = loads.iter().enumerate().map(|(n, whose)| (*whose, churn(turn.way(), n))).collect();
    let loadings = loads.iter().map(|(whose, load)| turn.begin(&format!("cluster {whose}"), load)).collect::<Result<Vec<_>>>()?;
    let (began, warm) = (Instant::now(), length / WARM_SHARE);
    let (mut agent_since, mut link_since) = (began, began);
    let mut samples: [Vec<Sample>; ENDS.len()] = Default::default();
    while began.elapsed() < length {
        sleep(SAMPLE_EVERY);
        turn.stage.place.stop.check()?;
        for ((end, metrics), samples) in ENDS.into_iter().zip([addresses.internal, health]).zip(&mut samples) {
            let process = turn.column.member(end)?;
            let tasks = metric(metrics, "process_tasks")?;
            if began.elapsed() > warm {
                samples.push(Sample { hours: began.elapsed().as_secs_f64() / 3600.0, values: values(process, tasks) });
            }
        }
        if agent_since.elapsed() > AGENT_LIVES {
            turn.column.kill(AGENTS);
            turn.start_agents(1, 1)?;
            agent_since = Instant::now();
        }
        if link_since.elapsed() > LINK_LIVES {
            cut(turn)?;
            link_since = Instant::now();
        }
    }
    for loading in loadings {
        let outcome = turn.finish(loading)?;
        eprintln!("  {:?}", outcome.more);
    }
    ENDS.into_iter().zip(samples).try_for_each(|(end, samples)| note(turn, end, &samples))
}

fn values(process: &Process, tasks: f64) -> [f64; MEASURES.len()] {
    let usage = process.usage();
    [usage.rss_bytes as f64 / MEBIBYTE, usage.fds as f64, usage.threads as f64, tasks]
}

/// Kills the link with all that is on it; a new one stands at once.
fn cut(turn: &mut Turn<'_>) -> Result<()> {
    let addresses = turn.addresses()?;
    turn.column.kill("relay");
    let relay = LINK.relay(addresses.public, addresses.listens);
    let mut relay = turn.stage.place.start("relay", &mut turn.stage.place.part("relay", &relay)?)?;
    relay.until_listening(addresses.public)?;
    turn.column.members.push(relay);
    Ok(())
}

fn note(turn: &mut Turn<'_>, end: &str, samples: &[Sample]) -> Result<()> {
    for (index, (what, unit, _)) in MEASURES.into_iter().enumerate() {
        let points: Vec<_> = samples.chunks_exact(SAMPLES_PER_POINT).map(|samples| mean(samples, index)).collect();
        let line = Line::through(&points).context("too short: a line needs three minutes after the warming")?;
        let from_to = [points.first(), points.last()].map(|point| point.map_or(0.0, |point| point.1));
        eprintln!("  {end}, {what}: {:.2} ± {:.2} {unit}, {:.1} to {:.1}", line.slope, line.margin, from_to[0], from_to[1]);
        turn.note(&slope(end, what), line.slope);
        turn.note(&certain(end, what), line.at_least().max(0.0));
    }
    Ok(())
}

fn mean(samples: &[Sample], index: usize) -> (f64, f64) {
    let n = samples.len() as f64;
    let hours = samples.iter().map(|sample| sample.hours).sum::<f64>() / n;
    (hours, samples.iter().map(|sample| sample.values[index]).sum::<f64>() / n)
}
