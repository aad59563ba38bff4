//! How clusters are seen: by programs, by Prometheus and by people; all three at every look.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use serde_json::Value;
use sim::caller::Caller;
use sim::story::{Story, Within, millis, secs};

/// Whatever happens to a cluster is shown within this.
pub(crate) const SHOWN_MAX: Duration = secs(15);

/// How old a neighbour's probe may be: an interval, and a moment of its own.
const PROBE_AGE_MAX_MS: u64 = 5_200;

/// All clusters.
pub(crate) async fn clusters(s: &Story) -> anyhow::Result<Value> {
    let reply = ask(s, "/clusters").await?;
    serde_json::from_str(&reply).with_context(|| reply)
}

/// One cluster.
pub(crate) async fn cluster(s: &Story, id: &str) -> anyhow::Result<Value> {
    let all = clusters(s).await?;
    let found = all["clusters"].as_array().into_iter().flatten().find(|cluster| cluster["id"] == id);
    found.cloned().with_context(|| format!("no {id} in {all}"))
}

/// The page.
pub(crate) async fn page(s: &Story, query: &str) -> anyhow::Result<String> {
    ask(s, &format!("/clusters?format=html{query}")).await
}

/// All metrics of the hub.
pub(crate) async fn metrics(s: &Story) -> anyhow::Result<String> {
    ask(s, "/metrics").await
}

/// Since when the neighbour `edge-2` stands as it does, which is well.
pub(crate) async fn neighbour_since(s: &Story) -> anyhow::Result<Value> {
    let neighbour = cluster(s, "edge-2").await?;
    ensure!(neighbour["state"] == "healthy", "{neighbour}");
    Ok(neighbour["since"].clone())
}

/// Waits until a cluster is shown to stand so, everywhere. At every look the server is ready, and the neighbour, if there is
/// one, as healthy and as freshly asked as ever.
pub(crate) async fn until(s: &Story, id: &str, state: &str) -> anyhow::Result<Value> {
    // Who has just come was not asked yet.
    let was_healthy = cluster(s, "edge-2").await.is_ok_and(|neighbour| neighbour["state"] == "healthy");
    loop {
        ask(s, "/readyz/self").await.context("the server is not ready")?;
        let shown = cluster(s, id).await?;
        if was_healthy && id != "edge-2" {
            let neighbour = cluster(s, "edge-2").await?;
            ensure!(neighbour["state"] == "healthy", "the neighbour: {neighbour}");
            ensure!(
                neighbour["probe"]["ageMs"].as_u64().is_some_and(|age| age <= PROBE_AGE_MAX_MS),
                "the neighbour: {neighbour}"
            );
        }
        if shown["state"] == state {
            is_told(s, id, state).await?;
            return Ok(shown);
        }
        s.pass(millis(100)).await;
    }
}

/// The metric and the page say the same.
async fn is_told(s: &Story, id: &str, state: &str) -> anyhow::Result<()> {
    let line = format!("cluster_healthy{{cluster=\"{id}\"}} {}", u8::from(state == "healthy"));
    let metrics = metrics(s).await?;
    ensure!(metrics.lines().any(|told| told == line), "no {line} in\n{metrics}");
    let page = page(s, &format!("&cluster={id}")).await?;
    ensure!(page.contains(&format!("<tr role=\"row\" class=\"{state}\">")), "{page}");
    Ok(())
}

/// How many requests any program's log tells of.
pub(crate) fn n_requests_told(s: &Story) -> usize {
    let lines = s.trace().lines();
    let of_programs = lines.iter().filter(|line| line.who == "hub/server" || line.who.ends_with("/agent"));
    of_programs.filter(|line| line.what.contains("path=")).count()
}

async fn ask(s: &Story, target: &str) -> anyhow::Result<String> {
    let caller = Caller::clone(&s.kubectl()).quiet();
    Ok(caller.request(Method::GET, target).within(secs(1)).await?.expect(StatusCode::OK)?.text())
}
