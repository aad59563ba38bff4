//! Counts what went well and what failed, and how long it took, in one histogram.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::task::{Outcome, TIMEOUT_MS};

/// The longest latency told apart, in microseconds: six times what counts as failed.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Three significant digits: to a thousandth of itself.
const DIGITS: u8 = 3;

/// How many failures are told in words: enough to see whether they are all alike.
const ERRORS_MAX: usize = 5;

/// The percentiles of an outcome, by name.
const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0)];

/// What has come so far of a load.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) bytes: u64,
    pub(super) more: BTreeMap<String, f64>,
    errors: Vec<String>,
    latencies: Histogram<u64>,
    last: Option<Instant>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { ok: 0, failed: 0, bytes: 0, more: BTreeMap::new(), errors: Vec::new(), latencies: histogram(), last: None }
    }

    /// One that all tasks of a load share, so that its percentiles are those of all.
    pub(super) fn shared() -> SharedTally {
        SharedTally(Arc::new(Mutex::new(Self::new())))
    }

    /// Something went well after `took`.
    pub(super) fn pass(&mut self, took: Duration) {
        self.ok += 1;
        self.latencies.saturating_record(micros(took));
        self.last = Some(Instant::now());
    }

    /// Something failed; it counts as one that took as long as can be.
    pub(super) fn fail(&mut self, error: impl FnOnce() -> String) {
        self.fail_times(1, error);
    }

    /// Several failed for one reason.
    pub(super) fn fail_times(&mut self, times: u64, error: impl FnOnce() -> String) {
        if times == 0 {
            return;
        }
        self.failed += times;
        self.latencies.saturating_record_n(TIMEOUT_MS * 1_000, times);
        self.last = Some(Instant::now());
        self.tell(error);
    }

    /// Keeps an error's words, if it is among the first.
    pub(super) fn tell(&mut self, error: impl FnOnce() -> String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error());
        }
    }

    /// What came of something that was due at `due`; what comes too late has failed.
    pub(super) fn settle(&mut self, due: Instant, result: anyhow::Result<u64>) {
        match result {
            Ok(bytes) => {
                self.bytes += bytes;
                let took = due.elapsed();
                if took < Duration::from_millis(TIMEOUT_MS) { self.pass(took) } else { self.fail(|| format!("late: {took:?}")) }
            }
            Err(error) => self.fail(|| format!("{error:#}")),
        }
    }

    /// What came of a load that began at `began` and of which the last was counted last.
    pub(super) fn outcome(&self, began: Instant) -> Outcome {
        let seconds = self.last.map_or(0.0, |last| last.saturating_duration_since(began).as_secs_f64());
        self.outcome_of(seconds)
    }

    pub(super) fn outcome_of(&self, seconds: f64) -> Outcome {
        Outcome {
            ok: self.ok,
            failed: self.failed,
            errors: self.errors.clone(),
            seconds,
            bytes: self.bytes,
            latency_us: percentiles(&self.latencies),
            more: self.more.clone(),
        }
    }
}

/// A tally of many tasks. A lock that nobody else holds costs nothing beside a request.
#[derive(Debug, Clone)]
pub(super) struct SharedTally(Arc<Mutex<Tally>>);

impl SharedTally {
    pub(super) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("bounds and digits are constants within what it takes")
}

pub(super) fn micros(took: Duration) -> u64 {
    took.as_micros().try_into().unwrap_or(u64::MAX)
}

fn percentiles(latencies: &Histogram<u64>) -> BTreeMap<String, f64> {
    if latencies.is_empty() {
        return BTreeMap::new();
    }
    let value = |percentile| latencies.value_at_percentile(percentile) as f64;
    PERCENTILES.into_iter().map(|(name, percentile)| (name.to_owned(), value(percentile))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The histogram keeps three digits.
    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= expected / 1_000.0, "{value} is not {expected}");
    }

    #[test]
    fn percentiles_are_those_of_all_that_was_timed() {
        let mut tally = Tally::new();
        for micros in 1..=1_000 {
            tally.pass(Duration::from_micros(micros));
        }
        let latency = tally.outcome_of(1.0).latency_us;
        assert_near(latency["p50"], 500.0);
        assert_near(latency["p90"], 900.0);
        assert_near(latency["p99"], 990.0);
        assert_near(latency["max"], 1_000.0);
    }

    #[test]
    fn a_failure_counts_as_one_that_took_the_time_limit() {
        let mut tally = Tally::new();
        for _ in 0..98 {
            tally.pass(Duration::from_micros(100));
        }
        tally.fail_times(2, || "refused".into());
        let outcome = tally.outcome_of(1.0);
        assert_eq!((outcome.ok, outcome.failed), (98, 2));
        assert_near(outcome.latency_us["p50"], 100.0);
        assert_near(outcome.latency_us["p99"], TIMEOUT_MS as f64 * 1_000.0);
    }

    #[test]
    fn only_the_first_failures_are_told_in_words() {
        let mut tally = Tally::new();
        for n in 0..20 {
            tally.fail(|| n.to_string());
        }
        assert_eq!(tally.outcome_of(1.0).errors, ["0", "1", "2", "3", "4"]);
    }

    #[test]
    fn what_timed_nothing_has_no_percentiles() {
        assert!(Tally::new().outcome_of(1.0).latency_us.is_empty());
    }
}
