//! The values of a scenario while it runs: by measure, column and run.

use std::collections::BTreeMap;

use super::report::{Bar, Better, Row};

/// What was written down so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    values: BTreeMap<String, BTreeMap<String, BTreeMap<usize, f64>>>,
}

impl Tally {
    /// Writes down a value; a second one of the same run replaces the first.
    pub(crate) fn note(&mut self, measure: &str, column: &str, run: usize, value: f64) {
        self.values.entry(measure.to_owned()).or_default().entry(column.to_owned()).or_default().insert(run, value);
    }

    pub(crate) fn value(&self, measure: &str, column: &str, run: usize) -> Option<f64> {
        self.values.get(measure)?.get(column)?.get(&run).copied()
    }

    /// The median of a measure for each column.
    pub(crate) fn medians(&self, measure: &str) -> BTreeMap<String, f64> {
        let columns = self.values.get(measure).into_iter().flatten();
        columns.filter_map(|(column, runs)| Some((column.clone(), super::report::median(runs.values().copied())?))).collect()
    }

    /// A row of the table: all values of `measure`, judged by `bar`.
    pub(crate) fn row(&self, scenario: &str, measure: &str, unit: &str, better: Better, bar: Option<Bar>) -> Row {
        let values = self.values.get(measure).cloned().unwrap_or_default();
        Row::new(scenario, measure, unit, better, values, bar)
    }
}
