//! Stub.

use crate::task::Relay;

pub(crate) fn run_verb(_task: Relay) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
