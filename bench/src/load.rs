//! Stub.

use crate::task::Load;

pub(crate) fn run_verb(_task: Load) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
