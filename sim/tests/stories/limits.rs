//! Limits: who asks for too much, holds too much or guesses is slowed down, and nobody else is.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use sim::caller::Reply;
use sim::promise::FRONT_DOOR;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, secs};
use sim::world::World;

#[test]
fn a_cluster_over_its_rate_takes_no_turn_from_another() {
    let world = World::new().hub(|hub| {
        hub.with(|config| {
            config.cluster_rate_limit = 10;
            config.rate_limit = 30;
        })
    });
    let world = world.cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        // A burst of 10, 10 more within the second that a request waits, and the rest is sent away.
        let asked: Vec<_> = (0..100).map(|_| s.start(version_of(&s, "edge-1"))).collect();
        for _ in 0..10 {
            let beside = version_of(&s, "edge-2").within(secs(1)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(beside.took < Duration::from_millis(100), "waited {:?} for somebody else's turn", beside.took);
        }
        let mut replies = Vec::new();
        for reply in asked {
            replies.push(reply.within(secs(5)).await??);
        }
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS).collect();
        anyhow::ensure!(refused.len() == 80, "{} were refused", refused.len());
        let refused = refused.first().context("none was refused")?;
        anyhow::ensure!(refused.text().contains("cluster-rate-limit"), "{}", refused.text());
        // After the time that it names there is a turn.
        s.pass(retry_after(refused)?).await;
        version_of(&s, "edge-1").within(secs(2)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_caller_has_so_many_requests_running_and_an_upgraded_one_counts_until_it_ends() {
    let world = World::new().hub(|hub| hub.with(|config| config.caller_streams_max = 3)).cluster("edge-1", |c| c);
    world.cluster("edge-2", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let pods = "/api/v1/namespaces/default/pods?watch=true";
        let watch = kubectl.get("edge-1", pods).open().within(secs(2)).await?;
        let _other = kubectl.get("edge-2", pods).open().within(secs(2)).await?;
        let exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
        for _ in 0..2 {
            let refused = version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::TOO_MANY_REQUESTS)?;
            anyhow::ensure!(refused.text().contains("caller-streams-max"), "{}", refused.text());
            anyhow::ensure!(retry_after(&refused)? == secs(1), "{:?}", refused.headers);
        }
        drop(exec);
        s.pass(secs(1)).await;
        version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::OK)?;
        let exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
        version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::TOO_MANY_REQUESTS)?;
        drop(watch);
        s.pass(secs(1)).await;
        version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::OK)?;
        drop(exec);
        Ok(())
    });
}

fn version_of(s: &Story, cluster: &str) -> impl Future<Output = anyhow::Result<Reply>> + Send + use<> {
    let call = s.kubectl().get(cluster, "/version");
    async move { call.await }
}

fn retry_after(reply: &Reply) -> anyhow::Result<Duration> {
    let seconds = reply.headers.get("retry-after").context("no Retry-After")?;
    Ok(secs(seconds.to_str()?.parse()?))
}
