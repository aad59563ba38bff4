//! Asks every cluster until it answers: how long until all can be reached.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::{Ask, Caller, Dialer};
use super::tally::Tally;
use crate::task::{Outcome, Way, cluster};

/// How often all clusters together are asked at most: asking must stay small beside what makes them reachable.
const ASKS_PER_SECOND: u32 = 2_000;

/// How long a cluster is left alone between two asks, at least; how exact its time is.
const PAUSE_MIN: Duration = Duration::from_millis(5);

pub(super) async fn reach(way: &Way, path: &str, clusters: usize, parallel: usize, max: Duration) -> Result<Outcome> {
    ensure!(parallel > 0, "nobody asks");
    let dialer = Dialer::new(way)?;
    let began = Instant::now();
    let asks = (0..clusters).map(|n| dialer.get(path, &cluster(n)));
    let left: VecDeque<_> = asks.map(|ask| Ok(Wait { ask: ask?, not_before: began })).collect::<Result<_>>()?;
    let search = Arc::new(Search {
        left: Mutex::new(left),
        tally: Mutex::new(Tally::new()),
        pause: PAUSE_MIN.max(Duration::from_secs(clusters as u64) / ASKS_PER_SECOND),
        began,
        until: began + max,
    });
    let asking = (0..parallel).map(|_| tokio::spawn(Arc::clone(&search).ask_all(Caller::new(dialer.clone()))));
    join_all(asking).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    let mut tally = search.tally.lock().unwrap_or_else(PoisonError::into_inner);
    // The last moment counts that a cluster was reached, not the one at which the search was given up.
    let seconds = tally.outcome(began).seconds;
    let unreached = clusters as u64 - tally.ok;
    tally.fail_times(unreached, || format!("{unreached} clusters never answered"));
    Ok(tally.outcome_of(seconds))
}

/// A cluster that has not answered.
struct Wait {
    ask: Ask,
    not_before: Instant,
}

struct Search {
    /// In the order in which they may be asked.
    left: Mutex<VecDeque<Wait>>,
    tally: Mutex<Tally>,
    pause: Duration,
    began: Instant,
    until: Instant,
}

impl Search {
    fn left(&self) -> MutexGuard<'_, VecDeque<Wait>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one after another; one caller of several. Each that does not answer is asked later again.
    async fn ask_all(self: Arc<Self>, mut caller: Caller) {
        loop {
            let next = self.left().pop_front();
            let Some(mut wait) = next else { return };
            if wait.not_before >= self.until {
                return;
            }
            sleep_until(wait.not_before).await;
            let asked = Instant::now();
            let Ok(result) = timeout_at(self.until, caller.ask(&wait.ask)).await else { return };
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            *tally.more.entry("asks".into()).or_default() += 1.0;
            match result {
                Ok(bytes) => {
                    tally.bytes += bytes;
                    tally.pass(self.began.elapsed());
                }
                Err(error) => {
                    tally.more.entry("asks_failed".into()).and_modify(|n| *n += 1.0).or_insert(1.0);
                    tally.tell(|| format!("{error:#}"));
                    wait.not_before = asked + self.pause;
                    self.left().push_back(wait);
                }
            }
        }
    }
}
