//! Upgrades under load, the charts' own tests, and the end: nothing is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{AGENT, ASKED, CLUSTER_ID, Census, Place, Process, SERVER, Shipped, wait_for};
use serde_json::json;

use crate::Stage;
use crate::contact::state;

/// For a pod to be no more: its grace (leave, drain and ten seconds more) is under half a minute, and a kubelet on a busy machine has
/// been seen to take two more before it has taken its volumes away.
const GONE_MAX: Duration = Duration::from_secs(240);

/// For what happens within a second or two.
const SOON: Duration = Duration::from_secs(30);

/// Requests that must have been asked across an upgrade: five seconds of the load at least.
const N_REQUESTS: u64 = 50;

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage) {
    stage.step("helm test of both charts", helm_test);
    stage.step("the server is upgraded under load, and no request fails", upgrade_server);
    stage.step("the agent is upgraded under load, and no request fails", upgrade_agent);
}

/// Takes both away.
pub(crate) fn end(stage: &mut Stage) {
    stage.step("uninstall leaves nothing", uninstall);
}

fn helm_test(shipped: &mut Shipped) -> Result<()> {
    for (place, release) in [(&shipped.hub, SERVER), (&shipped.edge, AGENT)] {
        let said = place.helm(&["test", release, "--timeout", "90s"])?;
        ensure!(said.contains("Succeeded"), "helm test {release} tested nothing: {said}");
    }
    Ok(())
}

fn upgrade_server(shipped: &mut Shipped) -> Result<()> {
    let old = shipped.hub.pods(SERVER)?;
    let way = shipped.way()?;
    let mut exec = way.kubectl.start(shipped.dir(), "exec", &["exec", "-i", ASKED, "--", "cat"])?;
    says_back(&mut exec, "before the upgrade")?;
    shipped.server_values["podAnnotations"] = json!({"postern-e2e/upgrade": "1"});
    let trouble = shipped.under_load(N_REQUESTS, || {
        shipped.hub.helm_upgrade(SERVER, "server", &shipped.server_values)?;
        // The new pod is ready; the old one has left its Services or is about to, and what runs there goes on.
        says_back(&mut exec, "while the old server drains")?;
        gone(&shipped.hub, &old)
    })?;
    trouble.expect_at_most(0)?;
    exec.wait_for_exit(SOON).context("an exec outlives the server that carried it")?;
    let new = shipped.hub.pods(SERVER)?;
    ensure!(new.len() == 1 && new[0].1 != old[0].1, "the pods are {new:?} after {old:?}");
    state(shipped.way()?.port, CLUSTER_ID, "healthy")
}

fn upgrade_agent(shipped: &mut Shipped) -> Result<()> {
    let old = shipped.edge.pods(AGENT)?;
    shipped.agent_values["podAnnotations"] = json!({"postern-e2e/upgrade": "1"});
    let trouble = shipped.under_load(N_REQUESTS, || {
        shipped.upgrade_agent()?;
        gone(&shipped.edge, &old)
    })?;
    trouble.expect_at_most(0)
}

/// Waits until these pods are no more.
fn gone(place: &Place, pods: &[(String, String, u64)]) -> Result<()> {
    for (name, uid, _) in pods {
        let told = || {
            let found = place.admin.run(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"], b"")?;
            Ok((found.text() != *uid).then_some(()))
        };
        wait_for(&format!("the end of {name}"), GONE_MAX, told)?;
    }
    Ok(())
}

fn says_back(exec: &mut Process, words: &str) -> Result<()> {
    exec.send(format!("{words}\n").as_bytes())?;
    exec.wait_for_line(words, SOON).map(drop)
}

fn uninstall(shipped: &mut Shipped) -> Result<()> {
    shipped.stop_caller()?;
    let places = [(&shipped.edge, AGENT, &shipped.before.1), (&shipped.hub, SERVER, &shipped.before.0)];
    for (place, release, _) in places {
        place.helm(&["uninstall", release])?;
    }
    for (place, release, before) in places {
        let mut left = Vec::new();
        let none_left = || {
            left = Census::take(place)?.since(before);
            Ok(left.is_empty().then_some(()))
        };
        wait_for(&format!("nothing to be left of {release}"), GONE_MAX, none_left).with_context(|| format!("left: {left:?}"))?;
    }
    Ok(())
}
