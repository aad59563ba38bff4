//! Open loop: requests at fixed times, whether or not earlier ones were answered; latency counts from the time due.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{Ask, Caller, Dialer};
use super::echo::OPENED_AT_ONCE;
use super::pace::Schedule;
use super::tally::{SharedTally, Tally};
use crate::task::{Outcome, Way};

pub(super) async fn open(way: &Way, path: &str, rate: f64, callers: usize, warm: Duration, length: Duration) -> Result<Outcome> {
    ensure!(rate > 0.0 && callers > 0, "an open loop needs a rate and callers");
    let dialer = Dialer::new(way)?;
    let ask = dialer.get(path, "")?;
    // Connections stand before the first request: what is timed is a request, not a handshake.
    let dialing = stream::iter((0..callers).map(|_| dialer.dial())).buffer_unordered(OPENED_AT_ONCE);
    let senders: Vec<_> = dialing.try_collect().await?;
    let asking = senders.into_iter().map(|sender| (Caller::on(dialer.clone(), sender), ask.clone()));
    let schedule = Schedule::new(rate, warm, length);
    let desk = Desk::open(asking, schedule.began());
    let late = schedule.keep_exactly(|_, due| desk.hand_over(due)).await?;
    Ok(desk.close(&late).await)
}

/// One who can be told to ask.
trait Asking: Send + 'static {
    /// Asks once and reads the answer; its bytes.
    fn ask(&mut self) -> impl Future<Output = Result<u64>> + Send;
}

impl Asking for (Caller, Ask) {
    fn ask(&mut self) -> impl Future<Output = Result<u64>> + Send {
        self.0.ask(&self.1)
    }
}

/// Hands requests that are due to free callers, the last one freed first; what finds none waits in order.
struct Desk {
    waiting: Arc<Mutex<Waiting>>,
    callers: Vec<mpsc::Sender<Instant>>,
    tasks: JoinSet<()>,
    tally: SharedTally,
    began: Instant,
}

/// Either is empty.
#[derive(Default)]
struct Waiting {
    /// As many as a schedule has at most.
    dues: VecDeque<Instant>,
    free: Vec<usize>,
}

impl Desk {
    /// What is due before `began` warms and is not counted.
    fn open<A: Asking>(asking: impl Iterator<Item = A>, began: Instant) -> Self {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (tally, mut tasks, mut callers) = (Tally::shared(), JoinSet::new(), Vec::new());
        for (n, asking) in asking.enumerate() {
            // A free caller is handed one request at a time.
            let (sender, receiver) = mpsc::channel(1);
            callers.push(sender);
            tasks.spawn(answer_dues(n, asking, Arc::clone(&waiting), receiver, tally.clone(), began));
            lock(&waiting).free.push(n);
        }
        Self { waiting, callers, tasks, tally, began }
    }

    fn hand_over(&self, due: Instant) {
        let mut waiting = lock(&self.waiting);
        match waiting.free.pop() {
            Some(n) if self.callers[n].try_send(due).is_ok() => {}
            Some(_) | None => waiting.dues.push_back(due),
        }
    }

    /// Waits until all that was due is done.
    async fn close(mut self, late: &Histogram<u64>) -> Outcome {
        self.callers.clear();
        while self.tasks.join_next().await.is_some() {}
        let mut tally = self.tally.lock();
        tally.more.insert("late_us_p50".into(), late.value_at_percentile(50.0) as f64);
        tally.more.insert("late_us_p99".into(), late.value_at_percentile(99.0) as f64);
        tally.outcome(self.began)
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The life of the n-th caller.
async fn answer_dues(
    n: usize,
    mut asking: impl Asking,
    waiting: Arc<Mutex<Waiting>>,
    mut receiver: mpsc::Receiver<Instant>,
    tally: SharedTally,
    began: Instant,
) {
    while let Some(mut due) = receiver.recv().await {
        loop {
            let result = asking.ask().await;
            if due >= began {
                tally.lock().settle(due, result);
            }
            let mut waiting = lock(&waiting);
            let Some(next) = waiting.dues.pop_front() else {
                waiting.free.push(n);
                break;
            };
            due = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once, but for the first time, when it stalls.
    struct StallsOnce(Option<Duration>);

    impl Asking for StallsOnce {
        async fn ask(&mut self) -> Result<u64> {
            let stall = self.0.take().unwrap_or_default();
            tokio::time::sleep_until(Instant::now() + stall).await;
            Ok(1)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_due_while_the_other_side_stalled_counts_its_waiting() {
        let schedule = Schedule::new(1_000.0, Duration::ZERO, Duration::from_secs(1));
        let desk = Desk::open([StallsOnce(Some(Duration::from_millis(200)))].into_iter(), schedule.began());
        let late = schedule.keep(tokio::time::sleep_until, |_, due| desk.hand_over(due)).await;
        let outcome = desk.close(&late).await;
        assert_eq!((outcome.ok, outcome.failed, outcome.bytes), (1_000, 0, 1_000));
        // 200 of 1,000 were due during the stall and waited 200, 199, 198… ms; a loop that waits for answers would see one.
        let p90 = outcome.latency_us["p90"];
        assert!((95_000.0..105_000.0).contains(&p90), "{p90}");
        let max = outcome.latency_us["max"];
        assert!((199_000.0..203_000.0).contains(&max), "{max}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_while_warming_is_asked_for_and_not_counted() {
        let schedule = Schedule::new(100.0, Duration::from_millis(500), Duration::from_millis(500));
        let desk = Desk::open([StallsOnce(None)].into_iter(), schedule.began());
        let late = schedule.keep(tokio::time::sleep_until, |_, due| desk.hand_over(due)).await;
        assert_eq!(desk.close(&late).await.ok, 50);
    }
}
