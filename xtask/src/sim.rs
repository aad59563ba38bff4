//! `cargo xtask sim`: the stories, by name and by seed, and random walks.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::run::run;
use crate::test::has_nextest;
use crate::workspace::cargo;

/// The verb: stories whose name contains `name`, from `seed` if one is given.
pub(crate) fn run_verb(name: Option<&str>, seed: Option<u64>, trace: bool) -> Result<()> {
    let nextest = has_nextest();
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let mut command = cargo(runner);
    command.args(["--package", "sim", "--test", "stories"]).args(name);
    if let Some(seed) = seed {
        command.env("SIM_SEED", seed.to_string());
    }
    if trace {
        command.env("SIM_TRACE", "1");
        // Both runners keep the output of a test that passes to themselves unless told.
        if nextest {
            command.arg("--no-capture")
        } else {
            command.args(["--", "--nocapture", "--test-threads=1"])
        };
    }
    run(&mut command)
}

/// Goes `n` random walks from `seed` on, or from `SIM_SEED`, or from a fresh one, which it says.
pub(crate) fn walk(n: u64, seed: Option<u64>) -> Result<()> {
    let seed = match (seed, std::env::var("SIM_SEED")) {
        (Some(seed), _) => seed,
        (None, Ok(text)) => text.parse().with_context(|| format!("SIM_SEED={text} is no number"))?,
        // Far from those of the other lanes, and short enough to type.
        (None, Err(_)) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() * 100_000,
    };
    eprintln!("{n} walks from seed {seed}");
    // Not by nextest, where each part would count for itself and run after the other as soon as one wants to see them.
    let mut command = cargo(&["test", "--package", "sim", "--test", "walks", "--", "random_walks", "--nocapture"]);
    run(command.env("WALKS", n.to_string()).env("WALKS_SEED", seed.to_string()))
}
