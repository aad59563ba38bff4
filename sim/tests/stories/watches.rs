//! Watches, the scarce resource: each ends everywhere when it ends anywhere.

use anyhow::Context;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, secs};
use sim::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[test]
fn a_watch_ends_upstream_when_its_caller_leaves() {
    World::new()
        .cluster("edge-1", |c| c)
        .version_1(Nothing("what its caller has left goes on upstream until the session ends"), Same)
        .tell(async |s: Story| {
            for caller in [&*s.kubectl(), &*s.argocd()] {
                let mut watch = caller.get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(2)).await?;
                watch.line().within(secs(1)).await?.context("a watch without a first event")?;
                anyhow::ensure!(s.api("edge-1").n_watches() == 1);

                drop(watch);

                s.until("no watch runs upstream", || s.api("edge-1").n_watches() == 0).within(secs(1)).await?;
            }
            Ok(())
        });
}

#[test]
fn a_watch_is_aborted_not_hung_and_not_ended_when_its_agent_dies() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            let mut watch = caller.get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(10)).await?;
            watch.line().within(secs(1)).await?.context("a watch without a first event")?;
            s.crash("edge-1/agent");
            // Without a length only the framing says whether a body is whole.
            let ending = async {
                loop {
                    match watch.line().await {
                        Ok(Some(_)) => {}
                        Ok(None) => anyhow::bail!("a broken watch ended as if whole"),
                        Err(_) => return Ok(()),
                    }
                }
            };
            ending.within(secs(2)).await?;
            s.restart("edge-1/agent");
            s.until_reachable("edge-1").within(secs(10)).await?;
        }
        Ok(())
    });
}
