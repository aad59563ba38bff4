//! Programs that end because they were asked to.

use http::{Method, StatusCode};
use sim::promise::FRONT_DOOR;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, secs};
use sim::world::World;

#[test]
fn a_drained_server_finishes_what_runs() {
    World::new()
        .cluster("edge-1", |c| c.pods(1000))
        .version_1(Same, Nothing("a Go server ends at once when it is told to"))
        .tell(async |s: Story| {
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
fn a_caller_that_comes_to_a_drained_server_is_sent_away_over_http_2_too() {
    World::new().cluster("edge-1", |c| c.pods(1000)).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let list = s.kubectl().get("edge-1", "/api/v1/pods").open().within(secs(5)).await?;
        let reading = s.start(list.read_out(Some(100_000)));
        s.pass(secs(1)).await;
        s.drain("hub/server");
        let late = s.argocd();
        let refused = late.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
        anyhow::ensure!(refused.headers.contains_key("retry-after"), "{refused:?}");
        // Its next request goes over a new connection, which another replica takes.
        let is_there = || s.fabric().sockets().iter().any(|socket| socket.machine == "hub/argocd");
        s.until("the late connection is closed", || !is_there()).within(secs(1)).await?;
        reading.within(secs(25)).await??;
        Ok(())
    });
}

#[test]
fn a_server_that_leaves_its_service_serves_as_before_until_it_drains() {
    let world = World::new().cluster("edge-1", |c| c).hub(|hub| hub.with(|config| config.leave = secs(5)));
    world.version_1(Same, Nothing("a Go server ends at once when it is told to")).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let is_ready = async || anyhow::Ok(kubectl.request(Method::GET, "/readyz/self").within(secs(1)).await?.status);
        anyhow::ensure!(is_ready().await? == StatusCode::OK);
        s.drain("hub/server");
        for _ in 0..45 {
            // What still arrives here is served, by sessions that nobody has told to go.
            anyhow::ensure!(is_ready().await? == StatusCode::SERVICE_UNAVAILABLE);
            kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            s.pass(millis(100)).await;
        }
        s.until("the server has ended", || s.machine("hub/server").tasks().is_empty()).within(secs(3)).await?;
        Ok(())
    });
}

#[test]
fn a_drained_agent_finishes_what_runs_while_another_takes_the_new() {
    World::new().cluster("edge-1", |c| c.pods(1000).agents(2)).version_1(Same, Nothing("it knows one agent of a cluster")).tell(
        async |s: Story| {
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
        },
    );
}

#[test]
fn a_caller_that_comes_during_a_drain_is_refused_once_and_not_kept() {
    let world =
        World::new().cluster("edge-1", |c| c.pods(1000)).version_1(Same, Nothing("a Go server ends at once when it is told to"));
    world.tell(async |s: Story| {
        let list = s.kubectl().get("edge-1", "/api/v1/pods").open().within(secs(5)).await?;
        let reading = s.start(list.read_out(Some(200_000)));
        s.pass(secs(1)).await;
        s.drain("hub/server");

        // Kept, its connection would be refused for as long as it lives while another replica waits for it.
        let late = s.argocd();
        late.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
        let sockets = || s.fabric().sockets();
        let is_kept = || sockets().iter().any(|socket| socket.machine == "hub/server" && socket.peer == "hub/argocd");
        s.until("the late connection is closed", || !is_kept()).within(secs(1)).await?;
        reading.within(secs(25)).await??;
        Ok(())
    });
}
