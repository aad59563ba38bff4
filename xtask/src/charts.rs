//! `cargo xtask charts`: the charts are linted, rendered by both major versions of Helm, compared with what they are known to
//! render, and checked against the schemas of Kubernetes. Offline.
//!
//! Whatever needs no Helm is a rule of `tidy` too.

mod engines;
mod field;
mod golden;
mod helm;
mod objects;
mod programs;
mod reference;
mod refused;
mod schemas;
mod values;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, Command};
use serde_json::Value;

use crate::machine::{self, Skips};
use crate::run::{step, works};
use crate::workspace::{root, target_dir};

pub(crate) use helm::is_there;

/// The charts, by their folders.
const CHARTS: [&str; 2] = ["server", "agent"];

/// What is wrong with the charts, each in words that say where.
type Problems = Vec<String>;

pub(crate) fn command() -> Command {
    let flag = |name, help| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    Command::new("charts")
        .about("Lints and renders the charts, and compares them with what they are known to render")
        .arg(flag("check", "Compare, and write nothing; what happens anyway").conflicts_with("bless"))
        .arg(flag("bless", "Take what they render, and the references of their values, for right; look at the difference then"))
}

/// The verb.
pub(crate) fn run_verb(bless: bool) -> Result<()> {
    machine::insist()?;
    let skips = Skips::default();
    let result = check(bless, &skips);
    skips.tell();
    result
}

/// Every check, after writing what is compared if `bless` says so. One that fails keeps no other from its say.
pub(crate) fn check(bless: bool, skips: &Skips) -> Result<()> {
    if bless {
        reference::write()?;
    }
    let mut failed = Vec::new();
    let mut part = |name: &'static str, work: &dyn Fn() -> Result<Problems>| {
        if let Err(error) = step(&format!("charts: {name}"), || none(work()?)) {
            failed.push(format!("{error:#}"));
        }
    };
    part("values", &|| without_helm(&root()));
    if is_there() {
        part("lint", &golden::lint);
        part("golden", &|| golden::compare(bless));
        part("objects", &objects::check);
        part("refused", &refused::check);
        part("field", &field::check);
    } else {
        skips.add(&format!("charts: {}", machine::how("helm")));
    }
    if programs::are_there() {
        part("programs", &programs::check);
    } else {
        skips.add("charts by the programs: cargo build");
    }
    if engines::is_there() {
        part("engines", &|| engines::check(bless));
    } else {
        skips.add(&format!("charts by Helm 4: {}", machine::how("helm-python-sdk")));
    }
    if has_schemas() {
        part("schemas", &schemas::check);
    } else {
        skips.add(&format!("charts against the schemas of Kubernetes: {}", machine::how("kubernetes-validate")));
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// What is wrong as far as it can be seen without Helm.
pub(crate) fn without_helm(root: &std::path::Path) -> Result<Problems> {
    let mut problems = values::check(root)?;
    problems.extend(reference::check(root)?);
    Ok(problems)
}

/// Writes the references of the charts' values.
pub(crate) fn write_references() -> Result<()> {
    reference::write()
}

/// Whether the second engine is there.
pub(crate) fn has_sdk() -> bool {
    engines::is_there()
}

/// Whether the schemas of Kubernetes are there.
pub(crate) fn has_schemas() -> bool {
    works("kubernetes-validate", &["--version"])
}

fn none(problems: Problems) -> Result<()> {
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        n => bail!("{n} to mend"),
    }
}

/// The folder of a chart.
fn folder(chart: &str) -> PathBuf {
    root().join("charts").join(chart)
}

/// A file of the charts as a value.
fn yaml(path: &std::path::Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// A folder for what is made on the way.
fn scratch() -> Result<PathBuf> {
    let folder = target_dir()?.join("charts");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
