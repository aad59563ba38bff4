//! What a release does outside of this machine; a dry run says it instead.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::run::{line, run};

/// What a dry run has in the place of what only a registry knows.
const UNKNOWN: &str = "sha256:KNOWN-ONCE-IT-IS-PUSHED";

/// The one way out.
pub(super) struct Remote {
    dry: bool,
}

impl Remote {
    pub(super) fn new(dry: bool) -> Self {
        Self { dry }
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Runs what changes something elsewhere; `why` is for who reads what a dry run would do.
    pub(super) fn run(&self, command: &mut Command, why: &str) -> Result<()> {
        self.say(command, why);
        if self.dry { Ok(()) } else { run(command) }
    }

    /// Runs what asks or changes a registry, and reads a digest from what it says.
    pub(super) fn digest(&self, command: &mut Command, why: &str, read: impl FnOnce(&str) -> Result<String>) -> Result<String> {
        self.say(command, why);
        if self.dry {
            return Ok(UNKNOWN.to_owned());
        }
        let Output { status, stdout, stderr } = command.output().with_context(|| line(command))?;
        let complaint = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{}: {status}: {}", line(command), complaint.trim());
        // Helm says there what others print.
        read(&if stdout.is_empty() { complaint } else { String::from_utf8_lossy(&stdout) })
    }

    fn say(&self, command: &Command, why: &str) {
        eprintln!("{} {}    # {why}", if self.dry { "would run:" } else { "+" }, line(command));
    }

    /// Whether the release of `tag` has its page, which comes last: without it an attempt that broke off may be repeated.
    pub(super) fn is_published(&self, tag: &str) -> Result<bool> {
        if self.dry {
            return Ok(false);
        }
        let mut ask = Command::new("gh");
        let Output { status, stderr, .. } = ask.args(["release", "view", tag]).output().with_context(|| line(&ask))?;
        let complaint = String::from_utf8_lossy(&stderr);
        ensure!(status.success() || complaint.contains("release not found"), "{}: {}", line(&ask), complaint.trim());
        Ok(status.success())
    }
}
