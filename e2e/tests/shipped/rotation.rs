//! Rotation while everything runs: a cluster more, another token, other certificates; nothing restarts and nothing is cut off.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{AGENT, ASKED, Authority, CLUSTER_ID, Place, Process, SERVER, Shipped, wait_for};
use serde_json::json;

use crate::Stage;
use crate::contact::{argocd_secret, state};

/// For the kubelet to bring what was changed, when it is hastened, and for a program to take it.
const TAKEN_MAX: Duration = Duration::from_secs(90);

/// For the next line of a log.
const SOON: Duration = Duration::from_secs(30);

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage) {
    stage.step("a cluster more in the values restarts nothing", |shipped| undisturbed(shipped, another_cluster));
    stage.step("tokens are rotated, and nothing restarts", |shipped| undisturbed(shipped, tokens));
    stage.step("certificates and the authority are rotated, and nothing restarts", |shipped| undisturbed(shipped, certificates));
}

/// Does `work` while a log is followed; fails if that breaks, a pod is another or has restarted, or a request of the load fails.
fn undisturbed(shipped: &mut Shipped, work: fn(&mut Shipped) -> Result<()>) -> Result<()> {
    let way = shipped.way()?;
    let mut logs = way.kubectl.start(shipped.dir(), "followed", &["logs", "-f", "--tail=1", ASKED])?;
    next_line(&mut logs)?;
    let pods = |shipped: &Shipped| anyhow::Ok((shipped.hub.pods(SERVER)?, shipped.edge.pods(AGENT)?));
    let (before, counts) = (pods(shipped)?, shipped.counts()?);
    work(shipped)?;
    next_line(&mut logs).context("the log that was followed")?;
    state(way.port, CLUSTER_ID, "healthy")?;
    shipped.under_load(20, || Ok(()))?;
    let after = shipped.counts()?;
    ensure!(after.n_failures() == counts.n_failures(), "a request failed: {}", after.last_failure());
    let now = pods(shipped)?;
    ensure!(now == before, "the pods are {now:?}, and were {before:?}");
    Ok(())
}

fn another_cluster(shipped: &mut Shipped) -> Result<()> {
    let alone = shipped.server_values["clusters"].clone();
    let more = json!([alone[0], {"id": "edge-2", "token": "a-token-for-the-second-one"}]);
    shipped.server_values["clusters"] = more;
    shipped.upgrade_server()?;
    shipped.hub.hasten_volumes(SERVER)?;
    let way = shipped.way()?;
    state(way.port, "edge-2", "offline")?;
    let argocd = shipped.hub.admin.in_namespace(shipped.argocd_namespace());
    argocd.ok(&["get", "secret", &format!("{SERVER}-cluster-edge-2")])?;
    shipped.server_values["clusters"] = alone;
    shipped.upgrade_server()?;
    let gone = argocd.run(&["get", "secret", &format!("{SERVER}-cluster-edge-2")], b"")?;
    ensure!(gone.stderr.contains("NotFound"), "{gone:?}");
    Ok(())
}

/// The new one is made known first, then shown, and the old one is forgotten last.
fn tokens(shipped: &mut Shipped) -> Result<()> {
    let (old, new) = (shipped.server_values["clusters"][0]["token"].clone(), "another-token-of-some-length");
    shipped.server_values["clusters"] = json!([{"id": CLUSTER_ID, "token": old, "tokens": [new]}]);
    shipped.upgrade_server()?;
    shipped.hub.hasten_volumes(SERVER)?;
    shipped.agent_values["token"] = new.into();
    let connected = connections(&shipped.edge)?;
    shipped.upgrade_agent()?;
    reconnects(&shipped.edge, connected)?;
    shipped.server_values["clusters"] = json!([{"id": CLUSTER_ID, "token": new}]);
    shipped.upgrade_server()?;
    shipped.hub.hasten_volumes(SERVER)
}

/// What is new is trusted first, then shown, and what is old is trusted no longer.
fn certificates(shipped: &mut Shipped) -> Result<()> {
    let new = Authority::new("postern-e2e-new")?;
    let both = format!("{}{}", shipped.authority.pem, new.pem);
    for (authority, trusted) in [(&shipped.authority, &both), (&new, &both), (&new, &new.pem)] {
        let connected = connections(&shipped.edge)?;
        shipped.give_certificates(authority, trusted)?;
        shipped.hub.hasten_volumes(SERVER)?;
        reconnects(&shipped.edge, connected)?;
    }
    shipped.authority = new;
    shipped.give_argocd_a_certificate()?;
    shipped.upgrade_server()?;
    argocd_secret(shipped)
}

/// How often the agent has connected to its hub.
fn connections(edge: &Place) -> Result<usize> {
    let label = format!("app.kubernetes.io/instance={AGENT}");
    let log = edge.admin.ok(&["logs", "-l", &label, "--tail=-1"])?;
    Ok(log.lines().filter(|line| line.contains("connected to the hub")).count())
}

/// Waits until the agent has connected again, with what is new in its files.
fn reconnects(edge: &Place, before: usize) -> Result<()> {
    edge.hasten_volumes(AGENT)?;
    wait_for("the agent to connect again", TAKEN_MAX, || Ok((connections(edge)? > before).then_some(())))
}

fn next_line(logs: &mut Process) -> Result<()> {
    let so_far = logs.log().lines().count();
    logs.wait_until("another line", SOON, |log| (log.lines().count() > so_far).then_some(()))
}
