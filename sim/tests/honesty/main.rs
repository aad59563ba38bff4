//! What the fake API server claims to be, checked on it, and on a real one where there is one: shapes, statuses and
//! headers, never values that differ from day to day.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "drives real processes in real time, and says which checks ran"
)]

mod checks;
mod far;

use std::time::Instant;

use anyhow::Result;
use e2e::{Source, Upstream, requirement};

use far::{Far, Skipped};

/// What brings a real one's bad days within a test's reach: few requests at once, and the old limiter, since the newer one
/// has queues; a GOAWAY in fifty requests, the most that it takes; a history of a second or two.
const FLAGS: [&str; 4] = [
    "--max-requests-inflight=5",
    "--enable-priority-and-fairness=false",
    "--goaway-chance=0.02",
    "--etcd-compaction-interval=1s",
];

#[test]
fn the_fake_is_what_it_claims_to_be() -> Result<()> {
    host::tls::use_provider();
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { run(&Far::fake(dir.path()).await?).await })
}

#[test]
fn a_real_api_server_is_what_the_fake_claims_to_be() -> Result<()> {
    host::tls::use_provider();
    let given = std::env::var_os("E2E_EDGE").filter(|file| !file.is_empty());
    let Some(kubectl) = requirement::kubectl() else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let is_ours = given.is_none();
    let upstream = match given {
        Some(kubeconfig) => Upstream::cluster(&Source::Given(kubeconfig.into()), &kubectl, dir.path())?,
        None => {
            let Some(assets) = requirement::assets() else { return Ok(()) };
            Upstream::api_server(&assets, &kubectl, dir.path(), &FLAGS)?
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { run(&Far::real(&upstream, is_ours)?).await })
}

/// Runs all checks, also after one has failed.
async fn run(far: &Far) -> Result<()> {
    checks::clean_up(far).await?;
    let mut failed = Vec::new();
    for (name, check) in checks::CHECKS {
        let began = Instant::now();
        let result = check(far).await;
        let ms = began.elapsed().as_millis();
        match result {
            Ok(()) => eprintln!("check: {name} ok ({ms} ms)"),
            Err(error) if error.is::<Skipped>() => eprintln!("SKIPPED: {name}: {error}"),
            Err(error) => {
                eprintln!("check: {name} FAILED ({ms} ms): {error:#}");
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    checks::clean_up(far).await?;
    anyhow::ensure!(failed.is_empty(), "{} checks failed:\n- {}", failed.len(), failed.join("\n- "));
    Ok(())
}
