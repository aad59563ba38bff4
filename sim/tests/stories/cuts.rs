//! Links that are cut for a while, however long, whoever speaks meanwhile: routable again in time, and what ran goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use sim::caller::Caller;
use sim::fabric::Wan;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;
use tokio::time::Instant;

const LINKS: [Wan; 4] = [
    Wan::LAN,
    // The round trip at which the timers of kernels leave the least time to another session.
    Wan::LAN.with_round_trip(millis(200)),
    Wan::SATELLITE,
    Wan::METERED,
];

/// Who speaks while the link is cut: nobody, a caller once a second, a log.
const CLUSTERS: [&str; 3] = ["idle", "asked", "logged"];

/// How often each cluster is asked after healing.
const ASKED_EVERY: Duration = millis(500);

const NO_SUSPICION: &str = "it waits for its kernel, or for its own limit of silence";

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_2_s() {
    measure(secs(2));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_5_s() {
    measure(secs(5));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_7_s() {
    measure(secs(7));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_10_s() {
    measure(secs(10));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_14_s() {
    measure(secs(14));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_20_s() {
    measure(secs(20));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_26_s() {
    measure(secs(26));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_40_s() {
    measure(secs(40));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_60_s() {
    measure(secs(60));
}

#[test]
fn a_cluster_is_routable_soon_after_a_cut_of_10_min() {
    measure(minutes(10));
}

fn measure(cut: Duration) {
    for wan in LINKS {
        let goal = secs(5) + (wan.round_trip() + 2 * wan.jitter) * 6;
        let world = CLUSTERS.into_iter().fold(World::new(), |world, name| world.cluster(name, |c| c.over(wan)));
        world
            .version_1(Nothing(NO_SUSPICION), Nothing(NO_SUSPICION))
            .tell(async |s: Story| cut_and_heal(&s, cut, goal).await.with_context(|| format!("after {cut:?} of {wan:?}")));
    }
}

/// Each cluster answers somebody within the goal, and from then on everybody at once.
async fn cut_and_heal(s: &Story, cut: Duration, goal: Duration) -> anyhow::Result<()> {
    for cluster in CLUSTERS {
        s.until_reachable(cluster).within(secs(10)).await?;
    }
    let log = s.kubectl().logs_follow("logged", "web-0").start().within(secs(5)).await?;
    s.pass(secs(5)).await;
    let cuts = CLUSTERS.map(|cluster| s.cut("hub", cluster));
    let cut_at = Instant::now();
    let caller = Caller::clone(&s.kubectl()).quiet();
    let mut asked = Vec::new();
    while cut_at.elapsed() < cut {
        asked.push(s.start(caller.get("asked", "/version").into_future()));
        s.pass(secs(1).max(cut / 60).min(cut - cut_at.elapsed())).await;
    }
    drop(cuts);
    let healed_at = Instant::now();
    let mut begun = Vec::new();
    while healed_at.elapsed() <= goal + secs(1) {
        for cluster in CLUSTERS {
            begun.push((cluster, healed_at.elapsed(), s.start(caller.get(cluster, "/version").into_future())));
        }
        s.pass(ASKED_EVERY).await;
    }
    let mut first = BTreeMap::new();
    for (cluster, at, reply) in begun {
        // Who was sent into the dead session waits for it, who was parked for another, and after a long cut nobody is parked.
        let reply = reply.within(minutes(1)).await??;
        if reply.status == StatusCode::OK {
            let first = first.entry(cluster).or_insert(Duration::MAX);
            *first = (at + reply.took).min(*first);
        }
        let at_once = reply.status == StatusCode::OK && reply.took <= millis(500) + goal - secs(5);
        anyhow::ensure!(at < goal || at_once, "{cluster}: {} after {:?}, {at:?} after healing", reply.status, reply.took);
    }
    s.note(&format!("routable again after {first:?}"));
    anyhow::ensure!(first.values().all(|first| *first <= goal), "routable after {first:?}, not {goal:?}");
    for answer in asked {
        // The limit of silence, and a request that was parked before.
        let _ = answer.within(minutes(1)).await?;
    }
    drop(log);
    Ok(())
}

#[test]
fn a_download_and_a_log_outlive_a_cut_of_8_s() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN.with_bytes_per_second(200_000))).version_1(Same, Same).tell(
        async |s: Story| {
            let log = s.kubectl().logs_follow("edge-1", "web-0").start().within(secs(5)).await?;
            let download = s.start(s.argocd().get("edge-1", "/bulk?bytes=2000000").open().await?.read_out(None));
            s.pass(secs(3)).await;
            let cut = s.cut("hub", "edge-1");
            s.pass(secs(8)).await;
            drop(cut);
            anyhow::ensure!(download.within(minutes(1)).await??.n_bytes == 2_000_000, "not all of it came");
            let n_lines = log.n_lines();
            // Longer than any grace.
            s.pass(secs(60)).await;
            log.expect_still_open()?;
            anyhow::ensure!(log.n_lines() > n_lines, "the log stands still");
            Ok(())
        },
    );
}

#[test]
fn a_stall_and_a_paused_agent_change_no_session() {
    World::new().cluster("edge-1", |c| c.over(Wan::METERED)).version_1(Same, Same).tell(async |s: Story| {
        let log = s.kubectl().logs_follow("edge-1", "web-0").start().within(secs(5)).await?;
        for fault in [|s: &Story| s.stall("hub", "edge-1"), |s: &Story| s.pause("edge-1/agent")] {
            s.pass(secs(20)).await;
            let fault = fault(&s);
            s.pass(secs(10)).await;
            drop(fault);
            s.until_reachable("edge-1").within(secs(5)).await?;
        }
        s.pass(secs(10)).await;
        let n_up = s.trace().lines().iter().filter(|line| line.what.contains("session up")).count();
        anyhow::ensure!(n_up <= 1, "{n_up} sessions came up");
        anyhow::ensure!(s.n_sessions().await? == 1, "{} sessions", s.n_sessions().await?);
        log.expect_still_open()
    });
}

#[test]
fn bulk_one_way_on_a_bloated_link_raises_no_suspicion() {
    let wan = Wan::METERED.with_queue(512 * 1024);
    World::new().cluster("edge-1", |c| c.over(wan)).version_1(Same, Same).tell(async |s: Story| {
        let argo = s.argocd();
        let download = s.start(argo.get("edge-1", "/bulk?bytes=3000000").open().await?.read_out(None));
        download.within(minutes(2)).await??;
        argo.post("edge-1", "/upload", "").upload(3_000_000).within(minutes(2)).await?.expect(StatusCode::OK)?;
        let n_suspect = s.trace().lines().iter().filter(|line| line.what.contains("session suspect")).count();
        anyhow::ensure!(n_suspect == 0, "{n_suspect} suspicions");
        Ok(())
    });
}

#[test]
fn a_second_agent_serves_soon_after_the_first_fell_silent() {
    World::new()
        .cluster("edge-1", |c| c.agents(2).over(Wan::OCEAN))
        .version_1(Nothing(NO_SUSPICION), Nothing(NO_SUSPICION))
        .tell(async |s: Story| {
            for agent in ["edge-1/agent", "edge-1/agent-2"] {
                s.until_reachable("edge-1").within(secs(10)).await?;
                let pause = s.pause(agent);
                // The hub's ping, and the time until it suspects.
                s.pass(secs(14)).await;
                for _ in 0..5 {
                    s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
                }
                drop(pause);
            }
            Ok(())
        });
}
