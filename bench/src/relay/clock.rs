//! When bytes leave and when they arrive: arithmetic on moments that it is given.

use std::time::Duration;

use tokio::time::Instant;

/// Shorter queues would run empty between two ticks of a timer of one millisecond on a busy machine, and the link with them.
const QUEUE_MIN: Duration = Duration::from_millis(5);

/// One direction of a link: a queue, a wire that carries one byte after the other, and a way.
#[derive(Debug)]
pub(super) struct Clock {
    bits_per_second: Option<u64>,
    latency: Duration,
    /// How long the wire takes for a full queue.
    queue: Duration,
    /// When the wire has carried all that was offered.
    free_at: Instant,
}

impl Clock {
    pub(super) fn new(now: Instant, latency: Duration, bits_per_second: Option<u64>, queue_bytes: usize) -> Self {
        let queue = time_of(queue_bytes, bits_per_second).max(QUEUE_MIN);
        Self { bits_per_second, latency, queue, free_at: now }
    }

    /// The moment from which `n_bytes` fit into the queue; those of more than a queue are taken when it is empty.
    pub(super) fn room_at(&self, n_bytes: usize) -> Instant {
        let may_wait = self.queue.saturating_sub(time_of(n_bytes, self.bits_per_second));
        self.free_at.checked_sub(may_wait).unwrap_or(self.free_at)
    }

    /// Takes bytes, and says when the last of them arrives.
    pub(super) fn offer(&mut self, now: Instant, n_bytes: usize) -> Instant {
        self.free_at = self.free_at.max(now) + time_of(n_bytes, self.bits_per_second);
        self.free_at + self.latency
    }
}

/// How long a wire takes for so many bytes.
fn time_of(n_bytes: usize, bits_per_second: Option<u64>) -> Duration {
    let Some(rate) = bits_per_second else { return Duration::ZERO };
    let nanos = n_bytes as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte takes a microsecond.
    const RATE: Option<u64> = Some(8_000_000);

    const LATENCY: Duration = Duration::from_millis(20);

    #[test]
    fn a_byte_arrives_once_the_wire_was_free_for_it_and_the_way_is_over() {
        let now = Instant::now();
        let mut clock = Clock::new(now, LATENCY, RATE, 10_000);
        assert_eq!(clock.offer(now, 1000), now + Duration::from_millis(21));
        assert_eq!(clock.offer(now, 1000), now + Duration::from_millis(22), "behind the first");
        let later = now + Duration::from_millis(500);
        assert_eq!(clock.offer(later, 1000), later + Duration::from_millis(21), "an idle wire saves nothing up");
    }

    #[test]
    fn a_full_queue_has_room_when_as_much_has_left() {
        let now = Instant::now();
        let mut clock = Clock::new(now, LATENCY, RATE, 10_000);
        for _ in 0..10 {
            assert!(clock.room_at(1000) <= now);
            clock.offer(now, 1000);
        }
        assert_eq!(clock.room_at(1000), now + Duration::from_millis(1));
        assert_eq!(clock.room_at(5000), now + Duration::from_millis(5));
        assert_eq!(clock.room_at(50_000), now + Duration::from_millis(10), "more than a queue waits for an empty one");
    }

    #[test]
    fn a_link_without_a_rate_only_delays() {
        let now = Instant::now();
        let mut clock = Clock::new(now, LATENCY, None, 0);
        for _ in 0..3 {
            assert!(clock.room_at(1 << 20) <= now);
            assert_eq!(clock.offer(now, 1 << 20), now + LATENCY);
        }
    }
}
