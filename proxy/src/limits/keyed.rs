//! Rate limits by name: everybody has a rate of their own and takes no turn from anybody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{OverRate, RateLimit};

/// Names whose rate is known at once, some 100 bytes each. Names come from configuration, of which nobody has so much; if
/// somebody does, those who come when so many others are busy share one rate, and who was quiet for a second is forgotten.
const NAMES_MAX: usize = 32 * 1024;

/// The same rate for each of many names; who was quiet long enough is not remembered.
#[derive(Debug)]
pub struct RateLimits {
    per_second: u32,
    by_name: Mutex<BTreeMap<Arc<str>, Arc<RateLimit>>>,
    /// Of those for whom there is no room.
    rest: Arc<RateLimit>,
}

impl RateLimits {
    /// `per_second` requests of each name, 0 = no limit, a second's worth of which may come at once.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, by_name: Mutex::default(), rest: Arc::new(RateLimit::new(per_second, per_second)) }
    }

    /// Waits for a turn of `name`, at most `wait_max`; see [`RateLimit::acquire`].
    ///
    /// # Errors
    /// [`OverRate`], at once and without taking a turn, when the wait would be longer.
    pub async fn acquire(&self, name: &str, wait_max: Duration) -> Result<(), OverRate> {
        if self.per_second == 0 {
            return Ok(());
        }
        self.of(name).acquire(wait_max).await
    }

    fn of(&self, name: &str) -> Arc<RateLimit> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name.get(name) {
            return known.clone();
        }
        if by_name.len() >= NAMES_MAX {
            let now = Instant::now();
            by_name.retain(|_, limit| !limit.is_full(now));
            if by_name.len() >= NAMES_MAX {
                return self.rest.clone();
            }
        }
        let limit = Arc::new(RateLimit::new(self.per_second, self.per_second));
        by_name.insert(name.into(), limit.clone());
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_is_over_its_rate_takes_no_turn_from_others() {
        let limits = RateLimits::new(2);
        for _ in 0..2 {
            limits.acquire("loud", Duration::ZERO).await.expect("within its rate");
        }
        limits.acquire("loud", Duration::ZERO).await.expect_err("over its rate");
        for _ in 0..2 {
            limits.acquire("quiet", Duration::ZERO).await.expect("a rate of its own");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_without_number_are_held_in_a_bounded_map_and_forgotten_when_quiet() {
        let limits = RateLimits::new(1);
        for name in 0..NAMES_MAX {
            limits.acquire(&name.to_string(), Duration::ZERO).await.expect("the first of its name");
        }
        limits.acquire("one more", Duration::ZERO).await.expect("the first of the rest");
        limits.acquire("yet one more", Duration::ZERO).await.expect_err("shares the rate of the rest");
        assert_eq!(limits.by_name.lock().expect("unpoisoned").len(), NAMES_MAX);
        tokio::time::advance(SECOND).await;
        limits.acquire("another", Duration::ZERO).await.expect("there is room again");
        assert_eq!(limits.by_name.lock().expect("unpoisoned").len(), 1);
    }
}
