//! `cargo xtask sim`: the stories, by name and by seed.

use anyhow::Result;

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
