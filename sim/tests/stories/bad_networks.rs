//! Networks that lie: half-open connections, silence, refusals for hours.

use std::time::Duration;

use http::StatusCode;
use sim::fabric::Wan;
use sim::promise::{
    GO_WAITS, NO_CREDIT, NO_PARKING,
    Promise::{Nothing, Same},
};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;

#[test]
fn a_newer_session_survives_the_older_ones_cleanup() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        // The hub still believes in the session of a machine that lost its power when its next one is there.
        s.vanish("edge-1/agent");
        s.restart("edge-1/agent");
        let kubectl = s.kubectl();
        for _ in 0..120 {
            s.pass(secs(1)).await;
            kubectl.get("edge-1", "/version").within(minutes(1)).await?.expect(StatusCode::OK)?;
        }
        anyhow::ensure!(s.n_sessions().await? == 1, "the older session is still there");
        Ok(())
    });
}

#[test]
fn an_agent_that_comes_and_goes_a_hundred_times_is_reachable_each_time() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(NO_PARKING)).tell(async |s: Story| {
        let argo = s.argocd();
        for _ in 0..100 {
            s.crash("edge-1/agent");
            s.restart("edge-1/agent");
            argo.get("edge-1", "/version").within(secs(10)).await?.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn a_silent_peer_is_replaced() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        let night = s.cut("hub", "edge-1");
        // Three pings unheard, one more to notice.
        let forgotten = async {
            while s.n_sessions().await? > 0 {
                s.pass(secs(1)).await;
            }
            Ok(())
        };
        forgotten.within(secs(60)).await?;
        s.pass(minutes(10)).await;
        drop(night);
        s.pass(secs(15)).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(s.n_sessions().await? == 1, "{} sessions", s.n_sessions().await?);
        Ok(())
    });
}

#[test]
fn a_short_stall_breaks_nothing() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        let stall = s.stall("hub", "edge-1");
        let late = s.start(s.kubectl().get("edge-1", "/version").into_future());
        s.pass(secs(20)).await;
        drop(stall);
        late.within(secs(1)).await??.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn an_agent_that_was_paused_answers_late_and_well() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let kubectl = s.kubectl();
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        let pause = s.pause("edge-1/agent");
        let late = s.start(kubectl.get("edge-1", "/version").into_future());
        s.pass(secs(20)).await;
        drop(pause);
        late.within(secs(1)).await??.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_way_that_gets_much_worse_slows_everybody_down_and_breaks_nothing() {
    World::new()
        .unprobed()
        .cluster("edge-1", |c| c.over(Wan::OCEAN).pods(300))
        .version_1(Nothing(NO_CREDIT), Nothing(NO_CREDIT))
        .tell(async |s: Story| {
            let (argo, kubectl) = (s.argocd(), s.kubectl());
            kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            let tunnel = s.degrade("hub", "edge-1", Wan::METERED.with_round_trip(millis(1200)));
            let bulk = s.start(argo.get("edge-1", "/bulk?bytes=2000000").open().await?.read_out(None));
            for _ in 0..10 {
                let reply = kubectl.get("edge-1", "/version").within(secs(10)).await?.expect(StatusCode::OK)?;
                // A round trip, and half a second of the modem's queue at 1 Mbit/s, and what lies below our scheduler.
                anyhow::ensure!(reply.took > millis(1200) && reply.took < millis(3000), "{:?}", reply.took);
                s.pass(secs(1)).await;
            }
            anyhow::ensure!(bulk.within(minutes(1)).await??.n_bytes == 2_000_000, "not all of it came");
            s.pass(minutes(5)).await;
            drop(tunnel);

            let reply = kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(reply.took < millis(150), "{:?}", reply.took);
            anyhow::ensure!(n_down(&s) == 0, "the session was lost");
            Ok(())
        });
}

#[test]
fn a_reset_is_noticed_at_once_at_both_ends_and_costs_a_moment() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Nothing(NO_PARKING)).tell(async |s: Story| {
        let kubectl = s.kubectl();
        for _ in 0..5 {
            // Calm, so that the next back-off begins afresh.
            s.pass(secs(31)).await;
            let running = s.start(kubectl.get("edge-1", "/silent").into_future());
            s.pass(millis(200)).await;

            s.reset("hub", "edge-1");

            anyhow::ensure!(!running.within(millis(50)).await?.is_ok_and(|reply| reply.status == StatusCode::OK));
            // Half a second of jitter at most, and a dial.
            kubectl.get("edge-1", "/version").within(millis(500) + Wan::OCEAN.round_trip() * 6).await?.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn an_agent_that_was_paused_beyond_the_silence_limit_is_given_up_and_is_back_when_it_wakes() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        let kubectl = s.kubectl();
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        let pause = s.pause("edge-1/agent");
        let hung = s.start(kubectl.get("edge-1", "/version").into_future());
        // The silence limit, and the ping interval that may lie before its beginning.
        let refused = hung.within(secs(45 + 15)).await??;
        anyhow::ensure!(refused.status.is_server_error(), "{}", refused.status);
        s.pass(minutes(5)).await;
        anyhow::ensure!(s.n_sessions().await? == 0, "nobody is there and somebody is believed to be");
        drop(pause);
        s.pass(secs(5) + Wan::OCEAN.round_trip() * 6).await;
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(s.n_sessions().await? == 1, "{} sessions", s.n_sessions().await?);
        Ok(())
    });
}

#[test]
fn a_server_that_was_paused_beyond_the_silence_limit_has_its_agents_back_when_it_wakes() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Nothing(GO_WAITS), Same).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let mut watch = kubectl.get("edge-1", "/api/v1/pods?watch=true").open().within(secs(1)).await?;
        watch.line().within(secs(1)).await?;
        let pause = s.pause("hub/server");
        let hung = s.start(kubectl.get("edge-1", "/version").into_future());
        s.pass(minutes(5)).await;
        let given_up = s.trace().lines().iter().any(|line| line.who == "edge-1/agent" && line.what.contains("session down"));
        anyhow::ensure!(given_up, "the agent believes in a hub that says nothing");
        anyhow::ensure!(s.api("edge-1").n_watches() == 0, "a watch runs for a hub that is not there");
        drop(pause);

        // Without a length only the framing says whether a body is whole.
        let ending = async {
            while let Ok(line) = watch.line().await {
                anyhow::ensure!(line.is_some(), "a broken watch ended as if whole");
            }
            Ok(())
        };
        ending.within(secs(1)).await?;
        // What was asked of it while it slept is answered one way or another.
        hung.within(secs(11)).await??;
        s.pass(secs(5) + Wan::OCEAN.round_trip() * 6).await;
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        // The dials that it slept through are no sessions.
        s.pass(secs(60)).await;
        anyhow::ensure!(s.n_sessions().await? == 1, "{} sessions", s.n_sessions().await?);
        Ok(())
    });
}

#[test]
fn an_idle_tunnel_costs_a_metered_link_little() {
    World::new().unprobed().cluster("edge-1", |c| c.over(Wan::METERED)).version_1(Same, Same).tell(async |s: Story| {
        let n_bytes = || s.fabric().n_bytes("hub", "edge-1") + s.fabric().n_bytes("edge-1", "hub");
        let before = n_bytes();
        s.pass(minutes(60)).await;
        let an_hour = n_bytes() - before;
        // A ping and its answer each way every 15 s, a dozen bytes each.
        anyhow::ensure!((1..20_000).contains(&an_hour), "{an_hour} bytes an hour");
        Ok(())
    });
}

#[test]
fn the_agent_retries_for_ever_with_full_jitter() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Nothing(GO_WAITS), Same).tell(async |s: Story| {
        let refusal = s.refuse("hub/server");
        s.reset("hub", "edge-1");
        s.pass(minutes(60)).await;
        let dials: Vec<Duration> =
            s.trace().lines().into_iter().filter(|line| line.what.starts_with("dial ")).map(|line| line.at).collect();
        let waits: Vec<Duration> = dials.windows(2).map(|pair| pair[1] - pair[0]).skip(20).collect();
        // Nobody answered, so the ceiling is 5 s and the mean half of it; a dial itself takes a tenth of a second.
        let mean = waits.iter().sum::<Duration>() / waits.len().max(1) as u32;
        anyhow::ensure!((secs(2)..secs(3)).contains(&mean), "the mean wait is {mean:?} of {}", waits.len());
        anyhow::ensure!(waits.iter().all(|wait| *wait < Duration::from_millis(5200)), "{:?}", waits.iter().max());
        let n_short = waits.iter().filter(|wait| **wait < secs(1)).count();
        anyhow::ensure!(n_short * 10 > waits.len(), "waits are not spread: {n_short} of {} are short", waits.len());

        drop(refusal);
        s.pass(secs(6)).await;
        s.kubectl().get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

/// How often somebody lost a session.
fn n_down(s: &Story) -> usize {
    s.trace().lines().iter().filter(|line| line.what.contains("session down")).count()
}
