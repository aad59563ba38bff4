//! `cargo xtask test`: every test of the workspace, with what the machine has.

use std::process::Command;

use anyhow::Result;

use crate::machine::{self, Skips};
use crate::run::{run, run_seen, step, works};
use crate::workspace::{BIN_DIR, bin_dir, cargo, target_dir};

/// Which packages' tests run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All.
    All,
    /// All but the end-to-end tests.
    WithoutE2e,
    /// The end-to-end tests alone.
    E2e,
}

/// The verb: all tests, or those whose name contains `filter`.
pub(crate) fn run_verb(filter: Option<&str>) -> Result<()> {
    machine::insist()?;
    let skips = Skips::default();
    let result = build().and_then(|()| suite(Scope::All, filter, &[], &skips));
    skips.tell();
    result
}

/// Builds binaries and tests.
///
/// Always the whole workspace at once: cargo unites the features of the packages that it is asked for, so that asking for
/// one package here and all there would compile most dependencies twice.
pub(crate) fn build() -> Result<()> {
    step("build", || run(&mut cargo(&["build", "--workspace", "--lib", "--bins", "--tests"])))
}

/// Builds the product's programs as they ship; gives their folder.
pub(crate) fn build_release() -> Result<String> {
    step("release build", || run(&mut cargo(&["build", "--release", "--bins", "-p", "server", "-p", "agent", "-p", "sim"])))?;
    Ok(target_dir()?.join("release").to_string_lossy().into_owned())
}

/// Runs the tests of `scope` whose name contains `filter`, with `env` set; [`build`] comes first.
pub(crate) fn suite(scope: Scope, filter: Option<&str>, env: &[(&str, &str)], skips: &Skips) -> Result<()> {
    let bins = bin_dir()?;
    // First, so that the run ends with the verdict on the tests that matter.
    if scope != Scope::E2e {
        step("doctests", || {
            let mut command = cargo(&["test", "--quiet", "--workspace", "--doc"]);
            command.args(filter);
            run(&mut command)
        })?;
    }
    let tests = |mut command: Command| {
        command.env(BIN_DIR, &bins).envs(env.iter().copied());
        run_seen(&mut command, &|line| skips.see(line))
    };
    if has_nextest() {
        step("tests", || tests(nextest(scope, filter)))?;
    } else {
        for (name, part, args) in FALLBACKS.into_iter().filter(|(_, part, _)| scope == Scope::All || scope == *part) {
            step(name, || {
                let mut command = cargo(args);
                command.args(filter);
                if part == Scope::E2e {
                    // Each measures real time and wants the machine for itself; and what passes says what it skipped.
                    command.args(["--", "--test-threads=1", "--show-output"]);
                }
                tests(command)
            })?;
        }
    }
    Ok(())
}

/// Without nextest: the same tests in two runs.
const FALLBACKS: [(&str, Scope, &[&str]); 2] = [
    ("tests", Scope::WithoutE2e, &["test", "--workspace", "--exclude", "e2e", "--lib", "--bins", "--tests"]),
    ("end-to-end tests", Scope::E2e, &["test", "--package", "e2e", "--lib", "--tests"]),
];

fn nextest(scope: Scope, filter: Option<&str>) -> Command {
    let mut command = cargo(&["nextest", "run", "--workspace"]);
    match scope {
        Scope::All => {}
        Scope::WithoutE2e => drop(command.args(["-E", "not package(e2e)"])),
        Scope::E2e => drop(command.args(["-E", "package(e2e)"])),
    }
    command.args(filter);
    // A filter may name a doctest, or nothing in this scope.
    command.arg(if filter.is_some() { "--no-tests=pass" } else { "--no-tests=fail" });
    command
}

/// Whether nextest is installed.
pub(crate) fn has_nextest() -> bool {
    works("cargo", &["nextest", "--version"])
}
