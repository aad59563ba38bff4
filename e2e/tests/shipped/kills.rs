//! Misfortunes under load: the server's program is killed, the agent's, and the edge's node is cut off.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{AGENT, CLUSTER_ID, Place, SERVER, Shipped, wait_for};

use crate::Stage;
use crate::contact::{state, state_within};

/// For a container to start again: the kubelet waits ten seconds at least before the second time.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Twice the silence after which a session is given up.
const SILENT_MAX: Duration = Duration::from_secs(90);

/// Writes that a caller like client-go may lose to a killed program: it repeats no write whose connection broke, and of the load
/// one request a second is one. Thirty seconds are more than any of these programs is away.
const N_LOST_MAX: u64 = 30;

/// Requests of the load that are looked at, after the misfortune at least half of them.
const N_REQUESTS: u64 = 100;

/// Requests after everything is well again, of which none may fail.
const N_CALM: u64 = 30;

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage) {
    if !stage.shipped.hub.is_ours() || !stage.shipped.edge.is_ours() {
        eprintln!("SKIPPED: kills and cuts on a node: they take the nodes of kind clusters: `cargo xtask e2e --kind`");
        return;
    }
    stage.step("the server is killed under load and comes back", |shipped| {
        killed(shipped, N_LOST_MAX, |shipped| again(&shipped.hub, SERVER, "postern-server"))
    });
    stage.step("the agent is killed under load and comes back", |shipped| {
        killed(shipped, N_LOST_MAX, |shipped| again(&shipped.edge, AGENT, "postern-agent"))
    });
    stage.step("the edge is cut off under load and comes back", cut);
}

fn killed(shipped: &mut Shipped, n_lost_max: u64, kill: impl FnOnce(&Shipped) -> Result<()>) -> Result<()> {
    let shipped = &*shipped;
    shipped.under_load(N_REQUESTS, || kill(shipped))?.expect_at_most(n_lost_max)?;
    state(shipped.way()?.port, CLUSTER_ID, "healthy")?;
    shipped.under_load(N_CALM, || Ok(()))?.expect_at_most(0)
}

/// Kills the program of a release, and waits until its container runs again.
fn again(place: &Place, release: &str, program: &str) -> Result<()> {
    let before = place.pods(release)?;
    ensure!(before.len() == 1, "the pods are {before:?}");
    place.kill(program)?;
    let label = format!("app.kubernetes.io/instance={release}");
    let restarted = || {
        let now = place.pods(release)?;
        Ok(now.first().filter(|now| now.1 == before[0].1 && now.2 > before[0].2).map(|_| ()))
    };
    wait_for(&format!("{program} to start again"), AGAIN_MAX, restarted)?;
    place.admin.ok(&["wait", "--for=condition=Ready", "pods", "-l", &label, "--timeout=60s"]).map(drop)
}

fn cut(shipped: &mut Shipped) -> Result<()> {
    let shipped = &*shipped;
    let way = shipped.way()?;
    let fault = shipped.edge.cut(shipped.hub_addr())?;
    // Nobody was told: what answers no ping is suspect, and what is silent for too long is given up.
    state(way.port, CLUSTER_ID, "unhealthy")?;
    state_within(SILENT_MAX, way.port, CLUSTER_ID, "offline")?;
    drop(fault);
    state_within(AGAIN_MAX, way.port, CLUSTER_ID, "healthy")?;
    shipped.under_load(N_CALM, || Ok(()))?;
    // What was asked while the edge was away may have failed; what is asked from here on may not.
    shipped.under_load(N_CALM, || Ok(()))?.expect_at_most(0)
}
