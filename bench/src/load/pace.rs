//! Due times of an open loop, and a timer exact to microseconds: tokio's counts milliseconds.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::tally::{histogram, micros};

/// Fixed times, one interval apart: first some that warm, then those that count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    /// What is due from here on counts.
    began: Instant,
    interval: Duration,
    count: u64,
}

impl Schedule {
    /// `rate` times per second from now on, for `warm` and then `length`. The interval is rounded to nanoseconds.
    pub(super) fn new(rate: f64, warm: Duration, length: Duration) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let count = |length: Duration| (length.as_secs_f64() * rate).round() as u64;
        let start = Instant::now();
        let schedule = Self { start, began: start, interval, count: count(warm) + count(length) };
        Self { began: schedule.due(count(warm)), ..schedule }
    }

    /// When warming ends.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    fn due(&self, n: u64) -> Instant {
        let nanos = self.interval.as_nanos() * u128::from(n);
        self.start + Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
    }

    /// Says each due time to `hand_over` when it has come, none early. `until` waits for a time, or a little longer.
    ///
    /// Returns how late those that count were handed over, in microseconds.
    pub(super) async fn keep(
        &self,
        mut until: impl AsyncFnMut(Instant),
        mut hand_over: impl FnMut(u64, Instant),
    ) -> Histogram<u64> {
        let mut late = histogram();
        for n in 0..self.count {
            let due = self.due(n);
            let mut now = Instant::now();
            while now < due {
                until(due).await;
                now = Instant::now();
            }
            if due >= self.began {
                late.saturating_record(micros(now - due));
            }
            hand_over(n, due);
        }
        late
    }

    /// As [`Self::keep`], by the exact timer.
    pub(super) async fn keep_exactly(&self, hand_over: impl FnMut(u64, Instant)) -> Result<Histogram<u64>> {
        let timer = Timer::new()?;
        Ok(self.keep(async |due| timer.until(due).await, hand_over).await)
    }
}

/// A timer of the kernel that is waited for together with the sockets, by the same thread.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("failed to create a timer")?;
        #[expect(deprecated, reason = "its successor is unsafe for types that may swap their descriptor; an OwnedFd cannot")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    /// Waits until `due`, or returns early if the kernel would not have it: the schedule looks at the clock anyway.
    async fn until(&self, due: Instant) {
        // A time of zero would mean never.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Itimerspec { it_value: timespec(left), it_interval: timespec(Duration::ZERO) };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            return tokio::task::yield_now().await;
        }
        if let Ok(mut ready) = self.0.readable().await {
            // It does not fire again before it is set again.
            let _ = rustix::io::read(ready.get_inner(), &mut [0; 8]);
            ready.clear_ready();
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: i64::from(duration.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_times_count_as_the_rate_says_and_none_comes_early() {
        let schedule = Schedule::new(3_000.0, Duration::from_millis(10), Duration::from_millis(20));
        let (mut counted, mut early) = (0, 0);
        let late = schedule.keep_exactly(|_, due| {
            counted += u32::from(due >= schedule.began());
            early += u32::from(Instant::now() < due);
        });
        assert_eq!(late.await.expect("a timer").len(), 60);
        assert_eq!((counted, early), (60, 0));
    }
}
