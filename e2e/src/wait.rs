//! Waiting for the outside world: ask again until it is so, or a deadline has passed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Short enough to go unnoticed in a step, long enough to leave two cores to those who work.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives something, at most for `limit`.
///
/// # Errors
/// The first error of `probe`, or `what` once the limit has passed.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        sleep(ASK_AGAIN);
    }
}
