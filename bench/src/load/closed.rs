//! Closed loop: callers that ask again as soon as they are answered. It finds the rate, not the latency under a given load.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::connection::{Ask, Caller, Dialer};
use super::tally::{SharedTally, Tally};
use crate::task::{Outcome, Way};

/// How long a caller pauses that failed, so that failing at once does not keep the machine busy.
pub(super) const FAILED_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn closed(way: &Way, path: &str, callers: usize, warm: Duration, length: Duration) -> Result<Outcome> {
    let dialer = Dialer::new(way)?;
    let ask = dialer.get(path, "")?;
    let tally = Tally::shared();
    let began = Instant::now() + warm;
    let end = began + length;
    let one = |_| tokio::spawn(ask_again(Caller::new(dialer.clone()), ask.clone(), tally.clone(), began, end));
    join_all((0..callers).map(one)).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    let outcome = tally.lock().outcome(began);
    Ok(outcome)
}

/// What is asked for between `began` and `end` counts, whenever it is answered.
async fn ask_again(mut caller: Caller, ask: Ask, tally: SharedTally, began: Instant, end: Instant) {
    let mut asked = Instant::now();
    while asked < end {
        let result = caller.ask(&ask).await;
        let failed = result.is_err();
        if asked >= began {
            tally.lock().settle(asked, result);
        }
        if failed {
            sleep(FAILED_PAUSE).await;
        }
        asked = Instant::now();
    }
}
