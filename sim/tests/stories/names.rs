//! Names: denied, unanswered, leading to the dead first, moved.

use http::StatusCode;
use sim::fabric::Wan;
use sim::middlebox::Middlebox;
use sim::promise::{
    GO_WAITS,
    Promise::{Nothing, Same},
};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;

/// How the resolver's and the way's failures are told in the agent's log.
const FAILED: &str = "failed to connect to the hub";

#[test]
fn a_name_that_is_denied_costs_no_live_session_and_no_more_than_a_moment_after() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Nothing(GO_WAITS), Same).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let lost = s.lose_name("edge-1", "hub");
        s.pass(minutes(5)).await;
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;

        s.reset("hub", "edge-1");
        s.pass(minutes(5)).await;
        let n_dials = n_told(&s, "no such name: hub");
        anyhow::ensure!((60..240).contains(&n_dials), "{n_dials} dials in five minutes");
        drop(lost);

        s.pass(secs(5) + Wan::OCEAN.round_trip() * 6).await;
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_resolver_that_says_nothing_holds_up_a_dial_for_ten_seconds_and_not_for_ever() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        let mute = s.mute_resolver("edge-1");
        s.reset("hub", "edge-1");
        s.pass(minutes(10)).await;
        let n_dials = n_told(&s, "no answer from the resolver for hub");
        // 10 s for the look-up, 5 s at most before the next.
        anyhow::ensure!((40..60).contains(&n_dials), "{n_dials} dials in ten minutes");
        drop(mute);

        s.pass(secs(5) + Wan::OCEAN.round_trip() * 6).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn addresses_of_the_dead_before_that_of_the_living_cost_a_quarter_of_a_second_each() {
    World::new().cluster("edge-1", |c| c.offline().over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        // Silent, unknown to the routers, silent, refusing, silent, silent, alive.
        let targets = ["192.0.2.1", "10.9.9.9", "192.0.2.2", "hub/kubectl", "192.0.2.3", "192.0.2.4", "hub/server"];
        let _moved = s.move_name("edge-1", "hub", &targets);
        s.restart("edge-1/agent");
        s.pass(millis(4 * 250) + Wan::OCEAN.round_trip() * 6).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(n_told(&s, FAILED) == 0, "a dial failed");
        Ok(())
    });
}

#[test]
fn a_hub_that_moves_to_another_address_is_found_there_at_the_next_dial() {
    let world = World::new().hub(|hub| hub.behind(Middlebox::load_balancer())).cluster("edge-1", |c| c.over(Wan::OCEAN));
    world.version_1(Nothing(GO_WAITS), Same).tell(async |s: Story| {
        let moved = s.move_name("edge-1", "hub", &["hub/server"]);
        s.vanish("hub/box");
        // Half-open: the silence limit finds out that nobody is there any more.
        s.pass(secs(65)).await;
        s.kubectl().get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;

        drop(moved);
        s.restart("hub/box");
        s.crash("hub/server");
        s.restart("hub/server");
        s.pass(secs(5)).await;
        s.kubectl().get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
        let through_box = s.fabric().sockets().iter().any(|socket| socket.machine == "hub/box" && socket.peer == "edge-1/agent");
        anyhow::ensure!(through_box, "the agent is not back at the first address");
        Ok(())
    });
}

#[test]
fn a_target_whose_name_nobody_knows_is_told_to_the_caller_in_time() {
    // Nothing has been dialled yet, so that the pool has no connection to spare.
    World::new().unprobed().cluster("edge-1", |c| c).version_1(Nothing("a Go agent has words of its own"), Same).tell(
        async |s: Story| {
            let kubectl = s.kubectl();
            let lost = s.lose_name("edge-1", "kubernetes.default.svc");
            let refused = kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::BAD_GATEWAY)?;
            anyhow::ensure!(refused.text().contains("no such name"), "{}", refused.text());
            drop(lost);
            let mute = s.mute_resolver("edge-1");
            let refused = kubectl.get("edge-1", "/version").within(secs(11)).await?;
            anyhow::ensure!(refused.status.is_server_error(), "{}", refused.status);
            anyhow::ensure!(refused.text().contains("no answer from the resolver"), "{}", refused.text());
            drop(mute);
            kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            Ok(())
        },
    );
}

fn n_told(s: &Story, words: &str) -> usize {
    s.trace().lines().iter().filter(|line| line.who == "edge-1/agent" && line.what.contains(words)).count()
}
