//! Rate limits: who is over the rate waits its turn, and is sent away when that would take too long.

mod keyed;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

pub use keyed::RateLimits;

/// So many requests per second, with room for bursts. Turns are given in the order of asking.
///
/// Kept as the one instant at which the bucket will be full again (the "theoretical arrival time" of GCRA, ITU-T I.371):
/// no timer refills anything.
#[derive(Debug)]
pub struct RateLimit {
    /// Time that one request stands for; `None` = no limit.
    interval: Option<Duration>,
    /// How far the bucket may be from full before a request has to wait.
    tolerance: Duration,
    full_at: Mutex<Option<Instant>>,
}

/// Over the rate: a turn would have come only later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit is reached, a turn is free in {retry_after:?}")]
pub struct OverRate {
    /// How long to wait before asking again.
    pub retry_after: Duration,
}

impl RateLimit {
    /// `per_second` requests, 0 = no limit, of which `burst` (at least 1) may come at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        let tolerance = interval.unwrap_or_default() * (burst.max(1) - 1);
        Self { interval, tolerance, full_at: Mutex::new(None) }
    }

    /// Waits for a turn, at most `wait_max`; returns at once when there is no limit.
    ///
    /// A caller that stops waiting loses its turn; nobody else moves up.
    ///
    /// # Errors
    /// [`OverRate`], at once and without taking a turn, when the wait would be longer.
    pub async fn acquire(&self, wait_max: Duration) -> Result<(), OverRate> {
        if let Some(turn) = self.take_turn(wait_max)? {
            sleep_until(turn).await;
        }
        Ok(())
    }

    /// Whether it is as good as new: nobody has to wait, nor would after a burst.
    fn is_full(&self, now: Instant) -> bool {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|at| at <= now)
    }

    fn take_turn(&self, wait_max: Duration) -> Result<Option<Instant>, OverRate> {
        let Some(interval) = self.interval else { return Ok(None) };
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = full_at.map_or(now, |at| at.max(now));
        let wait = from.duration_since(now).saturating_sub(self.tolerance);
        if wait > wait_max {
            return Err(OverRate { retry_after: wait - wait_max });
        }
        *full_at = Some(from + interval);
        Ok((!wait.is_zero()).then(|| now + wait))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_next_waits_its_turn() {
        let limit = RateLimit::new(10, 3);
        let start = Instant::now();
        for expected_ms in [0, 0, 0, 100, 200] {
            limit.acquire(SECOND).await.expect("within the wait");
            assert_eq!(start.elapsed().as_millis(), expected_ms);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_sent_away_and_takes_no_turn() {
        let limit = RateLimit::new(1, 1);
        limit.acquire(SECOND).await.expect("the first");
        let half = Duration::from_millis(500);
        for _ in 0..3 {
            assert_eq!(limit.acquire(half).await, Err(OverRate { retry_after: half }));
        }
        tokio::time::advance(half).await;
        limit.acquire(half).await.expect("the hint was right");
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_in_the_order_of_asking() {
        let limit = Arc::new(RateLimit::new(10, 1));
        let mut waiting = JoinSet::new();
        let start = Instant::now();
        for number in 0..5 {
            let limit = limit.clone();
            waiting.spawn(async move {
                limit.acquire(SECOND).await.expect("within the wait");
                (number, start.elapsed().as_millis())
            });
        }
        let mut order = Vec::new();
        while let Some(done) = waiting.join_next().await {
            order.push(done.expect("no panic"));
        }
        assert_eq!(order, [(0, 0), (1, 100), (2, 200), (3, 300), (4, 400)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_time_refills_no_more_than_the_burst() {
        let limit = RateLimit::new(10, 2);
        tokio::time::advance(60 * SECOND).await;
        for _ in 0..2 {
            limit.acquire(Duration::ZERO).await.expect("the burst");
        }
        assert_eq!(limit.acquire(Duration::ZERO).await, Err(OverRate { retry_after: Duration::from_millis(100) }));
    }

    #[tokio::test(start_paused = true)]
    async fn zero_means_no_limit() {
        let limit = RateLimit::new(0, 0);
        for _ in 0..10_000 {
            limit.acquire(Duration::ZERO).await.expect("no limit");
        }
    }
}
