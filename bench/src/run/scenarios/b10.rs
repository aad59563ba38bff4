//! B10: how long an agent takes from its start to the first answer through its tunnel, and how large the programs are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::ask::status_of;
use crate::run::column::{CLUSTER, Kind, PREFIX, Setup};
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn};
use crate::task::token;

/// From the start of a process to an answer, handshakes included.
const COLD_START_MAX_MS: f64 = 150.0;

/// What an image should weigh at most, per program.
const BINARY_MAX_MB: f64 = 12.0;

/// Between two questions: shorter than what is measured by far.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// After this an agent does not come.
const COLD_START_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let tally = stage.turns(plan.runs(5, 2), Setup::default(), |turn| {
        if turn.column.postern.is_some() {
            let took = cold_start(turn)?;
            turn.note("agent, cold start to first answer", took.as_secs_f64() * 1000.0);
        }
        Ok(())
    })?;
    let bar = Bar::at_most(COLD_START_MAX_MS, "ms");
    let mut rows = vec![tally.row("B10", "agent, cold start to first answer", "ms", Better::Lower, Some(bar))];
    for program in ["postern-server", "postern-agent"] {
        rows.push(size(stage, program)?);
    }
    Ok(rows)
}

/// A server that has never seen this cluster, and an agent that starts.
fn cold_start(turn: &mut Turn<'_>) -> Result<Duration> {
    let addresses = turn.column.postern.clone().context("only Postern has an agent")?;
    let place = &turn.stage.place;
    turn.column.kill("agent");
    turn.column.kill("server");
    let clusters = place.clusters("clusters.json", [(CLUSTER.to_owned(), token(0))])?;
    let command = &mut place.server(&addresses.bins, addresses.public, addresses.internal, &clusters);
    let mut server = place.start("server", command)?;
    server.until_listening(addresses.internal)?;
    turn.column.members.push(server);

    let path = format!("{PREFIX}/{CLUSTER}/version");
    let mut command = place.agent(&addresses.bins, addresses.public, turn.stage.upstream_addr, &token(0), None);
    let started = Instant::now();
    let mut agent = place.start("agent", &mut command)?;
    while !status_of(addresses.internal, &path).is_ok_and(|status| status == 200) {
        agent.alive()?;
        place.stop.check()?;
        if started.elapsed() > COLD_START_LIMIT {
            bail!("no answer within {COLD_START_LIMIT:?} of the agent's start; {}", agent.last_words());
        }
        std::thread::sleep(ASK_EVERY);
    }
    let took = started.elapsed();
    turn.column.members.push(agent);
    Ok(took)
}

/// The size of a program, as it lies there: release builds are stripped.
fn size(stage: &Stage, program: &str) -> Result<Row> {
    let mut values = BTreeMap::new();
    for kind in &stage.kinds {
        if let Kind::Postern { name, bins } = kind {
            values.insert(name.clone(), BTreeMap::from([(0, megabytes(&bins.join(program))?)]));
        }
    }
    let bar = Bar::at_most(BINARY_MAX_MB, "MB");
    Ok(Row::new("B10", &format!("{program}, stripped"), "MB", Better::Lower, values, Some(bar)))
}

fn megabytes(file: &Path) -> Result<f64> {
    Ok(fs::metadata(file).with_context(|| file.display().to_string())?.len() as f64 / 1e6)
}
