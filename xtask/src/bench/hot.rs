//! `cargo xtask bench hot`: instructions per iteration of each hot path, and what a change did to them.
//!
//! Instructions repeat where times do not: the same program gives the same count on a busy machine and on an idle one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::against::Tree;
use super::{BENCH_PACKAGE, PROGRAM};
use crate::machine::Skips;
use crate::run::{run, said, step, works};
use crate::workspace::{cargo, target_dir};

/// How much worse a path may become: a count repeats to a tenth of that, and what is less is a matter of layout.
const WORSE_MAX_PERCENT: u64 = 3;

/// Release with names, so that callgrind can say where the instructions went. Said here and not in Cargo.toml, so that a
/// revision that says otherwise, or nothing, is built in the same way.
const PROFILE: [&str; 4] = [
    r#"profile.count.inherits="release""#,
    r#"profile.count.lto="thin""#,
    r#"profile.count.strip="none""#,
    r#"profile.count.debug="line-tables-only""#,
];

/// What a counted process sees of the environment, and no more: libraries read it, and it lies on the stack.
///
/// callgrind counts a `rep movsb` as an instruction for each byte; glibc copies and clears what is large in that way, unless told
/// not to, and then a path of large frames would count nothing but its copies.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("LC_ALL", "C"),
    ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"),
];

/// Whether there is something to count with.
pub(crate) fn is_there() -> bool {
    works("valgrind", &["--version"])
}

/// One hot path, as `postern-bench hot --list` says it.
struct HotPath {
    name: String,
    /// How many iterations make a count.
    iterations: u64,
}

/// What counting one path gave, in instructions per iteration.
struct Counted {
    name: String,
    /// None where the path is new.
    base: Option<u64>,
    now: u64,
}

impl Counted {
    /// In percent; positive is worse.
    fn change(&self) -> Option<f64> {
        self.base.map(|base| (self.now as f64 / base as f64 - 1.0) * 100.0)
    }

    fn is_worse(&self) -> bool {
        self.base.is_some_and(|base| self.now * 100 > base * (100 + WORSE_MAX_PERCENT))
    }
}

/// Counts the paths that `wanted` names, or all, here and at `rev`, and prints a table.
///
/// # Errors
/// A path that is more than 3 % worse than at `rev`, by its name.
pub(crate) fn compare(wanted: &[&str], rev: Option<&str>, skips: &Skips) -> Result<()> {
    if !is_there() {
        skips.add("instruction counts of hot paths: install valgrind");
        return Ok(());
    }
    let program = step("count build", build)?;
    let paths = chosen(wanted, paths_of(&program)?)?;
    let base = rev.map(|rev| step(&format!("count build of {rev}"), || build_at(rev))).transpose()?.flatten();
    let known: Vec<_> = base.as_deref().and_then(|program| paths_of(program).ok()).unwrap_or_default();
    let mut all = Vec::new();
    for HotPath { name, iterations } in paths {
        let has_it = known.iter().any(|path| path.name == name);
        let counted = step(&format!("count {name}"), || {
            let base = base.as_deref().filter(|_| has_it).map(|program| count(program, &name, iterations)).transpose()?;
            Ok(Counted { base, now: count(&program, &name, iterations)?, name })
        })?;
        all.push(counted);
    }
    print!("{}", table(&all, rev));
    if let Some(dir) = program.parent() {
        eprintln!("where they went: callgrind_annotate --inclusive=yes {}/PATH.callgrind", dir.display());
    }
    verdict(&all)
}

fn chosen(wanted: &[&str], mut paths: Vec<HotPath>) -> Result<Vec<HotPath>> {
    if let Some(unknown) = wanted.iter().find(|name| paths.iter().all(|path| path.name != **name)) {
        let names: Vec<_> = paths.iter().map(|path| path.name.as_str()).collect();
        bail!("no hot path is called {unknown}; there are {}", names.join(", "));
    }
    paths.retain(|path| wanted.is_empty() || wanted.contains(&path.name.as_str()));
    Ok(paths)
}

/// This tree's program.
fn build() -> Result<PathBuf> {
    run(&mut with_profile(cargo(&["build"])))?;
    Ok(target_dir()?.join("count").join(PROGRAM))
}

/// The program of `rev`; none where it has no benchmark.
fn build_at(rev: &str) -> Result<Option<PathBuf>> {
    let tree = Tree::of(rev)?;
    if !tree.has(BENCH_PACKAGE) {
        return Ok(None);
    }
    run(&mut with_profile(tree.cargo(&["build"])))?;
    Ok(Some(tree.built.join("count").join(PROGRAM)))
}

fn with_profile(mut build: Command) -> Command {
    build.args(["--profile", "count", "-p", BENCH_PACKAGE]);
    for line in PROFILE {
        build.args(["--config", line]);
    }
    build
}

fn paths_of(program: &Path) -> Result<Vec<HotPath>> {
    let list = said(Command::new(program).args(["hot", "--list"]))?;
    let path = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, iterations) = (words.next()?, words.next()?);
        Some(HotPath { name: name.to_owned(), iterations: iterations.parse().ok()? })
    };
    list.lines().map(|line| path(line).with_context(|| format!("a line of `hot --list`: {line}"))).collect()
}

/// Instructions per iteration: what twice as many cost more. Start-up and end are in both counts and fall out.
fn count(program: &Path, name: &str, iterations: u64) -> Result<u64> {
    let once = instructions(program, name, iterations)?;
    let twice = instructions(program, name, 2 * iterations)?;
    Ok(twice.saturating_sub(once) / iterations)
}

/// Beside the program stay callgrind's file, for `callgrind_annotate`, and what the program logged.
fn instructions(program: &Path, name: &str, iterations: u64) -> Result<u64> {
    let dir = program.parent().context("a program lies in a folder")?;
    let (profile, log) = (format!("{name}.callgrind"), dir.join(format!("{name}.log")));
    let mut command = Command::new("valgrind");
    // By the same short name at both revisions, since the command line lies on the stack too.
    command.args(["--tool=callgrind", &format!("--callgrind-out-file={profile}"), &format!("./{PROGRAM}"), "hot", name]);
    command.arg(iterations.to_string()).current_dir(dir).env_clear().envs(ENVIRONMENT);
    command.stdout(std::fs::File::create(&log)?).stderr(std::fs::File::options().append(true).open(&log)?);
    run(&mut command).with_context(|| format!("see {}", log.display()))?;
    let profile = std::fs::read_to_string(dir.join(profile))?;
    total(&profile).with_context(|| format!("callgrind counted nothing of {name}; see {}", log.display()))
}

/// The count of a whole process in callgrind's file (its manual, "Callgrind Format Specification").
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:")?.split_whitespace().next()?.parse().ok())
}

fn table(all: &[Counted], rev: Option<&str>) -> String {
    let mut lines = vec![["path".to_owned(), rev.unwrap_or_default().to_owned(), "now".to_owned(), String::new()]];
    for counted in all {
        let change = match (rev, counted.change()) {
            (None, _) => String::new(),
            (Some(_), None) => "new".to_owned(),
            (Some(_), Some(change)) => format!("{change:+.2} %{}", if counted.is_worse() { "  WORSE" } else { "" }),
        };
        let base = counted.base.map(thousands).unwrap_or_default();
        lines.push([counted.name.clone(), base, thousands(counted.now), change]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
    let [first, second, third] = [0, 1, 2].map(width);
    let mut text = String::from("instructions per iteration\n");
    for [path, base, now, change] in &lines {
        let line = format!("  {path:first$}  {base:>second$}  {now:>third$}  {change}");
        text += &format!("{}\n", line.trim_end());
    }
    text
}

/// A number as people read it: 12 345 678.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(" ")
}

fn verdict(all: &[Counted]) -> Result<()> {
    let worse: Vec<_> = all.iter().filter(|counted| counted.is_worse()).map(|counted| counted.name.as_str()).collect();
    ensure!(worse.is_empty(), "more than {WORSE_MAX_PERCENT} % more instructions: {}", worse.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(name: &str, base: Option<u64>, now: u64) -> Counted {
        Counted { name: name.to_owned(), base, now }
    }

    #[test]
    fn a_path_that_became_worse_fails_by_its_name_and_one_that_is_new_does_not() {
        let all = [counted("codec", Some(1000), 1030), counted("request", Some(100_000), 103_100), counted("headers", None, 9)];
        let error = verdict(&all).expect_err("one is worse").to_string();
        assert!(error.ends_with(": request"), "{error}");
        assert!(verdict(&all[..1]).is_ok());
    }

    #[test]
    fn a_table_says_what_was_and_what_is() {
        let all = [counted("codec", Some(1000), 900), counted("request", Some(1_000_000), 1_040_000), counted("new", None, 7)];
        let wanted = "instructions per iteration\n  path            v1        now\n  codec        1 000        900  -10.00 %\n  \
                      request  1 000 000  1 040 000  +4.00 %  WORSE\n  new                         7  new\n";
        assert_eq!(table(&all, Some("v1")), wanted);
    }

    #[test]
    fn the_count_of_a_whole_process_is_found() {
        assert_eq!(total("events: Ir\n\nfn=(1) main\n16 400\ntotals: 123456\n"), Some(123_456));
        assert_eq!(total("events: Ir\n"), None);
    }
}
