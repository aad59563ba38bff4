//! What came of a run: rows with their bars and verdicts, costs, and the machine; as JSON, and read again from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// The column that is judged.
pub(crate) const POSTERN: &str = "postern";

/// Everything that a run has to tell.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) commit: String,
    /// None = not installed, and the table is no result.
    pub(crate) nginx: Option<String>,
    /// Set if the numbers mean nothing: a debug build.
    pub(crate) debug_build: bool,
    pub(crate) quick: bool,
    /// How to repeat it.
    pub(crate) command: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) costs: Vec<Cost>,
    pub(crate) troubles: Vec<String>,
}

/// One measure of a scenario: its values in each column, by run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) measure: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    /// By column, then by run.
    pub(crate) values: BTreeMap<String, BTreeMap<usize, f64>>,
    pub(crate) bar: Option<Bar>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What is asked of a row's medians.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bar {
    /// As the table says it.
    pub(crate) text: String,
    pub(crate) claim: Claim,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Claim {
    /// The ratio to another column, run by run.
    RatioAtLeast {
        to: String,
        limit: f64,
    },
    RatioAtMost {
        to: String,
        limit: f64,
    },
    /// What it is above another column, run by run.
    AboveAtMost {
        than: String,
        limit: f64,
    },
    AtLeast {
        limit: f64,
    },
    AtMost {
        limit: f64,
    },
    Between {
        low: f64,
        high: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The row has no bar.
    Reported,
    /// A value or the column to compare with is absent.
    NoResult,
}

/// What one process used during one load of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) scenario: String,
    pub(crate) label: String,
    pub(crate) column: String,
    pub(crate) process: String,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_rss_bytes: u64,
    /// How long the load took, its warming included; the CPU time is of all of it.
    pub(crate) seconds: f64,
    /// Requests per second that went well, the warming's left out; 0 where none is counted.
    pub(crate) rate: f64,
}

/// Median and extremes over the runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: f64::midpoint(low, high), max })
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

impl Bar {
    pub(crate) fn ratio_at_least(to: &str, limit: f64) -> Self {
        Self { text: format!("≥ {limit} × {to}"), claim: Claim::RatioAtLeast { to: to.to_owned(), limit } }
    }

    pub(crate) fn ratio_at_most(to: &str, limit: f64) -> Self {
        Self { text: format!("≤ {limit} × {to}"), claim: Claim::RatioAtMost { to: to.to_owned(), limit } }
    }

    pub(crate) fn above_at_most(than: &str, limit: f64, unit: &str) -> Self {
        Self { text: format!("≤ {than} + {limit} {unit}"), claim: Claim::AboveAtMost { than: than.to_owned(), limit } }
    }

    pub(crate) fn at_least(limit: f64, unit: &str) -> Self {
        Self { text: format!("≥ {limit} {unit}"), claim: Claim::AtLeast { limit } }
    }

    pub(crate) fn at_most(limit: f64, unit: &str) -> Self {
        Self { text: format!("≤ {limit} {unit}"), claim: Claim::AtMost { limit } }
    }

    pub(crate) fn between(low: f64, high: f64, unit: &str) -> Self {
        Self { text: format!("{low} to {high} {unit}"), claim: Claim::Between { low, high } }
    }

    /// The same claim in other words.
    pub(crate) fn said(self, text: &str) -> Self {
        Self { text: text.to_owned(), ..self }
    }
}

impl Row {
    pub(crate) fn new(
        scenario: &str,
        measure: &str,
        unit: &str,
        better: Better,
        values: BTreeMap<String, BTreeMap<usize, f64>>,
        bar: Option<Bar>,
    ) -> Self {
        let [scenario, measure, unit] = [scenario, measure, unit].map(str::to_owned);
        let mut row = Self { scenario, measure, unit, better, values, bar, verdict: Verdict::Reported };
        row.verdict = row.bar.as_ref().map_or(Verdict::Reported, |bar| row.judge(&bar.claim));
        row
    }

    /// The values of a column over the runs.
    pub(crate) fn spread(&self, column: &str) -> Option<Spread> {
        Spread::of(self.values.get(column)?.values().copied())
    }

    /// Postern's value over another column's in the same run.
    pub(crate) fn ratio(&self, to: &str) -> Option<Spread> {
        self.by_run(to, |own, other| own / other)
    }

    fn by_run(&self, other: &str, with: impl Fn(f64, f64) -> f64) -> Option<Spread> {
        let (own, other) = (self.values.get(POSTERN)?, self.values.get(other)?);
        Spread::of(own.iter().filter_map(|(run, value)| Some(with(*value, *other.get(run)?))))
    }

    fn judge(&self, claim: &Claim) -> Verdict {
        let own = || self.spread(POSTERN);
        let (value, low, high) = match claim {
            Claim::RatioAtLeast { to, limit } => (self.ratio(to), *limit, f64::INFINITY),
            Claim::RatioAtMost { to, limit } => (self.ratio(to), f64::NEG_INFINITY, *limit),
            Claim::AboveAtMost { than, limit } => (self.by_run(than, |own, other| own - other), f64::NEG_INFINITY, *limit),
            Claim::AtLeast { limit } => (own(), *limit, f64::INFINITY),
            Claim::AtMost { limit } => (own(), f64::NEG_INFINITY, *limit),
            Claim::Between { low, high } => (own(), *low, *high),
        };
        match value {
            Some(spread) if (low..=high).contains(&spread.median) => Verdict::Met,
            Some(_) => Verdict::Missed,
            None => Verdict::NoResult,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bar: Option<Bar>) -> Row {
        let runs = |values: [f64; 3]| values.into_iter().enumerate().collect::<BTreeMap<_, _>>();
        let values = [(POSTERN, [90.0, 110.0, 400.0]), ("nginx", [100.0, 100.0, 400.0])];
        let values = values.map(|(column, values)| (column.to_owned(), runs(values))).into();
        Row::new("B1", "rate", "req/s", Better::Higher, values, bar)
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        assert_eq!(row(None).ratio("nginx"), Some(Spread { min: 0.9, median: 1.0, max: 1.1 }));
        assert_eq!(row(None).ratio("direct"), None);
    }

    #[test]
    fn the_median_decides_whether_a_bar_is_met() {
        assert_eq!(row(Some(Bar::ratio_at_least("nginx", 1.0))).verdict, Verdict::Met);
        assert_eq!(row(Some(Bar::ratio_at_least("nginx", 1.05))).verdict, Verdict::Missed);
        assert_eq!(row(Some(Bar::at_most(100.0, "ms"))).verdict, Verdict::Missed);
        assert_eq!(row(Some(Bar::above_at_most("nginx", 0.0, "ms"))).verdict, Verdict::Met);
        assert_eq!(row(None).verdict, Verdict::Reported);
    }

    #[test]
    fn a_bar_against_a_column_that_was_not_there_has_no_result() {
        assert_eq!(row(Some(Bar::ratio_at_least("direct", 1.0))).verdict, Verdict::NoResult);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
