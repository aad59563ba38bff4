//! The world about itself: what fails a story, and what a failure says.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use sim::fabric::Wan;
use sim::promise::Promise::Same;
use sim::story::{Story, minutes, secs};
use sim::world::World;

fn failure(world: World, story: impl AsyncFnOnce(Story) -> anyhow::Result<()>) -> String {
    let (result, _) = world.play(story);
    result.err().map(|failure| failure.to_string()).unwrap_or_default()
}

#[test]
fn a_false_claim_is_told_with_the_seed_that_repeats_it() {
    let told = failure(World::new().seed(77), async |_| anyhow::bail!("the moon is of cheese"));
    assert!(told.contains("the moon is of cheese"), "{told}");
    assert!(told.contains("cargo xtask sim the_world::a_false_claim_is_told_with_the_seed_that_repeats_it"), "{told}");
}

#[test]
fn a_panic_in_any_task_fails_the_story_with_its_name_and_words() {
    let told = failure(World::new(), async |s: Story| {
        drop(s.start(async { panic!("as planned") }));
        s.pass(minutes(1)).await;
        Ok(())
    });
    assert!(told.contains("task story panicked: as planned"), "{told}");
}

#[test]
fn an_error_in_a_log_fails_the_story_unless_it_was_announced() {
    let told = failure(World::new(), async |_| {
        tracing::error!("the disk is full");
        Ok(())
    });
    assert!(told.contains("the disk is full"), "{told}");
    let told = failure(World::new(), async |s: Story| {
        s.expect_error("disk is full");
        tracing::error!("the disk is full");
        Ok(())
    });
    assert_eq!(told, "");
}

#[test]
fn a_story_that_hangs_ends() {
    let told = failure(World::new(), async |_| std::future::pending().await);
    assert!(told.contains("the story never ended"), "{told}");
}

#[test]
fn a_claim_about_a_state_is_looked_at_all_the_time() {
    World::new().version_1(Same, Same).tell(async |s: Story| {
        let (count, story) = (std::sync::Arc::new(AtomicUsize::new(0)), s.clone());
        let counter = count.clone();
        drop(s.start(async move {
            story.pass(secs(5)).await;
            counter.store(1, Ordering::Relaxed);
        }));
        let is_zero = || count.load(Ordering::Relaxed) == 0;
        s.holds_for(secs(4), "the count is zero", is_zero).await?;
        let error = s.holds_for(secs(4), "the count is zero", is_zero).await.err().map(|error| error.to_string());
        anyhow::ensure!(error.is_some_and(|error| error.starts_with("the count is zero: false after 1")));
        Ok(())
    });
}

#[test]
fn the_same_seed_gives_the_same_transcript_a_hundred_times() {
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
    for n in 2..=100 {
        assert!(play(7) == first, "the {n}th telling differs");
    }
    assert_ne!(play(8), first);
}
