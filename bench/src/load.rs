//! `postern-bench load`: asks as a task says, and prints what came of it.

mod churn;
mod closed;
mod connection;
mod crowd;
mod echo;
mod fetch;
mod open;
mod pace;
mod payload;
mod pipes;
mod reach;
mod relist;
mod tally;
#[cfg(test)]
mod tests;
mod watches;

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::task::{Load, Outcome};

use crowd::Members;
use echo::Rhythm;
use relist::Size;
use watches::Plan;

/// How many tasks run before sockets and timers are looked at: fewer than tokio's 61, as what waits there is being timed.
const TASKS_PER_LOOK: u32 = 16;

/// One thread does it all: it shares the machine with what it measures, and threads that wake each other cost both.
pub(crate) fn run_verb(task: Load) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_PER_LOOK)
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(run(task))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn run(task: Load) -> Result<Outcome> {
    let ms = Duration::from_millis;
    match task {
        Load::Closed { way, path, callers, warm_ms, ms: length } => {
            closed::closed(&way, &path, callers, ms(warm_ms), ms(length)).await
        }
        Load::Open { way, path, rate, callers, warm_ms, ms: length } => {
            open::open(&way, &path, rate, callers, ms(warm_ms), ms(length)).await
        }
        Load::Fetch { way, path, max_ms } => fetch::fetch(&way, &path, ms(max_ms)).await,
        Load::Upload { way, path, bytes, max_ms } => fetch::upload(&way, &path, bytes, ms(max_ms)).await,
        Load::Echo { way, path, sessions, size, every_ms, warm_ms, ms: length } => {
            let rhythm = Rhythm { sessions, size, every: ms(every_ms), warm: ms(warm_ms), length: ms(length) };
            echo::echo(&way, &path, rhythm).await
        }
        Load::Pipes { way, path, sessions, max_ms } => pipes::pipes(&way, &path, sessions, ms(max_ms)).await,
        Load::Crowd { way, lists, list_path, stalled, stalled_path } => {
            crowd::crowd(&way, Members { lists, list_path: &list_path, stalled, stalled_path: &stalled_path }).await
        }
        Load::Watches { way, clusters, watches, idle_ms, rate, ms: length, hold } => {
            let plan = Plan { clusters, watches, idle: ms(idle_ms), rate, length: ms(length), hold };
            watches::watches(&way, plan).await
        }
        Load::Churn { way, ms: length } => churn::churn(&way, ms(length)).await,
        Load::Relist { way, kinds, objects, page, parallel } => {
            relist::relist(&way, kinds, Size { objects, page }, parallel).await
        }
        Load::Reach { way, path, clusters, parallel, max_ms } => reach::reach(&way, &path, clusters, parallel, ms(max_ms)).await,
    }
}
