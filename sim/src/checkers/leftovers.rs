//! After an orderly end nothing is left: no watch upstream, no stream, no buffer and no credit, no task, no socket.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fabric::SocketInfo;
use crate::machine::Machine;
use crate::stage::Stage;
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
    // A version 1 agent reads on what its caller has left, and only ends it when it ends itself.
    if !stage.has_version_1_agents && !settles(REQUEST_END_MAX, || upstream() == 0).await {
        anyhow::bail!("{} requests still run upstream {REQUEST_END_MAX:?} after their callers left", upstream());
    }
    check_reserved(stage).await?;
    // The agents first: a hub without agents has nothing to finish, nor has a box on the way.
    let (hub, agents): (Vec<_>, Vec<_>) = stage.programs().partition(|machine| machine.name().starts_with("hub/"));
    for machines in [agents, hub, stage.boxes().collect()] {
        machines.iter().for_each(|machine| machine.drain());
        if !settles(DRAIN_END_MAX, || machines.iter().all(|machine| machine.tasks().is_empty())).await {
            anyhow::bail!("tasks are left after a drain: {}", left(&machines));
        }
    }
    if !settles(REQUEST_END_MAX, || upstream() == 0).await {
        anyhow::bail!("{} requests still run upstream {REQUEST_END_MAX:?} after the agents ended", upstream());
    }
    let sockets = || -> Vec<SocketInfo> { stage.fabric.sockets() };
    if !settles(REQUEST_END_MAX, || sockets().is_empty()).await {
        anyhow::bail!("sockets are left after all programs ended: {:#?}", sockets());
    }
    Ok(())
}

/// What a program says it holds when nobody asks anything of it. Idle sessions hold nothing; every stream, with its
/// buffers and the credit it gave, holds something.
const HELD: [&str; 8] = [
    "tunnel_reserved_bytes",
    "tunnel_buffered_bytes",
    "tunnel_streams",
    "tunnel_active_connections",
    "requests_parked",
    "agent_tunnel_reserved_bytes",
    "agent_buffered_bytes",
    "agent_streams",
];

/// How often the programs are asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Who is paused or ends says nothing; who does not serve metrics cannot.
async fn check_reserved(stage: &Stage) -> anyhow::Result<()> {
    for (name, port) in stage.metrics_ports.iter().filter(|(name, _)| stage.machine(name).is_at_work()) {
        let asked_from = tokio::time::Instant::now();
        loop {
            let host = stage.caller(name);
            let asked = tokio::time::timeout(REQUEST_END_MAX, metrics(&host, name, *port)).await;
            let wrong = match asked.map_err(anyhow::Error::from).flatten() {
                Ok(text) => what_is_held(&text),
                Err(error) => Some(format!("does not say what it holds: {error:#}")),
            };
            let Some(wrong) = wrong else { break };
            // Its main may have ended of itself.
            if !stage.machine(name).is_at_work() {
                break;
            }
            anyhow::ensure!(asked_from.elapsed() < REQUEST_END_MAX, "{name} {wrong}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
    Ok(())
}

/// What is wrong with a program's metrics.
fn what_is_held(text: &str) -> Option<String> {
    let held: Vec<_> = text.lines().filter(|line| is_held(line)).collect();
    let says = |line: &str| line.starts_with("tunnel_reserved_bytes") || line.starts_with("agent_tunnel_reserved_bytes");
    match held.is_empty() {
        false => Some(format!("still holds {held:?} for nobody")),
        true if !text.lines().any(says) => Some(format!("does not say what it holds, but {text:?}")),
        true => None,
    }
}

/// Whether a line of metrics is one of [`HELD`] and not zero.
fn is_held(line: &str) -> bool {
    let (name, value) = line.rsplit_once(' ').unwrap_or_default();
    HELD.contains(&name.split('{').next().unwrap_or_default()) && value != "0"
}

async fn metrics(host: &host::Host, machine: &str, port: u16) -> anyhow::Result<String> {
    let mut connection = host.dial(machine, port).await?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    Ok(text)
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
