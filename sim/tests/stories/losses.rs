//! What is lost with a session, and what is not.

use http::StatusCode;
use sim::fabric::Wan;
use sim::promise::{
    NO_PARKING,
    Promise::{Nothing, Same},
};
use sim::story::{Story, Within, millis, secs};
use sim::world::World;

#[test]
fn every_pending_request_ends_soon_after_its_session_is_lost() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Nothing(NO_PARKING)).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            caller.get("edge-1", "/version").within(secs(10)).await?.expect(StatusCode::OK)?;
            // An answer whose pieces are an hour apart.
            let pending: Vec<_> = (0..20)
                .map(|n| s.start(caller.get("edge-1", &format!("/bulk?bytes=32768&pause_ms=3600000&n={n}")).into_future()))
                .collect();
            s.pass(secs(5)).await;

            s.crash("edge-1/agent");
            for request in pending {
                // Begun answers are aborted, others refused; none hangs and none is whole.
                let whole = request.within(secs(1)).await?.is_ok_and(|reply| reply.status == StatusCode::OK);
                anyhow::ensure!(!whole, "an answer came from a dead agent");
            }
            s.restart("edge-1/agent");
        }
        Ok(())
    });
}

#[test]
fn parked_requests_of_one_lost_cluster_leave_room_for_anothers() {
    let world = World::new().hub(|hub| hub.with(|config| config.park_requests_max = 100));
    let world = world.cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Same, Nothing(NO_PARKING)).tell(async |s: Story| {
        s.crash("edge-1/agent");
        s.pass(secs(1)).await;
        let argo = s.argocd();
        let crowd: Vec<_> = (0..100).map(|_| s.start(argo.get("edge-1", "/version").into_future())).collect();
        s.pass(secs(1)).await;
        s.crash("edge-2/agent");
        s.pass(secs(1)).await;
        let kubectl = s.kubectl();
        let waits = s.start(async move { kubectl.get("edge-2", "/version").await });
        s.pass(secs(1)).await;
        s.restart("edge-2/agent");
        s.restart("edge-1/agent");

        waits.within(secs(5)).await??.expect(StatusCode::OK)?;
        let mut n_answered = 0;
        for request in crowd {
            let reply = request.within(secs(5)).await??;
            anyhow::ensure!(reply.status == StatusCode::OK || reply.text().contains("ParkingFull"), "{}", reply.text());
            n_answered += usize::from(reply.status == StatusCode::OK);
        }
        anyhow::ensure!(n_answered == 50, "{n_answered} requests of a cluster that was lost alone were parked");
        Ok(())
    });
}

#[test]
fn every_pending_request_ends_within_the_silence_limit_when_nobody_tells_of_the_loss() {
    let world = World::new()
        .hub(|hub| hub.with(|config| config.silence_max = secs(20)))
        .cluster("edge-1", |c| c.over(Wan::OCEAN).with(|config| config.silence_max = secs(20)));
    world.version_1(Same, Nothing("its limit of silence is its own, and cannot be set")).tell(async |s: Story| {
        let caller = s.kubectl();
        let slow = "/bulk?bytes=32768&pause_ms=3600000";
        let pending: Vec<_> = (0..5).map(|_| s.start(caller.get("edge-1", slow).into_future())).collect();
        s.pass(secs(5)).await;

        let night = s.cut("hub", "edge-1");
        for request in pending {
            // The ping interval may lie between the last byte and the cut.
            let whole = request.within(secs(40)).await?.is_ok_and(|reply| reply.status == StatusCode::OK);
            anyhow::ensure!(!whole, "an answer came through a cut");
        }
        drop(night);
        Ok(())
    });
}

#[test]
fn a_hostile_agent_harms_no_other_cluster() {
    let world = World::new().cluster("edge-1", |c| c).cluster("ship-7", |c| c.offline().hostile());
    world.version_1(Same, Nothing("the recorded one panics at a second Connected, and all clusters lose it")).tell(
        async |s: Story| {
            let (kubectl, argo) = (s.kubectl(), s.argocd());
            s.restart("ship-7/agent");
            for _ in 0..200 {
                s.pass(millis(50)).await;
                for caller in [&*kubectl, &*argo] {
                    let reply = caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
                    anyhow::ensure!(reply.took < millis(50), "{:?}", reply.took);
                }
            }
            // Its own callers are told in time that there is no agent to speak of.
            let refused = kubectl.get("ship-7", "/version").within(secs(11)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
            anyhow::ensure!(refused.text().contains("the agent of cluster ship-7 is offline"), "{}", refused.text());
            Ok(())
        },
    );
}
