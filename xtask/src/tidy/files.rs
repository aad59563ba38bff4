//! Rules about a file as such: its first line, its name, its size, its spaces, the seeds it lists.

use std::path::Path;

use anyhow::Result;

use super::Finding;
use super::source::{Source, all};

/// Larger files are data that belongs elsewhere; the largest of our own is a tenth of it. Cargo writes its lock itself.
const FILE_BYTES_MAX: u64 = 200 * 1024;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = ["util", "utils", "helper", "helpers", "common", "types", "manager", "misc", "mod"];

pub(crate) fn check(source: &Source, found: &mut Vec<Finding>) {
    header(source, found);
    name(source, found);
    size(source, found);
    spaces(source, found);
    seeds(source, found);
}

fn header(source: &Source, found: &mut Vec<Finding>) {
    let first = source.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if source.is_rust() && first.is_none_or(|words| words.trim().is_empty()) {
        found.push(Finding {
            file: source.path.clone(),
            line: 1,
            rule: "header",
            what: "the file does not start with `//! ` and a sentence".into(),
            reason: "a reader who opens a file asks first what lives here",
            cure: "say it in one sentence on the first line".into(),
        });
    }
}

fn name(source: &Source, found: &mut Vec<Finding>) {
    let parts = source.path.trim_end_matches(".rs").split('/');
    if let Some(empty) = parts.into_iter().find(|part| EMPTY_NAMES.contains(part)).filter(|_| source.is_rust()) {
        found.push(Finding {
            file: source.path.clone(),
            line: 1,
            rule: "name",
            what: format!("{empty:?} is in the path"),
            reason: "such a module has no subject, so everything fits in it; and `mod.rs` hides its name in every tab",
            cure: "name the noun that a user could say, or use foo.rs beside foo/".into(),
        });
    }
}

fn size(source: &Source, found: &mut Vec<Finding>) {
    if source.size > FILE_BYTES_MAX && !source.path.ends_with("Cargo.lock") {
        found.push(Finding {
            file: source.path.clone(),
            line: 1,
            rule: "file size",
            what: format!("{} KiB, over {} KiB", source.size / 1024, FILE_BYTES_MAX / 1024),
            reason: "a clone carries every version of it for ever",
            cure: "make it when it is needed, or cut it down".into(),
        });
    }
}

/// Captures, snapshots, licences and inputs of fuzzing are other people's text.
fn is_ours(source: &Source) -> bool {
    !source.path.contains("testdata/")
        && !source.path.contains("/fuzz/corpus/")
        && !source.path.contains("/fuzz/findings/")
        && !source.path.ends_with(".snap")
        && source.path != "LICENSE"
        && !source.path.ends_with("Cargo.lock")
}

fn spaces(source: &Source, found: &mut Vec<Finding>) {
    if !is_ours(source) || source.text.is_empty() {
        return;
    }
    let ends = source.text.lines().zip(1..).filter(|(line, _)| line.ends_with([' ', '\t', '\r'])).map(|(_, line)| line);
    let last = (!source.text.ends_with('\n')).then(|| source.text.lines().count());
    for line in ends.chain(last) {
        found.push(Finding {
            file: source.path.clone(),
            line,
            rule: "spaces",
            what: "spaces at the end of a line, or no newline at the end of the file".into(),
            reason: "they make changes where nothing changed",
            cure: "cargo xtask tidy --fix".into(),
        });
    }
}

fn seeds(source: &Source, found: &mut Vec<Finding>) {
    if source.path != "ci/seeds.txt" {
        return;
    }
    for (text, line) in source.text.lines().zip(1..).filter(|(text, _)| !text.starts_with('#') && !text.trim().is_empty()) {
        let mut words = text.split_whitespace();
        let whole = words.next().is_some_and(|seed| seed.parse::<u64>().is_ok()) && words.count() >= 2;
        if !whole {
            found.push(Finding {
                file: source.path.clone(),
                line,
                rule: "seeds",
                what: "not a seed, a test and what it found".into(),
                reason: "a seed that nobody can explain is never removed and never trusted",
                cure: "write: 42 walks::name what it found".into(),
            });
        }
    }
}

/// Cuts spaces at line ends and ends each file with one newline.
pub(crate) fn fix(root: &Path) -> Result<()> {
    for source in all(root)?.into_iter().filter(is_ours) {
        let clean: String = source.text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        if clean != source.text {
            std::fs::write(root.join(&source.path), clean)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let mut found = Vec::new();
        check(&Source::new(path, text.to_owned(), text.len() as u64), &mut found);
        found.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_good_file_is_left_in_peace() {
        assert_eq!(rules("host/src/tasks.rs", "//! Tasks.\n"), [""; 0]);
    }

    #[test]
    fn a_rust_file_without_a_header_is_found() {
        assert_eq!(rules("host/src/tasks.rs", "use std::io;\n"), ["header"]);
        assert_eq!(rules("host/src/tasks.rs", ""), ["header"]);
    }

    #[test]
    fn a_module_without_a_subject_is_found() {
        for path in ["host/src/util.rs", "host/src/net/mod.rs", "sim/tests/common/a.rs"] {
            assert_eq!(rules(path, "//! Things.\n"), ["name"], "{path}");
        }
    }

    #[test]
    fn a_large_file_is_found() {
        assert_eq!(rules("charts/big.txt", &"x\n".repeat(110 * 1024)), ["file size"]);
        assert_eq!(rules("Cargo.lock", &"x\n".repeat(110 * 1024)), [""; 0]);
    }

    #[test]
    fn spaces_at_line_ends_are_found_but_not_in_captures() {
        assert_eq!(rules("README.md", "a \nb"), ["spaces", "spaces"]);
        assert_eq!(rules("tunnel/testdata/a.txt", "a \nb"), [""; 0]);
    }

    #[test]
    fn a_seed_without_a_story_is_found() {
        assert_eq!(rules("ci/seeds.txt", "# seeds\n42 walks::a lost-byte\n43\nx walks::b wedge\n"), ["seeds", "seeds"]);
    }
}
