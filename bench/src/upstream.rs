//! Stub.

use clap::{ArgMatches, Command};

pub(crate) fn command() -> Command {
    Command::new("upstream")
}

pub(crate) fn run_verb(_args: &ArgMatches) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
