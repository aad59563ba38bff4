//! Stub.

use crate::task::Agents;

pub(crate) fn run_verb(_task: Agents) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
