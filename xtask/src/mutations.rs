//! `cargo xtask mutations`: breaks the product on purpose, patch by patch, and sees the story that claims otherwise fail.
//!
//! A patch in `ci/mutations` begins with lines `Invariant: N`, `Story: module::name` and `Breaks: words`, then the diff.
//! It fails here when it no longer applies, no longer compiles, or when its story does not notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{run, said, step};
use crate::workspace::{cargo, root, target_dir};

/// Where the patches lie.
const FOLDER: &str = "ci/mutations";

/// The invariants of ARCHITECTURE.md that a single server has; each needs a patch.
const INVARIANTS: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18];

/// One deliberate break.
struct Mutation {
    path: PathBuf,
    invariant: u8,
    story: String,
    breaks: String,
}

impl Mutation {
    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The verb: all mutations, or those whose name contains `name`.
pub(crate) fn run_verb(name: Option<&str>) -> Result<()> {
    if name.is_none() {
        check()?;
    }
    let mutations: Vec<_> = read()?.into_iter().filter(|mutation| mutation.name().contains(name.unwrap_or_default())).collect();
    ensure!(!mutations.is_empty(), "no patch in {FOLDER} has {} in its name", name.unwrap_or_default());
    let tree = Tree::copy()?;
    step("the stories pass unbroken", || {
        tree.build()?;
        mutations.iter().try_for_each(|mutation| match tree.passes(&mutation.story)? {
            true => Ok(()),
            false => bail!("{} fails without {}", mutation.story, mutation.name()),
        })
    })?;
    let mut unnoticed = Vec::new();
    for (n, mutation) in mutations.iter().enumerate() {
        let title = format!("{} of {}: {} ({})", n + 1, mutations.len(), mutation.name(), mutation.breaks);
        let noticed = step(&title, || {
            tree.broken_by(mutation, || {
                tree.build().context("it no longer compiles")?;
                Ok(!tree.passes(&mutation.story)?)
            })
        })?;
        eprintln!("   {} {}", mutation.story, if noticed { "fails, as it should" } else { "DID NOT NOTICE" });
        if !noticed {
            unnoticed.push(format!("{}: {} passes all the same", mutation.name(), mutation.story));
        }
    }
    ensure!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
    Ok(())
}

/// Whether every patch is well-formed and applies, and every invariant has one.
pub(crate) fn check() -> Result<()> {
    let mutations = read()?;
    for mutation in &mutations {
        run(Command::new("git").args(["apply", "--check"]).arg(&mutation.path).current_dir(root()))
            .with_context(|| format!("{} no longer applies: mend the patch, its story is not guarded", mutation.name()))?;
    }
    for invariant in INVARIANTS {
        let has_one = mutations.iter().any(|mutation| mutation.invariant == invariant);
        ensure!(has_one, "invariant {invariant} has no patch in {FOLDER}");
    }
    Ok(())
}

fn read() -> Result<Vec<Mutation>> {
    let folder = root().join(FOLDER);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort();
    paths.into_iter().map(|path| parse(&fs::read_to_string(&path)?, &path)).collect()
}

fn parse(text: &str, path: &Path) -> Result<Mutation> {
    let field = |name: &str| {
        let line = text.lines().take_while(|line| !line.starts_with("diff ")).find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned()).with_context(|| format!("{} has no line {name}", path.display()))
    };
    let invariant = field("Invariant:")?.parse().with_context(|| format!("{}: Invariant is no number", path.display()))?;
    Ok(Mutation { path: path.to_owned(), invariant, story: field("Story:")?, breaks: field("Breaks:")? })
}

/// A copy of the tracked files, to be broken; the workspace itself stays as it is.
struct Tree(PathBuf);

impl Tree {
    fn copy() -> Result<Self> {
        let tree = target_dir()?.join("mutations");
        let listed = said(Command::new("git").args(["ls-files", "-z"]).current_dir(root()))?;
        for file in listed.split('\0').filter(|file| !file.is_empty()) {
            let (from, to) = (root().join(file), tree.join(file));
            // A file that is deleted and not yet committed.
            let Ok(content) = fs::read(&from) else { continue };
            // An untouched file keeps its time, and what was built from it stays good.
            if fs::read(&to).is_ok_and(|there| there == content) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&tree))?;
            fs::write(&to, content).with_context(|| to.display().to_string())?;
        }
        Ok(Self(tree))
    }

    fn broken_by<T>(&self, mutation: &Mutation, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.apply(mutation, &[])?;
        let result = work();
        self.apply(mutation, &["--reverse"])?;
        result
    }

    fn apply(&self, mutation: &Mutation, args: &[&str]) -> Result<()> {
        // The copy lies inside of a repository and is none: git must not look for one above.
        let above = self.0.parent().unwrap_or(&self.0);
        let mut git = Command::new("git");
        run(git.arg("apply").args(args).arg(&mutation.path).current_dir(&self.0).env("GIT_CEILING_DIRECTORIES", above))
    }

    fn build(&self) -> Result<()> {
        run(self.stories().arg("--no-run"))
    }

    /// Whether the story passes. It must be there: a renamed one would be guarded by nothing.
    fn passes(&self, story: &str) -> Result<bool> {
        let listed = said(self.stories().args(["--", "--list", "--exact", story]))?;
        ensure!(listed.contains(&format!("{story}: test")), "there is no story {story}");
        let output = self.stories().args(["--", "--exact", story]).output()?;
        Ok(output.status.success())
    }

    fn stories(&self) -> Command {
        let mut command = cargo(&["test", "--quiet", "--package", "sim", "--test", "stories"]);
        // Dependencies are built once for both trees.
        command.current_dir(&self.0).env_remove("SIM_SEED");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_which_invariant_it_breaks_and_who_notices() {
        let text = "Invariant: 3\nStory: bad_networks::a_silent_peer_is_replaced\nBreaks: silence\n\ndiff --git a/x b/x\n";
        let mutation = parse(text, Path::new("ci/mutations/03-silence.patch")).expect("a good patch");
        assert_eq!((mutation.invariant, mutation.story.as_str()), (3, "bad_networks::a_silent_peer_is_replaced"));
        let wrong = parse("Invariant: 3\ndiff --git a/x b/x\nStory: x\n", Path::new("x.patch"));
        assert!(wrong.err().is_some_and(|error| error.to_string().contains("Story:")));
    }
}
