//! After an orderly end nothing is left: no watch upstream, no task, no socket.

use std::time::Duration;

use crate::fabric::SocketInfo;
use crate::machine::Machine;
use crate::story::Story;

/// After this long nothing may remain of a request whose caller has left: the worst round trip of any preset and a
/// second for the ends to notice.
const REQUEST_END_MAX: Duration = Duration::from_secs(3);

/// After this long a drained program with nothing to do has ended: go-away, answer, close, with round trips between.
const DRAIN_END_MAX: Duration = Duration::from_secs(5);

pub(super) async fn check(story: &Story) -> anyhow::Result<()> {
    let stage = story.stage();
    stage.dismiss_callers();
    let upstream = || stage.clusters.values().filter_map(|cluster| cluster.api()).map(|api| api.n_requests_open()).sum::<usize>();
    if !settles(REQUEST_END_MAX, || upstream() == 0).await {
        anyhow::bail!("{} requests still run upstream {REQUEST_END_MAX:?} after their callers left", upstream());
    }
    // The agents first: a hub without agents has nothing to finish.
    let (hub, agents): (Vec<_>, Vec<_>) = stage.programs().partition(|machine| machine.name().starts_with("hub/"));
    for machines in [agents, hub] {
        machines.iter().for_each(|machine| machine.drain());
        if !settles(DRAIN_END_MAX, || machines.iter().all(|machine| machine.tasks().is_empty())).await {
            anyhow::bail!("tasks are left after a drain: {}", left(&machines));
        }
    }
    let sockets = || -> Vec<SocketInfo> { stage.fabric.sockets() };
    if !settles(REQUEST_END_MAX, || sockets().is_empty()).await {
        anyhow::bail!("sockets are left after all programs ended: {:#?}", sockets());
    }
    Ok(())
}

async fn settles(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let settled = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, settled).await.is_ok()
}

fn left(machines: &[&Machine]) -> String {
    let busy = machines.iter().filter(|machine| !machine.tasks().is_empty());
    busy.map(|machine| format!("{} {:?}", machine.name(), machine.tasks())).collect::<Vec<_>>().join(", ")
}
