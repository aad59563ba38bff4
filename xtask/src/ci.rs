//! `cargo xtask ci`: what CI runs, in its order, on any machine.

use std::time::Instant;

use anyhow::Result;

use crate::bench;
use crate::charts;
use crate::e2e::EVERYTHING;
use crate::fuzz;
use crate::image;
use crate::machine::{self, Skips};
use crate::mutations;
use crate::run::{run, seconds, step, works};
use crate::sim;
use crate::test::{Scope, build, build_release, suite};
use crate::tidy;
use crate::workspace::{BIN_DIR, bin_dir, cargo};

/// Cases of each property in the nightly lane: about a minute of search each, sixteen times proptest's default.
const NIGHTLY_CASES: &str = "4096";

/// Random walks before merge, the same each time: half a minute.
const FULL_WALKS: &str = "500";

/// Fresh random walks each night: a quarter of an hour on two cores.
const NIGHTLY_WALKS: u64 = 20_000;

/// Names the revision that a change is to be merged into, where it is not GitHub that says so.
const BASE: &str = "CI_BASE";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Each push: minutes.
    Fast,
    /// Before merge: everything that ends the same way twice.
    Full,
    /// Each night: searches longer, and asks the world for news about our dependencies.
    Nightly,
}

/// The verb. Without `tests` it leaves out what `cargo xtask test` runs.
pub(crate) fn run_verb(lane: &str, tests: bool) -> Result<()> {
    let lane = match lane {
        "fast" => Lane::Fast,
        "full" => Lane::Full,
        _ => Lane::Nightly,
    };
    let started = Instant::now();
    machine::insist()?;
    let skips = Skips::default();
    let result = checks(lane, &skips).and_then(|()| if tests { prove(lane, &skips) } else { Ok(()) });
    skips.tell();
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("== ci: {word}, {}", seconds(started.elapsed()));
    result
}

/// The cheap questions first, so that a slip costs seconds.
fn checks(lane: Lane, skips: &Skips) -> Result<()> {
    step("fmt", || run(&mut cargo(&["fmt", "--all", "--check"])))?;
    step("clippy", || run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])))?;
    build()?;
    step("tidy", || tidy::report(Some(&bin_dir()?)))?;
    step("mutations apply", mutations::check)?;
    if lane > Lane::Fast {
        charts::check(false, skips)?;
        step("docs", docs)?;
        deny(lane, skips)?;
    }
    Ok(())
}

fn prove(lane: Lane, skips: &Skips) -> Result<()> {
    match lane {
        Lane::Fast => suite(Scope::WithoutE2e, None, &[], skips),
        Lane::Full => {
            suite(Scope::All, None, &[("WALKS", FULL_WALKS)], skips)?;
            hot_paths(skips)
        }
        Lane::Nightly => {
            let programs = build_release()?;
            if machine::has("kind") {
                image::for_tests(skips)?;
            }
            suite(
                Scope::All,
                None,
                &[("PROPTEST_CASES", NIGHTLY_CASES), ("SIM_TWICE", "1"), (EVERYTHING, "1"), (BIN_DIR, &programs)],
                skips,
            )?;
            step("walks", || sim::walk(NIGHTLY_WALKS, None))?;
            mutations::run_verb(None)?;
            fuzz::nightly(skips)?;
            step("bench", bench::quick)
        }
    }
}

/// What a change costs in instructions. Both sides are built as they ship, so it comes last, and only where CI says what a
/// change is to be merged into.
fn hot_paths(skips: &Skips) -> Result<()> {
    let Some(into) = merged_into(|name| std::env::var(name).ok()) else {
        skips.add(&format!("instruction counts of hot paths: name the revision to compare with in {BASE}"));
        return Ok(());
    };
    match bench::merge_base(&into)? {
        Some(base) => step("hot paths", || bench::compare(&[], Some(&base), skips)),
        None => {
            skips.add(&format!("instruction counts of hot paths: nothing was changed since {into}"));
            Ok(())
        }
    }
}

/// The revision that this one is to be merged into, if anybody said so: GitHub does for each pull request, with the name of a
/// branch of `origin`.
fn merged_into(env: impl Fn(&str) -> Option<String>) -> Option<String> {
    let said = |name| env(name).filter(|value| !value.is_empty());
    said(BASE).or_else(|| Some(format!("origin/{}", said("GITHUB_BASE_REF")?)))
}

fn docs() -> Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    run(command.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Advisories appear on their own schedule, so they stop the nightly lane and no pull request.
fn deny(lane: Lane, skips: &Skips) -> Result<()> {
    if !works("cargo", &["deny", "--version"]) {
        skips.add("cargo deny: cargo install --locked cargo-deny");
        return Ok(());
    }
    let checks: &[&str] = match lane {
        Lane::Fast | Lane::Full => &["bans", "licenses", "sources"],
        Lane::Nightly => &["all"],
    };
    step("deny", || run(cargo(&["deny", "check"]).args(checks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_is_compared_with_is_named_by_hand_or_by_github_or_not_at_all() {
        let with = |set: &'static [(&str, &str)]| {
            merged_into(move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(&[("CI_BASE", "v1"), ("GITHUB_BASE_REF", "main")]).as_deref(), Some("v1"));
        assert_eq!(with(&[("GITHUB_BASE_REF", "main")]).as_deref(), Some("origin/main"));
        // GitHub sets it to nothing where there is no pull request.
        assert_eq!(with(&[("GITHUB_BASE_REF", "")]), None);
    }
}
