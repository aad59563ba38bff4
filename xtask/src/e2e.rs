//! `cargo xtask e2e`: the end-to-end tests against real processes and real clusters.

use anyhow::{Context, Result};

use crate::machine::Skips;
use crate::test::{Scope, build, suite};

/// The verb. `kind` creates a cluster, `edge` names the kubeconfig of one, `keep` leaves what was created.
pub(crate) fn run_verb(kind: bool, edge: Option<&str>, keep: bool) -> Result<()> {
    let edge = edge.map(|file| std::path::absolute(file).and_then(|file| file.metadata().map(|_| file)).context(file.to_owned()));
    let edge = edge.transpose()?.map(|file| file.to_string_lossy().into_owned());
    let mut env = Vec::new();
    if kind {
        env.push(("E2E_KIND", "1"));
    }
    if let Some(edge) = &edge {
        env.push(("E2E_EDGE", edge.as_str()));
    }
    if keep {
        env.push(("E2E_KEEP", "1"));
    }
    let skips = Skips::default();
    let result = build().and_then(|()| suite(Scope::E2e, None, &env, &skips));
    skips.tell();
    result
}
