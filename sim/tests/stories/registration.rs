//! Clusters in Argo CD, registered by the server: what is configured is there, what is there stays, whatever is away.

mod adversity;
mod secrets;

use std::time::Duration;

use anyhow::ensure;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host::tls::ClientFiles;
use http::{Method, StatusCode};
use serde_json::json;
use server::config::ArgoCdConfig;
use sim::pki::{ISSUED, NEW};
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;

use crate::certificates::NO_TLS;
use secrets::{annotation, data, edit, is_skipped, label, list, n_deletions, n_said, n_writes, named, of};

/// Why a version 1 server promises nothing.
const REGISTERS_NOBODY: &str = "it registers nobody";

/// Why version 1 agents promise nothing of it: they are told again elsewhere.
const AGENTS_ALIKE: &str = "whose agents they are makes no difference to it";

/// Two looks at a file, a second in which changes are gathered, and a moment.
const NOTICED: Duration = secs(3);

/// What others did is noticed by the next list.
const LISTED: Duration = secs(63);

const PODS: &str = "/api/v1/namespaces/default/pods";

fn two_clusters() -> World {
    World::new().unprobed().hub(|hub| hub.registers(|_| {})).cluster("edge-1", |c| c).cluster("edge-2", |c| c)
}

async fn registered(s: &Story, clusters: &[&str]) -> anyhow::Result<()> {
    s.until("all are registered", || clusters.iter().all(|cluster| of(s, cluster).is_some())).within(NOTICED).await
}

/// Becomes true within a time; looked at once a second, for what takes minutes.
async fn within(s: &Story, limit: Duration, claim: &str, check: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = tokio::time::Instant::now();
    while !check() {
        ensure!(began.elapsed() < limit, "{claim}: not within {limit:?}");
        s.pass(secs(1)).await;
    }
    Ok(())
}

/// Is true for all of a time, in the same way.
async fn holds(s: &Story, time: Duration, claim: &str, check: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = tokio::time::Instant::now();
    while began.elapsed() < time {
        ensure!(check(), "{claim}: false after {:?}", began.elapsed());
        s.pass(secs(1)).await;
    }
    Ok(())
}

async fn metric(s: &Story, line: &str) -> anyhow::Result<()> {
    let metrics = s.kubectl().request(Method::GET, "/metrics").within(secs(1)).await?.expect(StatusCode::OK)?.text();
    let shown: Vec<_> = metrics.lines().filter(|line| line.starts_with("argocd_")).collect();
    ensure!(metrics.lines().any(|has| has == line), "no {line:?} in {shown:#?}");
    Ok(())
}

#[test]
fn each_cluster_is_registered_once_with_the_url_that_leads_to_it() {
    two_clusters().version_1(Same, Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        ensure!(data(&s, "edge-1", "server") == "http://hub:8080/tunnel/edge-1", "{:?}", of(&s, "edge-1"));
        ensure!(data(&s, "edge-1", "name") == "edge-1");
        ensure!(data(&s, "edge-1", "config") == r#"{"tlsClientConfig":{"insecure":true}}"#);
        ensure!(label(&s, "edge-1", "argocd.argoproj.io/secret-type").is_some_and(|kind| kind == "cluster"));
        s.argocd().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;

        let (n, version) = (n_writes(&s), of(&s, "edge-2"));
        s.pass(minutes(60)).await;
        ensure!(n == 2 && n_writes(&s) == 2, "nothing differs, and {} writes were made", n_writes(&s));
        ensure!(of(&s, "edge-2") == version);
        metric(&s, "argocd_secrets{state=\"registered\"} 2").await?;
        metric(&s, "argocd_registration_failing 0").await
    });
}

#[test]
fn labels_follow_the_clusters_file_and_what_people_added_stays() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        list(&s, &[("edge-1", &json!({ "env": "prod", "tier": "1" })), ("edge-2", &json!({}))]);
        s.until("the label is there", || label(&s, "edge-1", "env").is_some()).within(NOTICED).await?;
        // The server knows nothing of it yet, and what it writes next is refused as outdated.
        edit(&s, "postern-cluster-edge-1", |secret| {
            secret["metadata"]["labels"]["team"] = "a person's".into();
            secret["data"]["project"] = "cGF5bWVudHM=".into();
        });
        list(&s, &[("edge-1", &json!({ "env": "test" })), ("edge-2", &json!({}))]);
        s.until("the new label is there", || label(&s, "edge-1", "env").is_some_and(|env| env == "test")).within(NOTICED).await?;
        ensure!(label(&s, "edge-1", "tier").is_none() && label(&s, "edge-1", "team").is_some(), "{:?}", of(&s, "edge-1"));
        ensure!(data(&s, "edge-1", "project") == "payments");

        edit(&s, "postern-cluster-edge-1", |secret| secret["data"]["server"] = "aHR0cDovL2Vsc2V3aGVyZQ==".into());
        let is_right = || data(&s, "edge-1", "server") == "http://hub:8080/tunnel/edge-1";
        s.until("what a person bent is straight again", is_right).within(LISTED).await?;
        ensure!(s.api("hub").delete("secrets", "argocd", "postern-cluster-edge-2"));
        s.until("what a person deleted is there again", || of(&s, "edge-2").is_some()).within(LISTED).await?;
        ensure!(n_deletions(&s) == 0 && n_said(&s, "registration in Argo CD fails") == 0);
        Ok(())
    });
}

#[test]
fn a_cluster_that_leaves_the_file_keeps_its_secret_for_the_retention_through_restarts() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.retention = minutes(60)));
    world.version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let is_marked = || annotation(&s, "edge-2", "postern/removed-since").is_some();
        s.delist("edge-2");
        s.until("it is marked", is_marked).within(NOTICED).await?;
        s.pass(minutes(40)).await;
        s.enlist("edge-2");
        s.until("it is back", || !is_marked()).within(NOTICED).await?;

        s.delist("edge-2");
        s.until("it is marked again", is_marked).within(NOTICED).await?;
        s.pass(minutes(30)).await;
        s.crash("hub/server");
        s.pass(minutes(20)).await;
        s.restart("hub/server");
        holds(&s, minutes(9), "its time is not over", || of(&s, "edge-2").is_some()).await?;
        metric(&s, "argocd_secrets{state=\"removed\"} 1").await?;
        within(&s, secs(70), "it is gone", || of(&s, "edge-2").is_none()).await?;
        ensure!(of(&s, "edge-1").is_some() && n_deletions(&s) == 1);
        metric(&s, "argocd_secrets{state=\"removed\"} 0").await
    });
}

#[test]
fn a_secret_of_somebody_else_is_never_touched() {
    two_clusters().cold().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        // Before the server's first list.
        let marks = |hub: &str| json!({ "postern/hub": hub, "postern/cluster": "edge-2", "postern/removed-since": "2020-01-01T00:00:00Z" });
        let labels = json!({ "app.kubernetes.io/managed-by": "postern-server", "argocd.argoproj.io/secret-type": "cluster" });
        edit(&s, "postern-cluster-edge-1", |secret| secret["data"] = json!({ "server": "aHR0cDovL2E=" }));
        for name in ["postern-cluster-edge-2", "postern-cluster-long-gone"] {
            edit(&s, name, |secret| {
                secret["metadata"] = json!({ "labels": labels, "annotations": marks("http://other-hub:8080") });
            });
        }
        let names = ["postern-cluster-edge-1", "postern-cluster-edge-2", "postern-cluster-long-gone"];
        let before = names.map(|name| named(&s, name));

        s.pass(minutes(60)).await;

        ensure!(names.map(|name| named(&s, name)) == before && n_writes(&s) == 0, "{:?}", s.api("hub").executed_writes());
        ensure!(n_said(&s, "a cluster is not registered in Argo CD: its Secret's name is taken") == 2);
        ensure!(n_said(&s, "it is of the hub http://other-hub:8080") == 1);
        metric(&s, "argocd_secrets{state=\"taken\"} 2").await?;
        metric(&s, "argocd_registration_failing 0").await?;

        ensure!(s.api("hub").delete("secrets", "argocd", "postern-cluster-edge-1"));
        s.until("the name is free, and used", || !data(&s, "edge-1", "name").is_empty()).within(LISTED).await?;
        metric(&s, "argocd_secrets{state=\"taken\"} 1").await
    });
}

#[test]
fn an_api_server_that_is_away_for_an_hour_removes_nothing_and_harms_nobody() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.retention = minutes(10)));
    world.version_1(Same, Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        s.crash("hub/api");
        s.pass(minutes(20)).await;
        s.argocd().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        metric(&s, "argocd_registration_failing 1").await?;
        // And a server that begins meanwhile, and has never seen what is there.
        s.crash("hub/server");
        s.restart("hub/server");
        s.pass(minutes(20)).await;
        s.argocd().get("edge-2", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        s.restart("hub/api");
        let hanging = s.apiserver("hub").hang();
        s.pass(minutes(10)).await;
        drop(hanging);
        let nameless = s.lose_name("hub", "kubernetes.default.svc");
        s.pass(minutes(10)).await;
        drop(nameless);
        let leaderless = s.apiserver("hub").lose_leader();
        s.pass(minutes(10)).await;
        drop(leaderless);
        s.pass(minutes(2)).await;

        ensure!(n_writes(&s) == 2, "nothing has changed: {:?}", s.api("hub").executed_writes());
        metric(&s, "argocd_registration_failing 0").await?;
        ensure!(n_said(&s, "registration in Argo CD works again") == 1);
        let n_told = n_said(&s, "registration in Argo CD fails");
        ensure!((3..8).contains(&n_told), "told {n_told} times in an hour, once for each change is right");
        Ok(())
    });
}

#[test]
fn what_changed_while_the_api_server_was_away_is_made_up_for() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        let throttled = s.apiserver("hub").throttle();
        s.delist("edge-2");
        s.pass(minutes(5)).await;
        ensure!(annotation(&s, "edge-2", "postern/removed-since").is_none());
        drop(throttled);
        let is_marked = || annotation(&s, "edge-2", "postern/removed-since").is_some();
        s.until("it is marked", is_marked).within(LISTED).await
    });
}

#[test]
fn an_offline_cluster_is_skipped_after_its_time_and_keeps_its_secret() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.skip_after = Some(minutes(10))));
    let world = world.cluster("edge-3", |c| c.offline());
    world.version_1(Same, Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2", "edge-3"]).await?;
        s.pass(minutes(5)).await;
        s.crash("edge-1/agent");
        holds(&s, minutes(4), "nobody is skipped", || !is_skipped(&s, "edge-1") && !is_skipped(&s, "edge-3")).await?;
        within(&s, minutes(3), "who never came is skipped", || is_skipped(&s, "edge-3")).await?;
        within(&s, minutes(6), "who went is skipped", || is_skipped(&s, "edge-1")).await?;
        metric(&s, "argocd_secrets{state=\"skipped\"} 2").await?;
        s.crash("hub/server");
        s.restart("hub/server");
        holds(&s, minutes(5), "a restart gives nobody back", || is_skipped(&s, "edge-1") && is_skipped(&s, "edge-3")).await?;
        s.restart("edge-1/agent");
        within(&s, minutes(2), "it is given back", || !is_skipped(&s, "edge-1")).await?;
        ensure!(annotation(&s, "edge-1", "postern/skipped-since").is_none() && is_skipped(&s, "edge-3"));
        ensure!(!is_skipped(&s, "edge-2") && n_deletions(&s) == 0);
        Ok(())
    });
}

#[test]
fn a_persons_word_on_a_cluster_is_never_lifted() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.skip_after = Some(minutes(2))));
    world.version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        edit(&s, "postern-cluster-edge-1", |secret| {
            secret["metadata"]["annotations"]["argocd.argoproj.io/skip-reconcile"] = "true".into();
        });
        s.pass(minutes(3)).await;
        s.crash("edge-1/agent");
        s.pass(minutes(5)).await;
        s.restart("edge-1/agent");
        holds(&s, minutes(5), "it stays", || is_skipped(&s, "edge-1")).await
    });
}

#[test]
fn a_fleet_that_returns_is_given_back_one_after_the_other() {
    let skips = |argocd: &mut ArgoCdConfig| {
        (argocd.skip_after, argocd.return_spread) = (Some(minutes(2)), minutes(8));
    };
    let ids: Vec<_> = (0..50).map(|n| format!("edge-{n}")).collect();
    let world = ids.iter().fold(World::new().hub(|hub| hub.registers(skips)), |world, id| world.cluster(id, |c| c));
    world.unprobed().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        let n_skipped = || ids.iter().filter(|id| is_skipped(&s, id)).count();
        let night: Vec<_> = ids.iter().map(|id| s.cut("hub", id)).collect();
        within(&s, minutes(6), "all are skipped", || n_skipped() == 50).await?;
        drop(night);
        within(&s, minutes(2), "the first is given back", || n_skipped() < 50).await?;
        // Sessions are back within seconds of each other; of fifty moments in eight minutes about six are in each.
        ensure!(n_skipped() > 40, "{} at the first look", 50 - n_skipped());
        for minute in 1..=8 {
            let before = n_skipped();
            s.pass(minutes(1)).await;
            let n_back = before - n_skipped();
            ensure!(n_back <= 16, "{n_back} were given back in minute {minute}");
        }
        ensure!(s.n_sessions().await? == 50);
        within(&s, secs(30), "all are given back", || n_skipped() == 0).await
    });
}

#[test]
fn certificates_are_followed_and_what_does_not_fit_is_given_to_nobody() {
    const CA: &str = "/etc/argocd/ca.crt";
    const CERT: &str = "/etc/argocd/tls.crt";
    const KEY: &str = "/etc/argocd/tls.key";
    let gives = |argocd: &mut ArgoCdConfig| {
        argocd.url = "https://hub:8080".to_owned();
        argocd.files =
            ClientFiles { ca: Some(CA.to_owned()), identity: Some((CERT.to_owned(), KEY.to_owned())), insecure: false };
    };
    let world = World::new().tls().hub(|hub| hub.registers(gives)).cluster("edge-1", |c| c);
    let (old, new) = (&ISSUED.caller, &NEW.caller);
    let files = [(CA, &ISSUED.ca), (CERT, &old.certificate), (KEY, &old.key)];
    let world = files.iter().fold(world, |world, (path, content)| world.file("hub/server", path, content));
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        registered(&s, &["edge-1"]).await?;
        let given = |ca: &str, cert: &str, key: &str| {
            let [ca, cert, key] = [ca, cert, key].map(|pem| STANDARD.encode(pem));
            let tls = json!({ "insecure": false, "caData": ca, "certData": cert, "keyData": key });
            let wanted = json!({ "tlsClientConfig": tls }).to_string();
            data(&s, "edge-1", "config") == wanted
        };
        ensure!(given(&ISSUED.ca, &old.certificate, &old.key), "{}", data(&s, "edge-1", "config"));

        s.write_file("hub/server", CERT, &new.certificate);
        s.holds_for(secs(30), "half a pair is not given", || given(&ISSUED.ca, &old.certificate, &old.key)).await?;
        s.write_file("hub/server", KEY, &new.key);
        s.until("the pair is", || given(&ISSUED.ca, &new.certificate, &new.key)).within(NOTICED).await?;
        s.write_file("hub/server", CA, &NEW.ca);
        s.until("and the CA", || given(&NEW.ca, &new.certificate, &new.key)).within(NOTICED).await?;
        ensure!(n_writes(&s) == 3, "one for each change: {:?}", s.api("hub").executed_writes());
        Ok(())
    });
}

#[test]
fn a_server_that_leaves_writes_nothing_over_what_its_successor_wrote() {
    let world = two_clusters().hub(|hub| hub.registers(|_| {}).with(|config| config.leave = secs(30)));
    world.version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        // Its next list falls into the time in which it leaves.
        s.pass(secs(50)).await;
        s.drain("hub/server");
        edit(&s, "postern-cluster-edge-1", |secret| secret["data"]["server"] = "aHR0cHM6Ly9uZXc=".into());
        holds(&s, secs(40), "its successor's URL stands", || data(&s, "edge-1", "server") == "https://new").await
    });
}

#[test]
fn a_skipped_secret_that_a_finalizer_holds_keeps_nobody_at_work_when_its_agent_returns() {
    let world = two_clusters().hub(|hub| hub.registers(|argocd| argocd.skip_after = Some(minutes(2))));
    world.version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        s.crash("edge-1/agent");
        within(&s, minutes(5), "it is skipped", || is_skipped(&s, "edge-1")).await?;
        edit(&s, "postern-cluster-edge-1", |secret| {
            secret["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            secret["metadata"]["finalizers"] = json!(["example.com/hold"]);
        });
        s.pass(LISTED).await;
        let n = n_writes(&s);
        s.restart("edge-1/agent");
        // A loop without a pause would not let this time pass.
        s.pass(minutes(5)).await;
        ensure!(n_writes(&s) == n && is_skipped(&s, "edge-1"), "whoever deletes it has it: {:?}", of(&s, "edge-1"));
        s.api("hub").delete("secrets", "argocd", "postern-cluster-edge-1");
        s.until("it is made anew, for Argo CD to work with", || of(&s, "edge-1").is_some()).within(LISTED).await?;
        ensure!(!is_skipped(&s, "edge-1"));
        Ok(())
    });
}

#[test]
fn nothing_is_written_once_a_drain_has_begun() {
    two_clusters().version_1(Nothing(AGENTS_ALIKE), Nothing(REGISTERS_NOBODY)).tell(async |s: Story| {
        registered(&s, &["edge-1", "edge-2"]).await?;
        // It keeps the server at work until the drain's time is over.
        let _watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let n = n_writes(&s);
        list(&s, &[("edge-1", &json!({ "env": "late" }))]);
        s.pass(millis(800)).await;
        s.drain("hub/server");
        s.pass(secs(20)).await;
        ensure!(n_said(&s, "trust has changed") == 1, "the file was read");
        ensure!(n_writes(&s) == n, "its successor writes: {:?}", s.api("hub").executed_writes());
        Ok(())
    });
}
