//! The configuration references are what the binaries say about themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Finding;
use crate::run::{run, said};
use crate::workspace::{bin_dir, cargo, given_bins};

/// The document, and the binary whose `reference` prints it.
const REFERENCES: [(&str, &str); 2] = [("server/REFERENCE.md", "postern-server"), ("agent/REFERENCE.md", "postern-agent")];

/// Silent about a document that does not exist. `built` is the folder of the binaries, where somebody has built them.
pub(crate) fn check(root: &Path, built: Option<&Path>) -> Vec<Finding> {
    let documents = REFERENCES.into_iter().filter(|(document, _)| root.join(document).exists());
    let judged = documents.filter_map(|(document, binary)| {
        let said = std::fs::read_to_string(root.join(document)).unwrap_or_default();
        match reference(binary, built) {
            Ok(now) => judge(document, &said, &now),
            Err(error) => Some(finding(document, 1, format!("cannot be compared: {error:#}"))),
        }
    });
    judged.collect()
}

fn judge(document: &str, said: &str, now: &str) -> Option<Finding> {
    let n_same = said.lines().zip(now.lines()).take_while(|(said, now)| said == now).count();
    (said != now).then(|| finding(document, n_same + 1, "differs from what the binary prints".into()))
}

fn finding(document: &str, line: usize, what: String) -> Finding {
    Finding {
        file: document.into(),
        line,
        rule: "reference",
        what,
        reason: "a reference that lies is worse than none",
        cure: "cargo xtask tidy --fix".into(),
    }
}

/// Writes the documents of the binaries that can print them.
pub(crate) fn fix(root: &Path) -> Result<()> {
    for (document, binary) in REFERENCES {
        match reference(binary, None) {
            Ok(text) => std::fs::write(root.join(document), text)?,
            Err(error) if root.join(document).exists() => return Err(error),
            Err(error) => eprintln!("no {document} written: {error:#}"),
        }
    }
    Ok(())
}

fn reference(binary: &str, built: Option<&Path>) -> Result<String> {
    let bins = built.map_or_else(bins, |built| Ok(built.to_path_buf()))?;
    said(Command::new(bins.join(binary)).arg("reference"))
}

/// The folder of the binaries, built here unless the environment says that they are.
fn bins() -> Result<PathBuf> {
    if given_bins().is_none() {
        run(&mut cargo(&["build", "--quiet", "--package", "server", "--package", "agent", "--bins"]))?;
    }
    bin_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_reference_is_found_at_the_line_that_differs() {
        assert_eq!(judge("server/REFERENCE.md", "a\nb\n", "a\nb\n"), None);
        assert_eq!(judge("server/REFERENCE.md", "a\nb\n", "a\nc\n").expect("stale").line, 2);
    }
}
