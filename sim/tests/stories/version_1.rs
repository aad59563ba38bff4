//! Version 1 peers at either end: what they can promise, and the weaker claim where they cannot.

use anyhow::Context;
use http::StatusCode;
use sim::caller::{Caller, Protocol};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::{Cluster, World};

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn a_version_1_agent_serves_our_server() {
    World::new().cluster("edge-1", |c| c.pods(3000).version_1()).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            serves(caller).await?;
        }
        Ok(())
    });
}

#[test]
fn a_version_1_agent_that_goes_on_talking_into_a_closed_stream_harms_nobody() {
    World::new().cluster("edge-1", |c| c.version_1()).tell(async |s: Story| {
        let caller = s.kubectl();
        let mut log =
            caller.get("edge-1", "/api/v1/namespaces/default/pods/web-0/log?follow=true").open().within(secs(5)).await?;
        log.line().within(secs(5)).await?.context("a log without a line")?;
        drop(log);
        // Its API server speaks on, one line a second, and the agent passes it on; nobody listens.
        for _ in 0..20 {
            s.pass(secs(1)).await;
            caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        let n_down = s.trace().lines().iter().filter(|line| line.what.contains("session down")).count();
        anyhow::ensure!(n_down == 0, "the session was lost {n_down} times");
        // The weaker claim: with extensions the request ends upstream, a version 1 agent only ends with its session.
        s.crash("edge-1/agent");
        s.restart("edge-1/agent");
        Ok(())
    });
}

#[test]
fn a_slow_reader_of_a_version_1_agent_is_aborted_visibly_and_alone() {
    World::new().cluster("edge-1", |c| c.pods(6000).version_1()).tell(async |s: Story| {
        let caller = s.kubectl().over(Protocol::Http1);
        let slow = caller.get("edge-1", "/api/v1/pods").open().within(secs(20)).await?;
        s.pass(minutes(1)).await;
        // The weaker claim: without credit the agent cannot be slowed down, so the stream ends, and not as if whole.
        let ended = slow.read_out(None).within(minutes(1)).await;
        anyhow::ensure!(ended.is_err(), "a list larger than the bound of a version 1 stream came whole to a reader that slept");
        caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn our_agent_serves_a_version_1_server() {
    World::new().hub(|hub| hub.version_1()).cold().cluster("edge-1", |c| c.pods(3000)).tell(async |s: Story| {
        let caller = s.kubectl().over(Protocol::Http1);
        answered(&s, &caller, "gitVersion").within(secs(10)).await?;
        for _ in 0..3 {
            serves(&caller).await?;
        }
        Ok(())
    });
}

#[test]
fn our_agent_dials_no_other_address_for_a_version_1_server() {
    let elsewhere = |c: Cluster| c.with(|config| config.target.host = "elsewhere".to_owned());
    World::new()
        .hub(|hub| hub.version_1())
        .cold()
        .cluster("edge-1", elsewhere)
        .tell(async |s: Story| answered(&s, &s.kubectl().over(Protocol::Http1), "address not allowed").within(secs(10)).await);
}

/// Asks until the answer contains `words`: a version 1 server does not say when its agent is there.
async fn answered(s: &Story, caller: &Caller, words: &str) -> anyhow::Result<()> {
    while !caller.get("edge-1", "/version").await.is_ok_and(|reply| reply.text().contains(words)) {
        s.pass(millis(100)).await;
    }
    Ok(())
}

/// Asks for something small, something large (of 3000 pods) and a write.
async fn serves(caller: &Caller) -> anyhow::Result<()> {
    caller.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
    let list = caller.get("edge-1", "/api/v1/pods").within(secs(20)).await?.expect(StatusCode::OK)?;
    anyhow::ensure!(list.text().contains("web-2999"), "{} bytes without the last pod", list.body.len());
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"v1-"}}"#;
    let posted = caller.post("edge-1", CONFIGMAPS, body).header("content-type", "application/json");
    posted.within(secs(5)).await?.expect(StatusCode::CREATED)?;
    Ok(())
}
