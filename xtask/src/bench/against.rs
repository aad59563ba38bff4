//! Another revision of this repository: checked out beside this one and built in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{run, said};
use crate::workspace::{cargo, root, target_dir};

/// A revision, checked out. There is one such tree, so that its builds are reused as far as they can be.
pub(super) struct Tree {
    pub(super) dir: PathBuf,
    /// Where cargo puts what it builds of it. Two trees in one folder would take each other's files for their own.
    pub(super) built: PathBuf,
}

impl Tree {
    /// Checks out `rev`.
    pub(super) fn of(rev: &str) -> Result<Self> {
        let commit = commit_of(rev)?;
        let home = target_dir()?.join("against");
        let tree = Self { dir: home.join("tree"), built: home.join("built") };
        // A clean that removed the tree does not tell git.
        said(&mut git(&["worktree", "prune"]))?;
        if tree.dir.join(".git").exists() {
            run(Command::new("git").arg("-C").arg(&tree.dir).args(["checkout", "--quiet", "--force", "--detach", &commit]))?;
        } else {
            run(git(&["worktree", "add", "--quiet", "--force", "--detach"]).arg(&tree.dir).arg(&commit))?;
        }
        Ok(tree)
    }

    /// A cargo command in it.
    pub(super) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = cargo(args);
        command.current_dir(&self.dir).env("CARGO_TARGET_DIR", &self.built);
        command
    }

    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.dir.join(path).exists()
    }
}

/// The commit at which HEAD and `rev` parted; none when that is HEAD itself.
pub(crate) fn merge_base(rev: &str) -> Result<Option<String>> {
    let base = said(&mut git(&["merge-base", "HEAD", rev]))
        .with_context(|| format!("what HEAD and {rev} have in common; a shallow clone does not know (git fetch --unshallow)"))?;
    let base = base.trim().to_owned();
    Ok((base != commit_of("HEAD")?).then_some(base))
}

fn commit_of(rev: &str) -> Result<String> {
    let commit = said(&mut git(&["rev-parse", "--verify", "--quiet", &format!("{rev}^{{commit}}")]));
    Ok(commit.with_context(|| format!("{rev} is no revision of this repository"))?.trim().to_owned())
}

fn git(args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(root()).args(args);
    command
}
