//! `cargo xtask honesty`: what the fake API server claims to be, checked on it and on a real one.

use anyhow::{Context, Result};

use crate::machine::Skips;
use crate::run::{run_seen, step};
use crate::workspace::cargo;

/// The verb. `kubeconfig` names a cluster to check on; without it `KUBEBUILDER_ASSETS` does.
pub(crate) fn run_verb(kubeconfig: Option<&str>) -> Result<()> {
    let mut command = cargo(&["test", "--package", "sim", "--test", "honesty", "--", "--test-threads=1", "--show-output"]);
    if let Some(file) = kubeconfig {
        command
            .env("E2E_EDGE", std::path::absolute(file).and_then(|file| file.metadata().map(|_| file)).context(file.to_owned())?);
    }
    let skips = Skips::default();
    let result = step("honesty", || run_seen(&mut command, &|line| skips.see(line)));
    skips.tell();
    result
}
