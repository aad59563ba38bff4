//! `postern-bench load`: asks as a task says, and prints what came of it.

mod closed;
mod connection;
mod fetch;
mod open;
mod pace;
mod payload;
mod tally;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::task::{Load, Outcome};

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
        other => bail!("{other:?} is not here yet"),
    }
}
