//! `cargo xtask fuzz`: searches for inputs that break what parsers, sessions and the way of a request promise.

use std::path::Path;

use anyhow::{Result, bail};

use crate::machine::Skips;
use crate::run::{run, step, works};
use crate::workspace::{cargo, root, target_dir};

/// Every target and the folder whose `fuzz` has it.
const TARGETS: [(&str, &str); 6] =
    [("codec", "tunnel"), ("session", "tunnel"), ("pair", "tunnel"), ("hygiene", "sim"), ("exchange", "sim"), ("config", "sim")];

/// Seconds of each target unless told: six minutes in all, a small part of the lane that runs it each night.
const SECONDS: u32 = 60;

/// The verb: one target, or all, so many seconds each.
pub(crate) fn run_verb(target: Option<&str>, seconds: Option<u32>) -> Result<()> {
    let skips = Skips::default();
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| target.is_none_or(|target| target == *name)).collect();
    if targets.is_empty() {
        bail!("no such target; there are {}", TARGETS.map(|(name, _)| name).join(", "));
    }
    let result = search(&targets, seconds.unwrap_or(SECONDS), &skips);
    skips.tell();
    result
}

/// A short run of every target.
pub(crate) fn nightly(skips: &Skips) -> Result<()> {
    search(&TARGETS, SECONDS, skips)
}

/// Whether the searcher is installed.
pub(crate) fn is_there() -> bool {
    works("cargo", &["fuzz", "--version"])
}

fn search(targets: &[(&str, &str)], seconds: u32, skips: &Skips) -> Result<()> {
    if !is_there() {
        skips.add("cargo fuzz: cargo install --locked cargo-fuzz");
        return Ok(());
    }
    targets.iter().try_for_each(|(name, home)| step(&format!("fuzz {name}"), || search_one(name, home, seconds)))
}

/// What is new goes to the target folder, so that a run leaves the tree as it was; a finding is kept by hand.
fn search_one(name: &str, home: &str, seconds: u32) -> Result<()> {
    let folder = root().join(home).join("fuzz");
    // What is fuzzed is what ships, to the last dependency.
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let built = target_dir()?.join("fuzz");
    let grown = built.join("corpus").join(name);
    std::fs::create_dir_all(&grown)?;
    let kept = ["corpus", "findings"].map(|kind| folder.join(kind).join(name));
    // Our code has no unsafe block, so no sanitizer has anything to watch there; and without one any compiler will do.
    let mut command = cargo(&["fuzz", "run", "--sanitizer", "none", name]);
    command.arg(&grown).args(kept.iter().filter(|kept| Path::is_dir(kept)));
    command.args(["--", "-max_len=4096", &format!("-max_total_time={seconds}")]);
    run(command.current_dir(folder).env("CARGO_TARGET_DIR", built))
}
