//! From nothing to a first answer, and what that costs.

use http::{Method, StatusCode};
use sim::fabric::Wan;
use sim::promise::{
    FRONT_DOOR,
    Promise::{Less, Nothing, Same},
    TWO_TRIPS,
};
use sim::story::{Story, Within, millis, secs};
use sim::world::World;

#[test]
fn a_first_get_reaches_the_cluster() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let version = s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(version.text().contains("gitVersion"), "{}", version.text());
        anyhow::ensure!(s.api("edge-1").requests().iter().any(|request| request.target == "/version"));
        Ok(())
    });
}

#[test]
fn a_get_through_a_warm_tunnel_takes_one_round_trip() {
    let wan = Wan::OCEAN.with_round_trip(millis(100));
    World::new().cluster("edge-1", |c| c.over(wan)).version_1(Less(TWO_TRIPS), Less(TWO_TRIPS)).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            // The first request pays for connections upstream.
            caller.get("edge-1", "/version").within(secs(5)).await?;
            let reply = caller.get("edge-1", "/api/v1/namespaces").await?.expect(StatusCode::OK)?;
            let trips = if s.claims_less() { 2 } else { 1 };
            anyhow::ensure!(
                reply.took >= millis(100) * trips && reply.took < millis(100) * trips + millis(50),
                "{:?}",
                reply.took
            );
        }
        Ok(())
    });
}

#[test]
fn one_offline_cluster_makes_nothing_else_unready() {
    let world = World::new().cluster("edge-1", |c| c).cluster("ship-7", |c| c.offline());
    world.version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let refused = kubectl.get("ship-7", "/version").within(secs(15)).await?;
        anyhow::ensure!([502, 503].contains(&refused.status.as_u16()), "{}", refused.status);
        anyhow::ensure!(refused.text().contains("\"Status\""), "{}", refused.text());
        kubectl.request(Method::GET, "/readyz/self").await?.expect(StatusCode::OK)?;
        kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;

        s.restart("ship-7/agent");
        let late = async {
            while kubectl.get("ship-7", "/version").await?.status != StatusCode::OK {
                s.pass(millis(100)).await;
            }
            Ok(())
        };
        late.within(secs(5)).await
    });
}
