//! Who an agent and a hub are, by what they show: it is looked at again whenever a file changes on which it stands.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use server::config::TokenDigest;
use sim::caller::Answer;
use sim::kubectl::Exec;
use sim::pki::{EDGE_1_URI, ISSUED, NEW};
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, minutes, secs};
use sim::world::{World, tunnel_token};

use agent::config::TunnelToken;

use crate::certificates::NO_TLS;
use crate::claims::{aborted, add_pod, heard, heard_of};
use crate::health::seen;

const CLUSTERS: &str = "/etc/postern/clusters.json";
const REVOKED: &str = "/etc/postern/revoked";
const TARGET_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const TOKEN: &str = "/etc/postern/token";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Two looks at the files, and what a cut takes to arrive.
const AT_ONCE: Duration = secs(1);

/// How long an agent that was refused may wait before it dials again, and a handshake.
const REDIALLED: Duration = secs(62);

#[test]
fn a_stolen_token_without_the_clusters_certificate_is_worth_nothing() {
    for name in ["cn:edge-1".to_owned(), format!("uri:{EDGE_1_URI}")] {
        let world = World::new().tls().cluster("edge-1", |c| c).cluster("edge-2", |c| c);
        world.cold().version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
            s.certify("edge-1/agent", &ISSUED.edge_1);
            list(&s, json!({ "certificates": [name] }), json!({}));
            s.pass(REDIALLED).await;
            for cluster in ["edge-1", "edge-2"] {
                s.kubectl().get(cluster, "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            }

            // The token with another good certificate: whoever stole it has one of some other agent at best.
            s.certify("edge-1/agent", &ISSUED.agent);
            s.pass(secs(2)).await;
            s.reset("hub", "edge-1");
            s.pass(REDIALLED).await;
            s.kubectl().get("edge-1", "/version").within(secs(11)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
            heard_of(&s, "edge-1/agent", "the client certificate is not the one that goes with the token")?;
            let told = seen::cluster(&s, "edge-1").await?["lastError"].clone();
            let why = "an agent was refused: the client certificate is not the one that goes with the token";
            anyhow::ensure!(told["text"] == why, "{told}");
            s.kubectl().get("edge-2", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            Ok(())
        });
    }
}

#[test]
fn a_cluster_that_begins_to_ask_for_a_certificate_ends_the_sessions_without_it() {
    let world = World::new().tls().cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let mut lost = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let mut kept = s.argocd().watch("edge-2", PODS, "").within(secs(1)).await?;
        list(&s, json!({ "certificates": ["cn:edge-1"] }), json!({}));
        aborted(&mut lost).within(AT_ONCE).await?;

        s.certify("edge-1/agent", &ISSUED.edge_1);
        s.pass(REDIALLED).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        still_open(&s, "edge-2", &mut kept).await
    });
}

#[test]
fn a_revoked_certificate_cuts_an_open_exec_within_a_second() {
    let world = World::new().tls().hub(|hub| hub.with(|config| config.revoked_certs = Some(REVOKED.to_owned())));
    let world = world.cluster("edge-1", |c| c).cluster("edge-2", |c| c).cold();
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.write_file("hub/server", REVOKED, "# nobody\n");
        s.certify("edge-1/agent", &ISSUED.edge_1);
        s.pass(REDIALLED).await;
        let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;
        echoes(&mut exec).await?;
        let mut kept = s.argocd().watch("edge-2", PODS, "").within(secs(1)).await?;

        s.write_file("hub/server", REVOKED, &format!("# a lost disk\n{}\n", ISSUED.edge_1.fingerprint()));

        let end = async { while exec.read().await.is_ok_and(|read| read.is_some()) {} };
        let ended = async {
            end.await;
            Ok(())
        };
        ended.within(AT_ONCE).await?;
        s.pass(REDIALLED).await;
        heard_of(&s, "edge-1/agent", "the client certificate is revoked")?;
        // Nothing waits for who is shut out.
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
        still_open(&s, "edge-2", &mut kept).await
    });
}

#[test]
fn a_ca_that_is_trusted_no_longer_ends_the_sessions_that_stood_on_it() {
    let world = World::new().tls().cluster("edge-1", |c| c).cluster("edge-2", |c| c).cold();
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.trust("hub/server", &[&ISSUED, &NEW]);
        s.certify("edge-2/agent", &NEW.agent);
        s.pass(REDIALLED).await;
        let mut lost = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let mut kept = s.argocd().watch("edge-2", PODS, "").within(secs(1)).await?;

        s.trust("hub/server", &[&NEW]);

        aborted(&mut lost).within(AT_ONCE).await?;
        s.kubectl().get("edge-1", "/version").within(secs(11)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
        still_open(&s, "edge-2", &mut kept).await
    });
}

#[test]
fn a_hub_that_can_no_longer_prove_itself_loses_the_sessions_that_it_has() {
    let world = World::new().tls().cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let mut lost = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let mut kept = s.argocd().watch("edge-2", PODS, "").within(secs(1)).await?;
        s.trust("edge-1/agent", &[&NEW]);
        aborted(&mut lost).within(secs(8)).await?;
        heard_of(&s, "edge-1/agent", "what its hub has shown is believed no longer")?;
        still_open(&s, "edge-2", &mut kept).await
    });
}

#[test]
fn an_api_server_whose_ca_is_trusted_no_longer_gets_no_new_request() {
    World::new().cluster("edge-1", |c| c.tls_upstream()).version_1(Nothing(NO_TLS), Same).tell(async |s: Story| {
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        s.write_file("edge-1/agent", TARGET_CA, &NEW.ca);
        s.pass(AT_ONCE).await;
        let n_before = s.api("edge-1").requests().len();
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::BAD_GATEWAY)?;
        anyhow::ensure!(s.api("edge-1").requests().len() == n_before, "it was asked over an old connection");
        still_open(&s, "edge-1", &mut watch).await?;
        s.write_file("edge-1/agent", TARGET_CA, &ISSUED.ca);
        s.pass(AT_ONCE).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_token_in_a_file_is_rotated_and_nothing_breaks() {
    with_a_token_file().tell(async |s: Story| {
        let mut watch = rotated(&s).await?;
        s.pass(minutes(2)).await;
        still_open(&s, "edge-1", &mut watch).await?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        // Without the new one it is the old one that would have been shown.
        s.reset("hub", "edge-1");
        s.pass(secs(10)).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn what_runs_on_an_outdated_session_may_go_on_for_a_quarter_of_an_hour() {
    with_a_token_file().tell(async |s: Story| {
        let mut watch = rotated(&s).await?;
        s.pass(minutes(13)).await;
        still_open(&s, "edge-1", &mut watch).await?;
        s.pass(minutes(4)).await;
        aborted(&mut watch).within(secs(1)).await?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
    World::new().tls().cluster("edge-1", |c| c).version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let everybody = ["hub/server", "edge-1/agent"];
        everybody.iter().for_each(|machine| s.trust(machine, &[&ISSUED, &NEW]));
        s.pass(secs(10)).await;
        s.certify("hub/server", &NEW.hub);
        s.certify("edge-1/agent", &NEW.agent);
        s.pass(secs(10)).await;
        everybody.iter().for_each(|machine| s.trust(machine, &[&NEW]));
        s.pass(minutes(13)).await;
        still_open(&s, "edge-1", &mut watch).await?;
        s.pass(minutes(4)).await;
        aborted(&mut watch).within(secs(1)).await?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_clusters_file_of_digests_admits_the_tokens_that_they_are_of() {
    World::new().cluster("edge-1", |c| c).cold().version_1(Same, Nothing("its clusters are those that it began with")).tell(
        async |s: Story| {
            let digest = |token: &str| TokenDigest::of(&SecretString::from(token)).hex();
            let entries = json!([{ "id": "edge-1", "token": format!("sha256:{}", digest(&tunnel_token("edge-1"))) }]);
            s.write_file("hub/server", CLUSTERS, &entries.to_string());
            s.pass(REDIALLED).await;
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            Ok(())
        },
    );
}

#[test]
fn certificates_are_told_of_before_they_expire() {
    World::new().tls().cluster("edge-1", |c| c).version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        const DAY: i64 = 24 * 3600;
        let warned = |who: &str| heard_of(&s, who, "less than a third of the certificate's lifetime is left").is_ok();
        s.pass(minutes(2)).await;
        anyhow::ensure!(!warned("hub/server") && !warned("edge-1/agent"), "warned of certificates that are new");
        let metrics = s.kubectl().request(http::Method::GET, "/metrics").within(secs(1)).await?.text();
        // The first of 2036.
        let line = "certificate_expires_timestamp_seconds{file=\"/etc/postern/tls/tls.crt\"} 2082758400\n";
        anyhow::ensure!(metrics.contains(line), "{metrics}");

        for machine in ["hub/server", "edge-1/agent"] {
            s.skew(machine, 8 * 365 * DAY);
        }
        s.pass(minutes(2)).await;
        anyhow::ensure!(warned("hub/server") && warned("edge-1/agent"), "nobody is warned");
        Ok(())
    });
}

/// An agent that has its token in a file, and waits for it.
fn with_a_token_file() -> World {
    let in_file = |token: &mut TunnelToken| *token = TunnelToken::File(TOKEN.to_owned());
    let world = World::new().cluster("edge-1", |c| c.with(|config| in_file(&mut config.token)).offline());
    world.version_1(Nothing("it has its token for life"), Nothing("its clusters are those that it began with"))
}

/// Starts the agent, and has its token replaced by another at both ends; a watch that was open all the while.
async fn rotated(s: &Story) -> anyhow::Result<Answer> {
    let (old, new) = (tunnel_token("edge-1"), format!("{}new", tunnel_token("edge-1")));
    s.write_file("edge-1/agent", TOKEN, &format!("{old}\n"));
    s.restart("edge-1/agent");
    s.until_reachable("edge-1").within(REDIALLED).await?;
    let watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
    s.add_token("edge-1", &new);
    s.pass(secs(2)).await;
    s.write_file("edge-1/agent", TOKEN, &new);
    // The agent dials with it within five seconds and a moment.
    s.pass(secs(10)).await;
    s.drop_old_tokens("edge-1");
    Ok(watch)
}

/// Has the hub list both clusters, each with more than its token.
fn list(s: &Story, edge_1: Value, edge_2: Value) {
    let entries = [("edge-1", edge_1), ("edge-2", edge_2)].map(|(id, mut entry)| {
        entry["id"] = id.into();
        entry["token"] = tunnel_token(id).into();
        entry
    });
    s.write_file("hub/server", CLUSTERS, &json!(entries).to_string());
}

async fn echoes(exec: &mut Exec) -> anyhow::Result<()> {
    exec.write(b"still there?").await?;
    let answered = async {
        while exec.read().await?.context("the exec has ended")?.1.as_ref() != b"still there?" {}
        anyhow::Ok(())
    };
    answered.within(secs(1)).await
}

/// A watch hears of what happens.
async fn still_open(s: &Story, cluster: &str, watch: &mut Answer) -> anyhow::Result<()> {
    let name = format!("late-{cluster}");
    add_pod(s, cluster, &name);
    heard(watch, &name).within(secs(1)).await
}
