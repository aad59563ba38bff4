//! Files and functions stay readable: limits, and a ratchet list of those over them, which may only shrink.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;
use super::source::{Source, all};

/// A file longer than this has two subjects (the 90th percentile of code bases we like is near 350).
const FILE_LINES_MAX: usize = 600;

/// A function longer than this does not fit on a screen.
const FN_LINES_MAX: usize = 70;

/// Where what is over a limit is listed: `path lines` or `path::function lines`.
const RATCHET: &str = "xtask/src/tidy/ratchet.txt";

/// Something measured: its key in the ratchet, where it starts, its lines, its limit.
#[derive(Debug, PartialEq, Eq)]
struct Sized {
    key: String,
    file: String,
    line: usize,
    n_lines: usize,
    max: usize,
}

pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let ratchet = read(&std::fs::read_to_string(root.join(RATCHET))?)?;
    Ok(judge(&over(root)?, &ratchet))
}

/// Takes over lower numbers and drops what is within its limit; never adds or raises.
pub(crate) fn fix(root: &Path) -> Result<()> {
    let text = std::fs::read_to_string(root.join(RATCHET))?;
    let (ratchet, over) = (read(&text)?, over(root)?);
    let mut fixed: String = text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    for (key, allowed) in ratchet {
        if let Some(sized) = over.iter().find(|sized| sized.key == key) {
            fixed.push_str(&format!("{key} {}\n", sized.n_lines.min(allowed)));
        }
    }
    if fixed != text {
        std::fs::write(root.join(RATCHET), fixed)?;
    }
    Ok(())
}

fn read(text: &str) -> Result<BTreeMap<String, usize>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (key, n) = line.split_once(' ').with_context(|| format!("{RATCHET}: {line:?} is not `path lines`"))?;
            Ok((key.to_owned(), n.parse().with_context(|| format!("{RATCHET}: {line:?}"))?))
        })
        .collect()
}

fn over(root: &Path) -> Result<Vec<Sized>> {
    let sources = all(root)?;
    Ok(sources.iter().filter(|source| source.is_rust()).flat_map(measure).filter(|sized| sized.n_lines > sized.max).collect())
}

/// The file and its functions, production lines only.
fn measure(source: &Source) -> Vec<Sized> {
    let n_lines = source.n_production_lines();
    let path = &source.path;
    let mut measured = vec![Sized { key: path.clone(), file: path.clone(), line: 1, n_lines, max: FILE_LINES_MAX }];
    let lines: Vec<_> = source.code.lines().take(n_lines).collect();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = fn_name(line) else { continue };
        // rustfmt puts the closing brace alone, as far in as the first line.
        let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let end = lines[start..].iter().position(|line| line.trim_end() == close).unwrap_or(0);
        let key = format!("{path}::{name}");
        measured.push(Sized { key, file: path.clone(), line: start + 1, n_lines: end + 1, max: FN_LINES_MAX });
    }
    measured
}

/// The name of the function whose first line this is and which goes on after it.
fn fn_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let mut words = before.split_whitespace();
    let qualifies = |word: &str| word.starts_with("pub") || ["async", "const", "unsafe", "extern", "crate)"].contains(&word);
    let whole = !line.trim_end().ends_with([';', '}']) && words.all(qualifies);
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (whole && !name.is_empty()).then_some(name)
}

fn judge(over: &[Sized], ratchet: &BTreeMap<String, usize>) -> Vec<Finding> {
    let mut found = Vec::new();
    for sized in over {
        let allowed = ratchet.get(&sized.key).copied().unwrap_or(sized.max);
        if sized.n_lines > allowed {
            found.push(Finding {
                file: sized.file.clone(),
                line: sized.line,
                rule: "size",
                what: format!("{} has {} lines, over {allowed}", sized.key, sized.n_lines),
                reason: "who scrolls forgets what stood above",
                cure: "give a part of it a name and a place of its own".into(),
            });
        }
    }
    for (key, allowed) in ratchet {
        let now = over.iter().find(|sized| sized.key == *key).map_or(0, |sized| sized.n_lines);
        if now < *allowed {
            found.push(Finding {
                file: RATCHET.into(),
                line: 1,
                rule: "size",
                what: format!("{key} needs no {allowed} lines any longer"),
                reason: "the list may only shrink, or nothing would",
                cure: "cargo xtask tidy --fix".into(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over_in(path: &str, text: String) -> Vec<Sized> {
        measure(&Source::new(path, text, 0)).into_iter().filter(|sized| sized.n_lines > sized.max).collect()
    }

    fn ratchet(entries: &[(&str, usize)]) -> BTreeMap<String, usize> {
        entries.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect()
    }

    #[test]
    fn a_long_file_is_found_but_its_tests_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // A test.\n".repeat(700));
        assert_eq!(over_in("a/src/a.rs", tests).len(), 0);
        let over = over_in("a/src/a.rs", "// A line.\n".repeat(601));
        assert_eq!(judge(&over, &ratchet(&[])).len(), 1);
    }

    #[test]
    fn a_long_function_is_found_by_name() {
        let text = format!(
            "impl A {{\n    pub(crate) async fn long(\n        &self,\n    ) {{\n{}    }}\n}}\n",
            "        a();\n".repeat(70)
        );
        let over = over_in("a/src/a.rs", text);
        assert_eq!(
            over.iter().map(|sized| (sized.key.as_str(), sized.n_lines, sized.line)).collect::<Vec<_>>(),
            [("a/src/a.rs::long", 74, 2)]
        );
    }

    #[test]
    fn the_ratchet_allows_what_it_lists_and_must_shrink_with_it() {
        let over = over_in("a/src/a.rs", "// A line.\n".repeat(650));
        assert_eq!(judge(&over, &ratchet(&[("a/src/a.rs", 650)])), []);
        assert_eq!(judge(&over, &ratchet(&[("a/src/a.rs", 649)]))[0].file, "a/src/a.rs");
        assert_eq!(judge(&over, &ratchet(&[("a/src/a.rs", 651)]))[0].file, RATCHET);
        assert_eq!(judge(&[], &ratchet(&[("a/src/gone.rs", 700)]))[0].file, RATCHET);
    }
}
