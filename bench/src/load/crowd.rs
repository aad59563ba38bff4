//! Those who get in the way of others: bulk lists, and readers that never read.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::BodyExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::closed::FAILED_PAUSE;
use super::connection::{Ask, Dialer};
use super::tally::{SharedTally, Tally};
use crate::task::{Outcome, Way};

/// How long a crowd may take to begin: each of it in turn waits for a link that the others fill.
const BEGIN_MAX: Duration = Duration::from_secs(60);

/// Whom the crowd consists of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Members<'a> {
    pub(super) lists: usize,
    pub(super) list_path: &'a str,
    pub(super) stalled: usize,
    pub(super) stalled_path: &'a str,
}

pub(super) async fn crowd(way: &Way, members: Members<'_>) -> Result<Outcome> {
    let dialer = Dialer::new(way)?;
    let list = dialer.get(members.list_path, "")?;
    let stall = dialer.get(members.stalled_path, "")?;
    let tally = Tally::shared();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    // One word from each; more it does not say.
    let (begun, mut beginnings) = mpsc::channel(members.lists + members.stalled + 1);
    for _ in 0..members.stalled {
        tasks.spawn(stalled(dialer.clone().for_stalled(), stall.clone(), begun.clone(), tally.clone()));
    }
    for _ in 0..members.lists {
        tasks.spawn(lists(dialer.clone(), list.clone(), begun.clone(), tally.clone()));
    }
    drop(begun);
    for _ in 0..members.lists + members.stalled {
        if !matches!(timeout(BEGIN_MAX, beginnings.recv()).await, Ok(Some(()))) {
            bail!("the crowd did not begin: {:?}", tally.lock().outcome(began).errors);
        }
    }
    stand_until_killed().await?;
    tasks.abort_all();
    let outcome = tally.lock().outcome_of(began.elapsed().as_secs_f64());
    Ok(outcome)
}

/// Tells whoever started this process that all stands, and waits for its SIGTERM. One that comes earlier ends the process.
pub(super) async fn stand_until_killed() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    println!("{{}}");
    terminate.recv().await;
    Ok(())
}

/// Lists again and again, on one connection while it lasts.
async fn lists(dialer: Dialer, ask: Ask, begun: mpsc::Sender<()>, tally: SharedTally) {
    let mut begun = Some(begun);
    loop {
        if let Err(error) = list_on_one(&dialer, &ask, &mut begun, &tally).await {
            tally.lock().fail(|| format!("{error:#}"));
            sleep(FAILED_PAUSE).await;
        }
    }
}

async fn list_on_one(dialer: &Dialer, ask: &Ask, begun: &mut Option<mpsc::Sender<()>>, tally: &SharedTally) -> Result<()> {
    let mut sender = dialer.dial().await?;
    loop {
        let asked = Instant::now();
        let mut body = sender.fetch(ask).await?.into_body();
        while let Some(frame) = body.frame().await {
            let bytes = frame.context("the answer broke off")?.data_ref().map_or(0, |data| data.len() as u64);
            tally.lock().bytes += bytes;
            if let Some(begun) = begun.take() {
                let _ = begun.try_send(());
            }
        }
        tally.lock().pass(asked.elapsed());
        sender.is_ready().await;
    }
}

/// Asks, and holds the answer without reading it until the process ends.
async fn stalled(dialer: Dialer, ask: Ask, begun: mpsc::Sender<()>, tally: SharedTally) {
    let asked = async {
        let mut sender = dialer.dial().await?;
        anyhow::Ok((sender.fetch(&ask).await?, sender))
    };
    match asked.await {
        Ok(_held) => {
            let _ = begun.try_send(());
            std::future::pending::<()>().await;
        }
        Err(error) => tally.lock().fail(|| format!("{error:#}")),
    }
}
