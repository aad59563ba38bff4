//! Full jitter under a growing cap, so that a fleet that lost its hub does not come back in one wave.

use std::time::Duration;

/// Draws waiting times uniformly from zero to a ceiling that grows by half at each attempt, up to a maximum.
///
/// Full jitter spreads a crowd best for the least total work ("Exponential Backoff And Jitter", AWS Architecture Blog).
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Ceilings from `first` to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max, ceiling: first.min(max) }
    }

    /// The next wait; `chance` is 64 random bits.
    pub fn next(&mut self, chance: u64) -> Duration {
        self.next_up_to(self.max, chance)
    }

    /// The next wait under a lower maximum than usual.
    pub fn next_up_to(&mut self, max: Duration, chance: u64) -> Duration {
        let ceiling = self.ceiling.min(max);
        self.ceiling = (self.ceiling * 3 / 2).min(self.max);
        let share = (chance >> 11) as f64 / (1u64 << 53) as f64;
        ceiling.mul_f64(share)
    }

    /// Begins again at the first ceiling, after a time of calm.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_maximum_and_reset_after_calm() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        let longest = u64::MAX;
        assert!(backoff.next(longest) <= Duration::from_millis(500));
        let tenth = (0..20).map(|_| backoff.next(longest)).last().expect("twenty waits");
        assert!(tenth > Duration::from_secs(59) && tenth <= Duration::from_secs(60), "{tenth:?}");
        backoff.reset();
        assert!(backoff.next(longest) <= Duration::from_millis(500));
    }

    #[test]
    fn no_chance_is_no_wait_and_half_a_chance_is_half_the_ceiling() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(2));
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63), Duration::from_secs(1));
    }
}
