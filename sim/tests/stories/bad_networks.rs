//! Networks that lie: half-open connections, silence, refusals for hours.

use std::time::Duration;

use http::StatusCode;
use sim::fabric::Wan;
use sim::story::{Story, Within, minutes, secs};
use sim::world::World;

#[test]
fn a_newer_session_survives_the_older_ones_cleanup() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).tell(async |s: Story| {
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
    World::new().cluster("edge-1", |c| c).tell(async |s: Story| {
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
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).tell(async |s: Story| {
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
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).tell(async |s: Story| {
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
    World::new().cluster("edge-1", |c| c).tell(async |s: Story| {
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
fn an_idle_tunnel_costs_a_metered_link_little() {
    World::new().cluster("edge-1", |c| c.over(Wan::METERED)).tell(async |s: Story| {
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
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).tell(async |s: Story| {
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
