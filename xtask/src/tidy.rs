//! `cargo xtask tidy`: the house rules that a machine can check, each with its reason. Also a test.
//!
//! To add a rule: a file in `tidy/` with a function from sources to findings, a line in [`findings`], a bad sample in its
//! tests.

mod charts;
mod dashboards;
mod files;
mod layers;
mod protocol;
mod reference;
mod select;
mod sizes;
mod source;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::workspace::root;

/// One place that breaks one rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    /// Counts from 1.
    line: usize,
    rule: &'static str,
    /// What stands there.
    what: String,
    reason: &'static str,
    /// What to do instead.
    cure: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what, reason, cure } = self;
        write!(f, "{file}:{line}: {rule}: {what}\n    why: {reason}\n    do:  {cure}")
    }
}

/// The verb: reports, after mending what a machine can mend if `fix` says so.
pub(crate) fn run_verb(fix: bool) -> Result<()> {
    if fix {
        files::fix(&root())?;
        sizes::fix(&root())?;
        protocol::fix(&root())?;
        reference::fix(&root())?;
        crate::charts::write_references()?;
    }
    report(None)
}

/// Reports; `built` is the folder of the product's binaries, where somebody has built them.
pub(crate) fn report(built: Option<&Path>) -> Result<()> {
    let findings = findings(&root(), built)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("{n} to mend; cargo xtask tidy --fix does so for spaces, hashes, references and the ratchet"),
    }
}

/// Every finding in the tree under `root`.
fn findings(root: &Path, built: Option<&Path>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for source in source::all(root)? {
        files::check(&source, &mut found);
        words::check(&source, &mut found);
        select::check(&source, &mut found);
    }
    found.extend(sizes::check(root)?);
    found.extend(layers::check()?);
    found.extend(protocol::check(root)?);
    found.extend(reference::check(root, built));
    found.extend(dashboards::check(root));
    found.extend(charts::check(root));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let findings = findings(&root(), None).expect("the tree can be read");
        let report: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        assert!(findings.is_empty(), "\n{report}");
    }
}
