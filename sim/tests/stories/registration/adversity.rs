//! Registration where single writes are refused or bent, other servers meddle, and clocks jump.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use server::ServerConfig;
use server::config::ArgoCdConfig;
use sim::promise::Promise::Nothing;
use sim::story::{Story, Within, minutes, secs};
use sim::world::{ARGOCD_NAMESPACE, SA_TOKEN_PATH, World, service_account_token, tunnel_token};

use super::secrets::{annotation, data, edit, is_skipped, label, list, n_said, n_writes, of};
use super::{AGENTS_ALIKE, LISTED, NOTICED, REGISTERS_NOBODY, holds, metric, registered, two_clusters, within};

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

/// The surge pod of a rollout that does not come to its end: it runs, and no agent dials it. It ends when this is dropped.
fn start_a_second_server(s: &Story, skip_after: Duration) -> host::DrainSwitch {
    s.note("a second server begins that nobody dials");
    let token = "the token of the second pod";
    s.api("hub").set_tokens(vec![service_account_token("hub"), token.to_owned()]);
    s.write_file("hub/kubectl", SA_TOKEN_PATH, token);
    let entry = |id: &str| json!({ "id": id, "token": tunnel_token(id) });
    let text = json!([entry("edge-1"), entry("edge-2")]).to_string();
    let mut argocd = ArgoCdConfig::new(ARGOCD_NAMESPACE, "http://hub:8080");
    argocd.api.ca = None;
    argocd.api.token_path = SA_TOKEN_PATH.to_owned();
    argocd.skip_after = Some(skip_after);
    let clusters = server::config::clusters::parse("CLUSTERS", &text).expect("a good list").list;
    let config = ServerConfig { clusters, argocd: Some(argocd), ..ServerConfig::default() };
    let (switch, drain) = host::DrainSwitch::new();
    drop(s.start(server::run(config, s.machine("hub/kubectl").host(), drain)));
    switch
}

#[test]
fn a_second_server_that_nobody_dials_has_argo_cd_skip_nobody() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.skip_after = Some(minutes(2))));
    world.version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let _second = start_a_second_server(&s, minutes(2));
        let n = n_writes(&s);
        holds(&s, minutes(20), "nobody is skipped", || !is_skipped(&s, "edge-1") && !is_skipped(&s, "edge-2")).await?;
        let n_lists = s.api("hub").requests().iter().filter(|request| request.target.contains("labelSelector")).count();
        ensure!(n_lists > 30, "both list, and {n_lists} lists were made");
        ensure!(n_writes(&s) == n, "{:?}", s.api("hub").executed_writes());
        Ok(())
    });
}

#[test]
fn a_cluster_that_another_server_gave_back_is_not_skipped_again_until_it_was_here() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.skip_after = Some(minutes(2))));
    world.version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        s.crash("edge-1/agent");
        within(&s, minutes(4), "it is skipped", || is_skipped(&s, "edge-1")).await?;
        edit(&s, "postern-cluster-edge-1", |secret| {
            let annotations = secret["metadata"]["annotations"].as_object_mut().expect("annotations");
            annotations.retain(|key, _| !key.starts_with("postern/skipped") && !key.ends_with("skip-reconcile"));
        });
        holds(&s, minutes(20), "whoever gave it back has it", || !is_skipped(&s, "edge-1")).await?;
        s.restart("edge-1/agent");
        s.pass(minutes(1)).await;
        s.crash("edge-1/agent");
        within(&s, minutes(4), "it was here, and is skipped", || is_skipped(&s, "edge-1")).await
    });
}

#[test]
fn a_clock_that_jumps_does_not_end_a_retention() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        s.delist("edge-2");
        s.until("it is marked", || annotation(&s, "edge-2", "postern/removed-since").is_some()).within(NOTICED).await?;
        s.skew("hub/server", 25 * 3600);
        holds(&s, minutes(9), "no day has passed", || of(&s, "edge-2").is_some()).await?;
        s.skew("hub/server", -25 * 3600);
        holds(&s, minutes(9), "nor has one now", || of(&s, "edge-2").is_some()).await
    });
}

#[test]
fn a_cluster_whose_alias_changes_has_one_secret_in_argo_cds_sight() {
    const KIND: &str = "argocd.argoproj.io/secret-type";
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let file = |alias: &str| {
            let entry = |id: &str| json!({ "id": id, "token": tunnel_token(id) });
            let odd = json!({ "id": "Prod EU", "alias": alias, "token": "a token of the odd one" });
            s.write_file("hub/server", "/etc/postern/clusters.json", &json!([entry("edge-1"), entry("edge-2"), odd]).to_string());
        };
        file("eu");
        s.until("it is registered", || label(&s, "eu", KIND).is_some()).within(NOTICED).await?;
        file("prod-eu");
        s.until("it has its other name", || label(&s, "prod-eu", KIND).is_some()).within(NOTICED).await?;
        s.until("the old one is out of sight", || label(&s, "eu", KIND).is_none()).within(NOTICED).await?;
        ensure!(of(&s, "eu").is_some() && data(&s, "eu", "server") == data(&s, "prod-eu", "server"));
        metric(&s, "argocd_secrets{state=\"duplicate\"} 0").await?;
        let n = n_writes(&s);
        s.pass(minutes(30)).await;
        ensure!(n_writes(&s) == n, "{:?}", s.api("hub").executed_writes());
        file("eu");
        s.until("it is back", || label(&s, "eu", KIND).is_some()).within(NOTICED).await?;
        s.until("and the other out of sight", || label(&s, "prod-eu", KIND).is_none()).within(NOTICED).await
    });
}

#[test]
fn two_secrets_for_one_url_are_told() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let mut copy = of(&s, "edge-1").expect("registered");
        copy["metadata"] = json!({ "labels": copy["metadata"]["labels"], "annotations": copy["metadata"]["annotations"] });
        edit(&s, "handed-over-too-late", |secret| *secret = copy);
        s.pass(LISTED).await;
        metric(&s, "argocd_secrets{state=\"duplicate\"} 1").await?;
        s.pass(minutes(10)).await;
        ensure!(n_said(&s, "several Secrets lead Argo CD to the same cluster") == 1);
        Ok(())
    });
}
