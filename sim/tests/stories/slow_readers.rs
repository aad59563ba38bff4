//! Readers that do not read: what they cost us, and what they cost their neighbours.

use anyhow::Context;
use http::{Method, StatusCode};
use sim::caller::Protocol;
use sim::fabric::{NOTSENT_LOWAT, Wan};
use sim::promise::NO_CREDIT;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, mib, millis, minutes, secs};
use sim::world::World;

/// A small budget, so that a list of a few thousand pods is far beyond it.
const BUDGET: usize = mib(1) as usize;

/// What the kernels hold on the three ways between API server and caller: receive windows of LANs and what is unsent.
const KERNELS: u64 = 3 * (256 * 1024 + NOTSENT_LOWAT as u64);

/// HTTP/2 windows and body pieces at the API server's, the agent's and the caller's.
const HTTP: u64 = 3 * 256 * 1024;

#[test]
fn a_stalled_reader_costs_no_more_than_the_budget() {
    let world = World::new()
        .hub(|hub| hub.with(|config| config.session_budget = BUDGET))
        .cluster("edge-1", |c| c.pods(6000).with(|config| config.session_budget = BUDGET));
    world.version_1(Nothing(NO_CREDIT), Nothing(NO_CREDIT)).tell(async |s: Story| {
        let before = s.fabric().n_bytes("edge-1", "edge-1");
        let list = s.kubectl().get("edge-1", "/api/v1/pods").open().within(secs(20)).await?;
        s.pass(minutes(2)).await;
        let n_taken = s.fabric().n_bytes("edge-1", "edge-1") - before;
        let n_allowed = 2 * BUDGET as u64 + KERNELS + HTTP;
        anyhow::ensure!(n_taken < n_allowed, "{n_taken} bytes left the API server, {n_allowed} may");
        // Slow is not broken: it all comes when it is read.
        let whole = list.read_out(None).within(minutes(5)).await?;
        anyhow::ensure!(whole.n_bytes as u64 > n_allowed * 3 / 2, "a list of {} bytes proves nothing", whole.n_bytes);
        Ok(())
    });
}

#[test]
fn many_stalled_lists_do_not_delay_a_get() {
    let wan = Wan::OCEAN.with_round_trip(millis(100));
    let world = World::new().cluster("edge-1", |c| c.pods(1500).over(wan));
    world.version_1(Nothing(NO_CREDIT), Nothing(NO_CREDIT)).tell(async |s: Story| {
        let (argo, kubectl) = (s.argocd(), s.kubectl());
        // Over HTTP/1.1, where no window of the caller's swallows a whole list.
        let stalled_caller = argo.over(Protocol::Http1);
        let whole = argo.get("edge-1", "/api/v1/pods").open().await?.read_out(None).within(secs(30)).await?;
        let before = s.fabric().n_bytes("edge-1", "edge-1");
        let mut stalled = Vec::new();
        for _ in 0..30 {
            stalled.push(stalled_caller.get("edge-1", "/api/v1/pods").open().within(secs(30)).await?);
        }
        s.pass(minutes(1)).await;
        let n_taken = s.fabric().n_bytes("edge-1", "edge-1") - before;
        anyhow::ensure!(n_taken < 27 * whole.n_bytes as u64, "{n_taken} bytes left the API server: few lists are stalled");
        for caller in [&*argo, &*kubectl] {
            caller.get("edge-1", "/version").within(secs(1)).await?;
            let reply = caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(reply.took < millis(150), "{:?}", reply.took);
        }
        Ok(())
    });
}

#[test]
fn what_an_agent_says_is_heard_while_our_own_writes_are_stuck() {
    let one_way = Wan { down: 2_000, ..Wan::OCEAN };
    let stuck = "its reader waits for its writer";
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Nothing(stuck)).tell(async |s: Story| {
        let caller = s.kubectl();
        let mut watch = caller.get("edge-1", "/api/v1/configmaps?watch=true").open().within(secs(5)).await?;
        watch.line().within(secs(5)).await?.context("a watch without a first event")?;
        let slow = s.degrade("hub", "edge-1", one_way);
        let upload = caller.request(Method::POST, "/tunnel/edge-1/upload").upload(mib(1) as usize);
        let upload = s.start(upload.into_future());
        // A batch takes a quarter of a minute to leave.
        for n in 0..5 {
            s.pass(secs(2)).await;
            s.api("edge-1").put("configmaps", "default", &format!("seen-{n}"), serde_json::json!({}));
            let event = watch.line().within(secs(1)).await?.context("the watch has ended")?;
            anyhow::ensure!(event.contains(&format!("seen-{n}")), "{event}");
        }
        drop(slow);
        upload.within(minutes(1)).await??.expect(StatusCode::OK)?;
        Ok(())
    });
}
