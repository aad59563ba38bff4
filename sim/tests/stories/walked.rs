//! What walks have found, as they printed it: a failing walk ends with a story to paste here.

use std::panic::catch_unwind;

use http::StatusCode;
use sim::errands::{By, Errand, Work};
use sim::fabric::Wan;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis};
use sim::world::World;

/// The hub kept an HTTP/2 connection that came during its drain for as long as the caller liked.
#[test]
fn walk_1073() {
    let world = World::new().seed(1073).cluster("edge-1", |c| c.over(Wan::LAN).pods(7)).version_1(Same, Same);
    world.tell(async |s: Story| {
        let pause_1 = s.pause("hub/server");
        let argocd = s.argocd();
        let _errand_2 = Errand { cluster: "edge-1", by: By::Argocd, work: Work::Put }.start(2, &s, &argocd);
        s.pass(millis(50)).await;
        drop(pause_1);
        s.drain("hub/server");
        s.until("hub/server has ended", || s.machine("hub/server").tasks().is_empty()).within(millis(32000)).await?;
        Ok(())
    });
}

/// A dial that the agent had given up became a session that nobody served.
#[test]
fn walk_7218() {
    let world = World::new().seed(7218).cluster("edge-1", |c| c.over(Wan::LAN).pods(7)).version_1(Same, Same);
    world.tell(async |s: Story| {
        s.pass(millis(8000)).await;
        let pause_1 = s.pause("hub/server");
        s.pass(millis(49000)).await;
        s.pass(millis(45000)).await;
        drop(pause_1);
        let pause_2 = s.pause("edge-1/agent");
        s.pass(millis(3400)).await;
        drop(pause_2);
        s.pass(millis(5004)).await;
        s.kubectl().get("edge-1", "/version").within(millis(2004)).await?.expect(StatusCode::OK)?;
        s.pass(millis(72000)).await;
        Ok(())
    });
}

/// What a walk prints that believes too much: its claim is false. `walks.rs` holds the print against this text.
fn walk_8() {
    let world = World::new()
        .seed(8)
        .cluster("edge-1", |c| c.over(Wan::LAN).pods(7))
        .version_1(Nothing("walks are drawn with extended peers"), Nothing("walks are drawn with extended peers"));
    world.tell(async |s: Story| {
        let cut_1 = s.cut("hub", "edge-1");
        s.pass(millis(150000)).await;
        drop(cut_1);
        s.kubectl().get("edge-1", "/version").within(millis(2004)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_pasted_walk_fails_as_the_walk_did() {
    let failed = catch_unwind(walk_8).expect_err("the claim is false");
    let words = failed.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
    assert!(words.contains("expected 200 OK, got 503"), "{words}");
}
