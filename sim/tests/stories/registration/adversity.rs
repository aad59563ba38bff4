//! Registration where single writes are refused or bent, other servers meddle, and clocks jump.

use anyhow::ensure;
use serde_json::json;
use server::config::ArgoCdConfig;
use sim::promise::Promise::Nothing;
use sim::story::{Story, Within, minutes, secs};
use sim::world::World;

use super::secrets::{is_skipped, label, list, n_said, n_writes, of};
use super::{AGENTS_ALIKE, NOTICED, REGISTERS_NOBODY, metric, registered, two_clusters, within};

#[test]
fn a_secret_that_is_refused_for_ever_does_not_bunch_a_fleet_that_returns() {
    let skips = |argocd: &mut ArgoCdConfig| argocd.skip_after = Some(minutes(2));
    let ids: Vec<_> = (0..50).map(|n| format!("edge-{n}")).collect();
    let world = ids.iter().fold(World::new().hub(|hub| hub.registers(skips)), |world, id| world.cluster(id, |c| c));
    world.unprobed().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        let n_skipped = || ids.iter().filter(|id| is_skipped(&s, id)).count();
        let none = json!({});
        let all: Vec<_> = ids.iter().map(String::as_str).chain(["poison"]).map(|id| (id, &none)).collect();
        let _denied = s.apiserver("hub").deny("postern-cluster-poison");
        list(&s, &all);
        s.pass(minutes(3)).await;
        let night: Vec<_> = ids.iter().map(|id| s.cut("hub", id)).collect();
        within(&s, minutes(6), "all are skipped", || n_skipped() == 50).await?;
        drop(night);
        within(&s, secs(60), "the first is given back", || n_skipped() < 50).await?;
        let mut left = n_skipped();
        ensure!(left >= 40, "{left} are left");
        for _ in 0..70 {
            s.pass(secs(1)).await;
            let now = n_skipped();
            ensure!(left - now <= 8, "{} in one second", left - now);
            left = now;
        }
        within(&s, secs(30), "all are given back", || n_skipped() == 0).await?;
        metric(&s, "argocd_registration_failing 1").await?;
        ensure!(of(&s, "poison").is_none() && n_said(&s, "registration in Argo CD fails for a Secret") == 1);
        Ok(())
    });
}

#[test]
fn an_api_server_that_was_away_while_a_fleet_returned_does_not_bunch_it() {
    let skips = |argocd: &mut ArgoCdConfig| argocd.skip_after = Some(minutes(2));
    let ids: Vec<_> = (0..50).map(|n| format!("edge-{n}")).collect();
    let world = ids.iter().fold(World::new().hub(|hub| hub.registers(skips)), |world, id| world.cluster(id, |c| c));
    world.unprobed().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        let n_skipped = || ids.iter().filter(|id| is_skipped(&s, id)).count();
        s.pass(minutes(1)).await;
        let night: Vec<_> = ids.iter().map(|id| s.cut("hub", id)).collect();
        within(&s, minutes(6), "all are skipped", || n_skipped() == 50).await?;
        drop(night);
        within(&s, secs(60), "the first is given back", || n_skipped() < 50).await?;
        let throttled = s.apiserver("hub").throttle();
        s.pass(minutes(3)).await;
        let mut left = n_skipped();
        ensure!(left >= 30, "{left} are left");
        drop(throttled);
        for _ in 0..130 {
            s.pass(secs(1)).await;
            let now = n_skipped();
            ensure!(left - now <= 8, "{} in one second", left - now);
            left = now;
        }
        ensure!(left == 0, "{left} are left");
        Ok(())
    });
}

#[test]
fn a_webhook_that_breaks_over_some_secrets_keeps_no_other_from_being_written() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let broken = s.apiserver("hub").break_over("postern-cluster-hook");
        let (ids, none) = ((0..20).map(|n| format!("hook-{n}")).collect::<Vec<_>>(), json!({}));
        let all: Vec<_> = ["edge-1", "edge-2", "zeta"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        list(&s, &all.iter().map(|id| (*id, &none)).collect::<Vec<_>>());
        within(&s, secs(15), "what comes behind is written", || of(&s, "zeta").is_some()).await?;
        s.pass(minutes(30)).await;
        metric(&s, "argocd_registration_failing 1").await?;
        let posts = s.api("hub").requests().iter().filter(|request| request.method == "POST").count();
        ensure!(posts < 600, "{posts} attempts in half an hour at 20 that are refused");
        drop(broken);
        within(&s, secs(130), "all are written when it is mended", || ids.iter().all(|id| of(&s, id).is_some())).await?;
        metric(&s, "argocd_registration_failing 0").await
    });
}

#[test]
fn what_a_webhook_bends_is_told_once_and_written_less_and_less_often() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let bent = s.apiserver("hub").bend("tier");
        let n = n_writes(&s);
        list(&s, &[("edge-1", &json!({ "tier": "1" })), ("edge-2", &json!({}))]);
        s.until("it is bent", || label(&s, "edge-1", "tier").is_some_and(|tier| tier == "bent")).within(NOTICED).await?;
        // Another cluster that comes and goes has everything looked at.
        for _ in 0..60 {
            s.crash("edge-2/agent");
            s.pass(secs(1)).await;
            s.restart("edge-2/agent");
            s.pass(secs(59)).await;
        }
        ensure!((3..15).contains(&(n_writes(&s) - n)), "{} writes in an hour", n_writes(&s) - n);
        ensure!(n_said(&s, "registration in Argo CD fails for a Secret") == 1);
        metric(&s, "argocd_registration_failing 1").await?;

        list(&s, &[("edge-1", &json!({ "tier": "1", "env": "prod" })), ("edge-2", &json!({}))]);
        s.until("what else is wanted is written at once", || label(&s, "edge-1", "env").is_some()).within(NOTICED).await?;
        drop(bent);
        within(&s, minutes(62), "it is as it should be", || label(&s, "edge-1", "tier").is_some_and(|tier| tier == "1")).await?;
        s.pass(secs(2)).await;
        metric(&s, "argocd_registration_failing 0").await
    });
}
