//! What stories of several subjects claim alike, of watches and of what was said.

use anyhow::Context;
use serde_json::json;
use sim::caller::Answer;
use sim::story::Story;

/// The hub's listeners, for callers and for agents.
pub(crate) const INTERNAL: u16 = 8080;
pub(crate) const PUBLIC: u16 = 8443;

/// A watch is broken off, and not as if it were whole.
pub(crate) async fn aborted(watch: &mut Answer) -> anyhow::Result<()> {
    loop {
        match watch.line().await {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("a broken watch ended as if it were whole"),
            Err(_) => return Ok(()),
        }
    }
}

/// A watch tells of `name`.
pub(crate) async fn heard(watch: &mut Answer, name: &str) -> anyhow::Result<()> {
    while !watch.line().await?.context("the watch ended")?.contains(name) {}
    Ok(())
}

/// One pod more in the namespace `default`.
pub(crate) fn add_pod(s: &Story, cluster: &str, name: &str) {
    s.api(cluster).put("pods", "default", name, json!({ "spec": { "containers": [{ "name": "main", "image": "none" }] } }));
}

/// Somebody has said it.
pub(crate) fn heard_of(s: &Story, who: &str, what: &str) -> anyhow::Result<()> {
    let found = s.trace().lines().into_iter().any(|line| line.who == who && line.what.contains(what));
    anyhow::ensure!(found, "{who} says nothing of {what:?}");
    Ok(())
}
