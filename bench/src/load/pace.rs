//! Due times of an open loop, and a timer exact to microseconds: tokio's counts milliseconds.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::tally::{histogram, micros};

/// Fixed times, one interval apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    began: Instant,
    interval: Duration,
    count: u64,
}

impl Schedule {
    /// `rate` times per second from `began` on, for `length`. The interval is rounded to nanoseconds.
    pub(super) fn new(began: Instant, rate: f64, length: Duration) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate);
        Self { began, interval, count: (length.as_secs_f64() * rate).round() as u64 }
    }

    fn due(&self, n: u64) -> Instant {
        let nanos = self.interval.as_nanos() * u128::from(n);
        self.began + Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
    }

    /// Says each due time to `hand_over` when it has come, none early. `until` waits for a time, or a little longer.
    ///
    /// Returns how late the times were handed over, in microseconds.
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
            late.saturating_record(micros(now - due));
            hand_over(n, due);
        }
        late
    }

    /// As [`Self::keep`], by the exact timer.
    pub(super) async fn keep_exactly(&self, hand_over: impl FnMut(u64, Instant)) -> Result<Histogram<u64>> {
        let ticks = Ticks::new(self.began.saturating_duration_since(Instant::now()), self.interval)?;
        Ok(self.keep(async |_| ticks.next().await, hand_over).await)
    }
}

/// A timer of the kernel that fires again and again and is waited for together with the sockets, by the same thread.
struct Ticks(AsyncFd<OwnedFd>);

impl Ticks {
    fn new(first: Duration, interval: Duration) -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("failed to create a timer")?;
        // A first time of zero would mean never.
        let first = first.max(Duration::from_nanos(1));
        let times = Itimerspec { it_value: timespec(first), it_interval: timespec(interval) };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times).context("failed to set a timer")?;
        #[expect(deprecated, reason = "its successor is unsafe for types that may swap their descriptor; an OwnedFd cannot")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    /// Waits until the timer fires. If it cannot be read it counts as fired: the schedule looks at the clock anyway.
    async fn next(&self) {
        if let Ok(mut ready) = self.0.readable().await {
            let _ = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: i64::from(duration.subsec_nanos()) }
}
