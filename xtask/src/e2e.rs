//! `cargo xtask e2e`: the end-to-end tests against real processes and real clusters.

use anyhow::{Context, Result};

use crate::machine::Skips;
use crate::test::{Scope, build, build_release, suite};
use crate::workspace::BIN_DIR;

/// What to run them on.
pub(crate) struct Options<'a> {
    /// Create a cluster.
    pub(crate) kind: bool,
    /// The kubeconfig of one.
    pub(crate) edge: Option<&'a str>,
    /// Run the programs as they ship.
    pub(crate) release: bool,
    /// Leave what was created.
    pub(crate) keep: bool,
}

/// The verb.
pub(crate) fn run_verb(Options { kind, edge, release, keep }: Options<'_>) -> Result<()> {
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
    let result = build().and_then(|()| {
        let programs = if release { Some(build_release()?) } else { None };
        let env: Vec<_> = env.iter().copied().chain(programs.as_deref().map(|dir| (BIN_DIR, dir))).collect();
        suite(Scope::E2e, None, &env, &skips)
    });
    skips.tell();
    result
}
