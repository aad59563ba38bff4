//! Argo CD, for whom this is built: caches of everything, lists that never end, and what it notices of our misfortunes.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use sim::argocd::ClusterCache;
use sim::fabric::Wan;
use sim::promise::GO_WAITS;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, minutes, rps, secs};
use sim::world::World;

/// What is there beside the extra kinds, as Argo CD counts.
const COMMON_KINDS: usize = 10;

/// Why a version 1 agent promises nothing: all its streams send at once.
const NO_SCHEDULE: &str = "it sends what comes first, bulk or not";

/// A tunnel is up again: five seconds and six round trips. Then a refused request is repeated after a second, and a
/// broken watch after another.
const WHOLE_AGAIN: Duration = secs(5).saturating_add(millis(600)).saturating_add(secs(2));

/// An ocean with a round trip of 100 ms.
fn ocean() -> Wan {
    Wan::OCEAN.with_round_trip(millis(100))
}

async fn warm(s: &Story, cluster: &str) -> anyhow::Result<ClusterCache> {
    let cache = s.argocd().cache(cluster);
    s.until("the cache is warm", || cache.is_warm() && s.api(cluster).n_watches() == cache.n_kinds()).within(secs(10)).await?;
    cache.expect_equal(&s.api(cluster))?;
    Ok(cache)
}

/// Changes objects of a few kinds for a while: some come, some change, some go.
async fn churn(s: &Story, cluster: &str, time: Duration) {
    let (api, steps) = (s.api(cluster), time.as_millis() / 500);
    for n in 0..steps {
        for plural in ["configmaps", "secrets", "widgets0", "widgets1"] {
            api.put(plural, "default", &format!("c-{}", n % 7), json!({ "data": {} }));
            if n % 5 == 0 {
                api.delete(plural, "default", &format!("c-{}", n % 3));
            }
        }
        s.pass(millis(500)).await;
    }
}

async fn equal(s: &Story, cache: &ClusterCache, cluster: &str, limit: Duration) -> anyhow::Result<()> {
    s.until("the cache is equal", || cache.equals(&s.api(cluster))).within(limit).await?;
    cache.expect_equal(&s.api(cluster))
}

#[test]
fn a_cache_of_150_kinds_is_warm_in_seconds_and_stays_equal() {
    World::new().cluster("edge-1", |c| c.over(ocean()).extra_kinds(150 - COMMON_KINDS)).version_1(Same, Same).tell(
        async |s: Story| {
            let cache = warm(&s, "edge-1").await?;
            anyhow::ensure!(cache.n_kinds() == 150, "{} kinds", cache.n_kinds());
            churn(&s, "edge-1", secs(5)).await;
            equal(&s, &cache, "edge-1", millis(500)).await?;
            let counts = cache.counts();
            anyhow::ensure!((counts.n_lists, counts.n_watches, counts.n_failures) == (150, 150, 0), "{counts:?}");
            Ok(())
        },
    );
}

#[test]
fn an_hour_of_relists_leaves_no_watch_behind() {
    World::new()
        .cluster("edge-1", |c| c.over(ocean()).extra_kinds(5))
        .version_1(Nothing("a Go agent reads on what its caller has left"), Same)
        .tell(async |s: Story| {
            let cache = warm(&s, "edge-1").await?;
            for _ in 0..60 {
                s.pass(minutes(1)).await;
                churn(&s, "edge-1", millis(500)).await;
                let n_watches = s.api("edge-1").n_watches();
                anyhow::ensure!(n_watches <= cache.n_kinds(), "{n_watches} watches of {} kinds", cache.n_kinds());
            }
            let all = || s.api("edge-1").n_watches() == cache.n_kinds();
            s.until("every kind is watched", all).within(secs(3)).await?;
            equal(&s, &cache, "edge-1", secs(1)).await?;
            let counts = cache.counts();
            // Each kind at least every ten minutes.
            anyhow::ensure!(counts.n_lists >= 6 * cache.n_kinds() && counts.n_failures == 0, "{counts:?}");
            Ok(())
        });
}

#[test]
fn a_cache_is_equal_again_soon_after_a_cut_of_a_minute() {
    World::new().cluster("edge-1", |c| c.over(ocean()).extra_kinds(10)).version_1(Nothing(GO_WAITS), Same).tell(
        async |s: Story| {
            let cache = warm(&s, "edge-1").await?;
            churn(&s, "edge-1", secs(2)).await;
            let cut = s.cut("hub", "edge-1");
            churn(&s, "edge-1", minutes(1)).await;
            anyhow::ensure!(!cache.equals(&s.api("edge-1")), "a cut that cuts nothing");
            drop(cut);
            equal(&s, &cache, "edge-1", WHOLE_AGAIN).await
        },
    );
}

#[test]
fn a_cache_is_equal_again_soon_after_the_agent_or_the_server_died() {
    World::new().cluster("edge-1", |c| c.over(ocean()).extra_kinds(10)).version_1(Same, Same).tell(async |s: Story| {
        let cache = warm(&s, "edge-1").await?;
        for machine in ["edge-1/agent", "hub/server"] {
            s.crash(machine);
            churn(&s, "edge-1", secs(3)).await;
            s.restart(machine);
            churn(&s, "edge-1", secs(2)).await;
            equal(&s, &cache, "edge-1", WHOLE_AGAIN).await?;
        }
        Ok(())
    });
}

#[test]
fn a_cache_whose_versions_are_forgotten_lists_again() {
    World::new().cluster("edge-1", |c| c.over(ocean()).extra_kinds(2)).version_1(Same, Same).tell(async |s: Story| {
        let cache = warm(&s, "edge-1").await?;
        s.pass(secs(1)).await;
        s.reset("hub", "edge-1");
        churn(&s, "edge-1", secs(1)).await;
        s.api("edge-1").compact();
        equal(&s, &cache, "edge-1", WHOLE_AGAIN + secs(1)).await?;
        let counts = cache.counts();
        anyhow::ensure!(counts.n_gone == cache.n_kinds() && counts.n_lists == 2 * cache.n_kinds(), "{counts:?}");
        Ok(())
    });
}

#[test]
fn a_relist_storm_of_four_clusters_delays_no_kubectl() {
    let clusters = ["edge-1", "edge-2", "edge-3", "edge-4"];
    // A list of pods takes a second and more.
    let wan = ocean().with_bytes_per_second(300_000);
    let world = clusters.iter().fold(World::new(), |world, id| world.cluster(id, |c| c.over(wan).pods(600).extra_kinds(5)));
    world.version_1(Nothing(NO_SCHEDULE), Nothing("it serves one cluster only")).tell(async |s: Story| {
        let mut caches = Vec::new();
        for cluster in clusters {
            let cache = s.argocd().cache(cluster);
            s.until("the cache is warm", || cache.is_warm()).within(secs(20)).await?;
            caches.push(cache);
        }
        caches.iter().for_each(ClusterCache::invalidate);
        s.pass(millis(100)).await;
        let kubectl = s.kubectl();
        for n in 0..40 {
            let reply = kubectl.get(clusters[n % 4], "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(reply.took < millis(400), "request {n} took {:?} in a storm", reply.took);
        }
        for (cache, cluster) in caches.iter().zip(clusters) {
            equal(&s, cache, cluster, secs(20)).await?;
            anyhow::ensure!(cache.counts().n_lists == 2 * cache.n_kinds(), "{:?}", cache.counts());
        }
        Ok(())
    });
}

#[test]
fn a_drained_agent_drops_no_request_of_a_steady_load_while_another_is_there() {
    World::new()
        .cluster("edge-1", |c| c.over(ocean()).agents(2))
        .version_1(Same, Nothing("it knows one agent of a cluster"))
        .tell(async |s: Story| {
            let load = s.argocd().steady("edge-1", rps(50));
            for agent in ["edge-1/agent", "edge-1/agent-2"] {
                s.pass(secs(1)).await;
                s.drain(agent);
                s.until("the agent has ended", || s.machine(agent).tasks().is_empty()).within(secs(31)).await?;
                s.restart(agent);
                s.pass(secs(2)).await;
            }
            let outcome = async { Ok(load.stop().await) }.within(secs(10)).await?;
            anyhow::ensure!(outcome.n_requests > 250 && outcome.slowest < secs(1), "{outcome:?}");
            outcome.expect_no_failures()
        });
}

#[test]
fn a_restarted_server_fails_no_read_of_a_steady_load_and_hangs_no_write() {
    World::new()
        .cluster("edge-1", |c| c.over(ocean()))
        .version_1(Same, Nothing("a Go server ends at once when it is told to"))
        .tell(async |s: Story| {
            let load = s.argocd().steady("edge-1", rps(50));
            s.pass(secs(1)).await;
            s.drain("hub/server");
            s.until("the server has ended", || s.machine("hub/server").tasks().is_empty()).within(secs(31)).await?;
            // A new process needs a moment, in which the only replica is none.
            s.pass(secs(2)).await;
            s.restart("hub/server");
            s.pass(secs(8)).await;
            let outcome = async { Ok(load.stop().await) }.within(secs(30)).await?;
            // A read goes on until it is answered. A write goes on as long as it is told to; once its dial is refused it fails,
            // since client-go repeats no write on its own account.
            for trouble in &outcome.failures {
                anyhow::ensure!(trouble.why.contains("PATCH") && trouble.why.contains("refused"), "{trouble:?}");
                anyhow::ensure!(trouble.took < secs(2), "{trouble:?}");
            }
            anyhow::ensure!((1..=20).contains(&outcome.failures.len()), "{} writes failed", outcome.failures.len());
            anyhow::ensure!(outcome.slowest < secs(15), "{:?}", outcome.slowest);
            Ok(())
        });
}
