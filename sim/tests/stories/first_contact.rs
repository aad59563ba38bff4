//! From nothing to a first answer, and what that costs.

use http::{Method, StatusCode};
use sim::fabric::Wan;
use sim::story::{Story, Within, millis, secs};
use sim::world::World;

#[test]
fn a_first_get_reaches_the_cluster() {
    World::new().cluster("edge-1", |c| c).tell(async |s: Story| {
        let version = s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(version.text().contains("gitVersion"), "{}", version.text());
        anyhow::ensure!(s.api("edge-1").requests().iter().any(|request| request.target == "/version"));
        Ok(())
    });
}

#[test]
fn a_get_through_a_warm_tunnel_takes_one_round_trip() {
    let wan = Wan::OCEAN.with_round_trip(millis(100));
    World::new().cluster("edge-1", |c| c.over(wan)).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            // The first request pays for connections upstream.
            caller.get("edge-1", "/version").within(secs(5)).await?;
            let reply = caller.get("edge-1", "/api/v1/namespaces").await?.expect(StatusCode::OK)?;
            anyhow::ensure!(reply.took >= millis(100) && reply.took < millis(150), "{:?}", reply.took);
        }
        Ok(())
    });
}

#[test]
fn one_offline_cluster_makes_nothing_else_unready() {
    let world = World::new().cluster("edge-1", |c| c).cluster("ship-7", |c| c.offline());
    world.tell(async |s: Story| {
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

#[test]
fn the_same_seed_gives_the_same_transcript() {
    let play = |seed| {
        let world =
            World::new().seed(seed).cluster("edge-1", |c| c.over(Wan::COFFEE_SHOP)).cluster("ship-7", |c| c.over(Wan::SATELLITE));
        let (result, trace) = world.play(async |s: Story| {
            let (argo, kubectl) = (s.argocd(), s.kubectl());
            for _ in 0..3 {
                argo.list("edge-1", "/api/v1/pods").await?;
                kubectl.get("ship-7", "/version").await?;
            }
            s.reset("hub", "edge-1");
            s.pass(secs(30)).await;
            kubectl.get("edge-1", "/version").await?.expect(StatusCode::OK)?;
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{failure}\n{}", trace.render(usize::MAX)));
        trace.render(usize::MAX)
    };
    let first = play(7);
    for _ in 0..5 {
        assert_eq!(play(7), first);
    }
    assert_ne!(play(8), first);
}
