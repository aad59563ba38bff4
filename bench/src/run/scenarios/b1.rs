//! B1: how many 2 KiB GETs per second, from 1, 32 and 256 callers, each asking again as soon as it is answered.

use anyhow::Result;

use crate::run::column::Setup;
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Plan, Stage, Turn};
use crate::task::Load;

/// What is asked for: an object as small as most of them are.
pub(crate) const PATH: &str = "/api/v1/namespaces/bench/configmaps/small?bytes=2048";

/// The number of callers that the bar is about, and whose rate B2 takes its shares of.
const CALLERS_JUDGED: usize = 32;

/// Small answers that end: nginx may gather them, as it does by default.
pub(crate) const SETUP: Setup = Setup { link: None, buffering: true, http2: false, clusters: 0 };

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let tally = stage.turns(plan.runs(5, 2), SETUP, |turn| {
        for callers in [1, CALLERS_JUDGED, 256] {
            let rate = rate(turn, &plan, callers)?;
            turn.note(&measure(callers), rate);
        }
        Ok(())
    })?;
    stage.capacity = tally.medians(&measure(CALLERS_JUDGED));
    let row = |callers, bar| tally.row("B1", &measure(callers), "req/s", Better::Higher, bar);
    Ok(vec![row(1, None), row(CALLERS_JUDGED, Some(Bar::ratio_at_least("nginx", 1.0))), row(256, None)])
}

/// Measures only what other scenarios take their shares of, if B1 has not played.
pub(crate) fn ensure_capacity(stage: &mut Stage) -> Result<()> {
    if stage.capacity.is_empty() {
        let plan = stage.plan;
        let tally = stage.turns(1, SETUP, |turn| {
            let rate = rate(turn, &plan, CALLERS_JUDGED)?;
            turn.note("capacity", rate);
            Ok(())
        })?;
        stage.capacity = tally.medians("capacity");
    }
    Ok(())
}

fn measure(callers: usize) -> String {
    if callers == 1 { "1 caller".to_owned() } else { format!("{callers} callers") }
}

fn rate(turn: &mut Turn<'_>, plan: &Plan, callers: usize) -> Result<f64> {
    let (warm_ms, ms) = plan.pick((500, 2500), (300, 1000));
    let load = Load::Closed { way: turn.way(), path: PATH.to_owned(), callers, warm_ms, ms };
    let outcome = turn.load(&measure(callers), &load)?;
    Ok(outcome.ok as f64 / outcome.seconds)
}
