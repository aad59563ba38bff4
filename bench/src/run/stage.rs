//! What a scenario plays on: the upstream, the columns in turn, loads that are run and what they cost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::column::{Column, Kind, Setup};
use super::place::{Place, free_addresses};
use super::process::Process;
use super::report::Cost;
use super::tally::Tally;
use super::usage::Usage;
use crate::task::{Load, Outcome, Way};

/// Beyond what a load was told to take: connecting, warming, and what is late counts until its time-out.
const LOAD_GRACE: Duration = Duration::from_secs(60);

/// How long who gets in the way may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(60);

/// How many failures of one load are told; the rest is a number.
const N_ERRORS_TOLD: usize = 3;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// From the command line; else the scenario's own.
    pub(crate) runs: Option<usize>,
    /// From the command line; else B11's own.
    pub(crate) soak_minutes: Option<u64>,
}

impl Plan {
    /// How many runs: what the command line says, or one of the two.
    pub(crate) fn runs(&self, full: usize, quick: usize) -> usize {
        self.runs.unwrap_or_else(|| self.pick(full, quick))
    }

    /// The number for a full run, or that for a quick one.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// One run of the benchmark, from its first scenario to its last.
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) plan: Plan,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) upstream: Process,
    pub(crate) upstream_addr: SocketAddr,
    /// The scenario that plays.
    pub(crate) scenario: &'static str,
    /// What the loads so far have cost.
    pub(crate) costs: Vec<Cost>,
    /// What went wrong without ending the run.
    pub(crate) troubles: Vec<String>,
    /// Requests per second at 32 callers by column, once they were measured.
    pub(crate) capacity: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Listening {
    addr: SocketAddr,
}

impl Stage {
    /// Starts the upstream, on `address` if one is given.
    pub(crate) fn set(place: Place, plan: Plan, kinds: Vec<Kind>, address: Option<SocketAddr>) -> Result<Self> {
        let [free] = free_addresses()?;
        let mut upstream = place.start("upstream", &mut place.upstream(address.unwrap_or(free))?)?;
        let line = upstream.first_line()?;
        let Listening { addr: upstream_addr } = serde_json::from_str(&line).with_context(|| format!("upstream: {line}"))?;
        let (costs, troubles, capacity) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { place, plan, kinds, upstream, upstream_addr, scenario: "", costs, troubles, capacity })
    }

    /// Plays `play` for each column in turn, `runs` times. A column that fails is told, and does not stop the others.
    pub(crate) fn turns(
        &mut self,
        runs: usize,
        setup: Setup,
        mut play: impl FnMut(&mut Turn<'_>) -> Result<()>,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        for run in 0..runs {
            // Who goes first changes, lest the same one always finds the machine cool or warm.
            let mut kinds = self.kinds.clone();
            let n_kinds = kinds.len().max(1);
            kinds.rotate_left(run % n_kinds);
            for kind in &kinds {
                self.place.stop.check()?;
                eprintln!("{} {} run {}/{runs}", self.scenario, kind.name(), run + 1);
                if let Err(error) = self.turn(kind, run, setup, &mut tally, &mut play) {
                    self.place.stop.check()?;
                    self.trouble(format!("{} {} run {}: {error:#}", self.scenario, kind.name(), run + 1));
                }
            }
        }
        Ok(tally)
    }

    fn turn(
        &mut self,
        kind: &Kind,
        run: usize,
        setup: Setup,
        tally: &mut Tally,
        play: &mut impl FnMut(&mut Turn<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(column) = Column::open(&self.place, kind, &setup, self.upstream_addr)? else { return Ok(()) };
        play(&mut Turn { stage: self, column, run, tally })
    }

    /// Tells that something went wrong, here and in the report.
    pub(crate) fn trouble(&mut self, text: String) {
        eprintln!("TROUBLE: {text}");
        self.troubles.push(text);
    }
}

/// A column's turn in a run.
pub(crate) struct Turn<'a> {
    pub(crate) stage: &'a mut Stage,
    pub(crate) column: Column,
    pub(crate) run: usize,
    tally: &'a mut Tally,
}

impl Turn<'_> {
    /// The way through this column.
    pub(crate) fn way(&self) -> Way {
        self.column.way.clone()
    }

    /// Writes down one value of `measure`.
    pub(crate) fn note(&mut self, measure: &str, value: f64) {
        self.tally.note(measure, &self.column.name, self.run, value);
    }

    /// What was written down in this turn.
    pub(crate) fn noted(&self, measure: &str) -> Option<f64> {
        self.tally.value(measure, &self.column.name, self.run)
    }

    /// Runs a load to its end; what it cost each process is kept under `label`.
    pub(crate) fn load(&mut self, label: &str, load: &Load) -> Result<Outcome> {
        let loading = self.begin(label, load)?;
        self.finish(loading)
    }

    /// Starts a load beside others.
    pub(crate) fn begin(&mut self, label: &str, load: &Load) -> Result<Loading> {
        let processes = || std::iter::once(&self.stage.upstream).chain(&self.column.members);
        processes().for_each(Process::reset_peak);
        let before = processes().map(|process| (process.id(), process.usage())).collect();
        let process = self.stage.place.start("load", &mut self.stage.place.part("load", load)?)?;
        Ok(Loading { label: label.to_owned(), process, before, since: Instant::now(), max: longest(load) + LOAD_GRACE })
    }

    /// Waits until a load says that its next part begins.
    pub(crate) fn sign(&mut self, loading: &mut Loading) -> Result<()> {
        let max = loading.max.saturating_sub(loading.since.elapsed());
        loading.process.line(max).map(drop)
    }

    /// What the column's processes of this name use together.
    pub(crate) fn usage_of(&self, name: &str) -> Usage {
        let members = self.column.members.iter().filter(|member| member.name() == name);
        members.map(Process::usage).fold(Usage::default(), Usage::and)
    }

    /// Waits for the end of a load.
    pub(crate) fn finish(&mut self, mut loading: Loading) -> Result<Outcome> {
        let mut own = Usage::default();
        let line = loading.process.last_line(loading.max, |process| own = process.usage());
        let line = line.with_context(|| format!("load `{}`", loading.label));
        // Who lives no more explains more than a load without answers.
        self.column.members.iter_mut().try_for_each(Process::alive)?;
        let line = line?;
        let seconds = loading.since.elapsed().as_secs_f64();
        let outcome: Outcome = serde_json::from_str(&line).with_context(|| format!("load `{}` said {line:?}", loading.label))?;

        let label = loading.label.as_str();
        let rate = if outcome.seconds > 0.0 { outcome.ok as f64 / outcome.seconds } else { 0.0 };
        self.cost(label, "load", own.cpu_seconds, own.peak_bytes, seconds, rate);
        let processes = std::iter::once(&self.stage.upstream).chain(&self.column.members);
        // Members may have come meanwhile; those of one name count together.
        let mut used: Vec<(String, Usage)> = Vec::new();
        for process in processes {
            let (before, after) = (loading.before.get(&process.id()).copied().unwrap_or_default(), process.usage());
            if used.last().is_none_or(|(name, _)| name != process.name()) {
                used.push((process.name().to_owned(), Usage::default()));
            }
            if let Some((_, sum)) = used.last_mut() {
                sum.cpu_seconds += after.cpu_seconds - before.cpu_seconds;
                sum.peak_bytes += after.peak_bytes;
            }
        }
        for (name, used) in used {
            self.cost(label, &name, used.cpu_seconds, used.peak_bytes, seconds, rate);
        }
        if outcome.failed > 0 {
            let told: Vec<_> = outcome.errors.iter().take(N_ERRORS_TOLD).cloned().collect();
            let (scenario, column) = (self.stage.scenario, &self.column.name);
            let text = format!("{scenario} {column}, {label}: {} failed: {}", outcome.failed, told.join("; "));
            self.stage.trouble(text);
        }
        Ok(outcome)
    }

    /// Starts who gets in the way of others (a crowd, watches that are held), and waits until all have begun.
    pub(crate) fn crowd(&mut self, load: &Load) -> Result<Process> {
        let mut process = self.stage.place.start("crowd", &mut self.stage.place.part("load", load)?)?;
        process.line(BEGIN_MAX)?;
        Ok(process)
    }

    fn cost(&mut self, label: &str, process: &str, cpu_seconds: f64, peak_bytes: u64, seconds: f64, rate: f64) {
        self.stage.costs.push(Cost {
            scenario: self.stage.scenario.to_owned(),
            label: label.to_owned(),
            column: self.column.name.clone(),
            process: process.to_owned(),
            cpu_seconds,
            peak_rss_bytes: peak_bytes,
            seconds,
            rate,
        });
    }
}

/// A load that runs.
pub(crate) struct Loading {
    label: String,
    process: Process,
    /// By process.
    before: BTreeMap<u32, Usage>,
    since: Instant,
    max: Duration,
}

/// How long a load was told to take at most; what has no time of its own has the grace.
fn longest(load: &Load) -> Duration {
    Duration::from_millis(match load {
        Load::Closed { warm_ms, ms, .. } | Load::Open { warm_ms, ms, .. } | Load::Echo { warm_ms, ms, .. } => warm_ms + ms,
        Load::Fetch { max_ms, .. } | Load::Upload { max_ms, .. } | Load::Pipes { max_ms, .. } | Load::Reach { max_ms, .. } => {
            *max_ms
        }
        Load::Watches { idle_ms, ms, .. } => idle_ms + ms,
        Load::Churn { ms, .. } => *ms,
        Load::Crowd { .. } | Load::Relist { .. } => 0,
    })
}

/// A percentile of an outcome, in milliseconds.
pub(crate) fn milliseconds(outcome: &Outcome, percentile: &str) -> Result<f64> {
    match outcome.latency_us.get(percentile) {
        Some(us) => Ok(us / 1000.0),
        None => bail!("the load has timed nothing: no {percentile}"),
    }
}

/// A number that only some loads tell.
pub(crate) fn more(outcome: &Outcome, name: &str) -> Result<f64> {
    outcome.more.get(name).copied().with_context(|| format!("the load has not told `{name}`"))
}
