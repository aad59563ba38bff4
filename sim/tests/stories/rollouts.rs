//! Programs that end because they were asked to.

use http::StatusCode;
use sim::story::{Story, Within, millis, secs};
use sim::world::World;

#[test]
fn a_drained_server_finishes_what_runs() {
    World::new().cluster("edge-1", |c| c.pods(1000)).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            let list = caller.get("edge-1", "/api/v1/pods").open().within(secs(5)).await?;
            let reading = s.start(list.read_out(Some(200_000)));
            s.pass(secs(1)).await;

            s.drain("hub/server");

            let list = reading.within(secs(25)).await??;
            anyhow::ensure!(list.took > secs(3), "the list was over before the drain began");
            s.until("the server has ended", || s.machine("hub/server").tasks().is_empty()).within(secs(30)).await?;
            s.restart("hub/server");
            s.pass(secs(10)).await;
            caller.get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn a_drained_agent_finishes_what_runs_while_another_takes_the_new() {
    World::new().cluster("edge-1", |c| c.pods(1000).agents(2)).tell(async |s: Story| {
        let argo = s.argocd();
        let list = argo.get("edge-1", "/api/v1/pods").open().within(secs(5)).await?;
        let reading = s.start(list.read_out(Some(200_000)));
        s.pass(secs(1)).await;
        for agent in ["edge-1/agent", "edge-1/agent-2"] {
            s.drain(agent);
            for _ in 0..50 {
                argo.get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
                s.pass(millis(20)).await;
            }
            s.until("the agent has ended", || s.machine(agent).tasks().is_empty()).within(secs(31)).await?;
            s.restart(agent);
            s.pass(secs(3)).await;
        }
        reading.within(secs(1)).await??;
        Ok(())
    });
}
