//! The hub's clusters file while the server runs: who is taken out is gone at once, and nobody else notices.

use std::time::Duration;

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::json;
use sim::promise::Promise::{Less, Nothing, Same};
use sim::story::{Story, Within, secs};
use sim::world::{World, tunnel_token};

use crate::claims::{aborted, add_pod, heard, heard_of};

const CLUSTERS: &str = "/etc/postern/clusters.json";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Why a version 1 server promises nothing.
const FIXED: &str = "its clusters are those that it began with";

/// How often the hub looks at its file, and a moment.
const NOTICED: Duration = secs(2);

/// How long an agent that was refused may wait before it dials again.
const REDIALLED: Duration = secs(61);

#[test]
fn a_revoked_token_ends_its_session_and_what_runs_on_it() {
    World::new()
        .cluster("edge-1", |c| c)
        .cluster("edge-2", |c| c)
        .version_1(Less("its log has words of its own"), Nothing(FIXED))
        .tell(async |s: Story| {
            let argo = s.argocd();
            let mut lost = argo.watch("edge-1", PODS, "").within(secs(1)).await?;
            let mut kept = argo.watch("edge-2", PODS, "").within(secs(1)).await?;

            s.revoke("edge-1");

            aborted(&mut lost).within(NOTICED).await?;
            // Nobody will come: nothing waits for it.
            let refused = s.kubectl().get("edge-1", "/version").within(secs(1)).await?;
            let refused = refused.expect(StatusCode::SERVICE_UNAVAILABLE)?.text();
            anyhow::ensure!(refused.contains("revoked"), "{refused}");
            add_pod(&s, "edge-2", "late");
            heard(&mut kept, "late").within(secs(1)).await?;
            anyhow::ensure!(s.n_sessions().await? == 1);

            s.admit("edge-1");
            s.pass(REDIALLED).await;
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            if s.claims_less() {
                return Ok(());
            }
            heard_of(&s, "edge-1/agent", "is the token the one in the hub's clusters file?")
        });
}

#[test]
fn a_cluster_out_of_the_file_is_unknown_and_one_in_it_is_served() {
    World::new().cluster("edge-1", |c| c).cluster("edge-2", |c| c).version_1(Same, Nothing(FIXED)).tell(async |s: Story| {
        let mut kept = s.argocd().watch("edge-2", PODS, "").within(secs(1)).await?;
        s.crash("edge-1/agent");
        let kubectl = s.kubectl();
        let waits = s.start(async move { kubectl.get("edge-1", "/version").await });

        s.delist("edge-1");

        // It waits for the lost session no longer than it takes to know that none will come.
        waits.within(NOTICED).await??.expect(StatusCode::BAD_GATEWAY)?;
        s.restart("edge-1/agent");
        s.pass(NOTICED).await;
        anyhow::ensure!(s.n_sessions().await? == 1, "an unknown cluster has a session");

        s.enlist("edge-1");
        s.pass(REDIALLED).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        add_pod(&s, "edge-2", "late");
        heard(&mut kept, "late").within(secs(1)).await
    });
}

#[test]
fn a_clusters_file_with_mistakes_changes_nothing() {
    World::new().cluster("edge-1", |c| c).cluster("edge-2", |c| c).version_1(Same, Nothing(FIXED)).tell(async |s: Story| {
        for broken in
            [json!([{ "id": "edge-1", "token": "new" }, { "id": "edge-2" }]).to_string(), "[{".to_owned(), "[]".to_owned()]
        {
            s.write_file("hub/server", CLUSTERS, &broken);
            s.pass(NOTICED).await;
        }
        s.machine("hub/server").disk().remove(CLUSTERS);
        s.pass(secs(10)).await;
        for cluster in ["edge-1", "edge-2"] {
            s.kubectl().get(cluster, "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        heard_of(&s, "hub/server", "--clusters /etc/postern/clusters.json:1: [1].token: is missing")?;
        let downs = s.trace().lines().into_iter().filter(|line| line.what.contains("session down")).count();
        anyhow::ensure!(downs == 0, "{downs} sessions went down");
        let metrics = s.kubectl().request(Method::GET, "/metrics").within(secs(1)).await?.text();
        anyhow::ensure!(metrics.contains("config_files_refused_total{file=\"clusters\"} 4\n"), "{metrics}");
        Ok(())
    });
}

#[test]
fn a_request_that_waited_goes_to_where_the_file_leads_by_then() {
    World::new().cluster("edge-1", |c| c.version_1()).tell(async |s: Story| {
        let lead_to = |target: &str| {
            let entries = json!([{ "id": "edge-1", "token": tunnel_token("edge-1"), "targetAddr": target }]);
            s.write_file("hub/server", CLUSTERS, &entries.to_string());
        };
        lead_to("elsewhere:443");
        s.crash("edge-1/agent");
        s.pass(NOTICED).await;
        let kubectl = s.kubectl();
        let waits = s.start(async move { kubectl.get("edge-1", "/version").await });
        s.pass(secs(1)).await;

        lead_to("kubernetes.default.svc:443");
        s.pass(NOTICED).await;
        s.restart("edge-1/agent");
        waits.within(secs(5)).await??.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn two_tokens_are_good_while_one_is_rotated() {
    let new = format!("{}new", tunnel_token("edge-1"));
    let has_new = new.clone();
    World::new()
        .cluster("edge-1", |c| c.with(|config| config.token = SecretString::from(has_new).into()).offline())
        .cold()
        .version_1(Nothing("as recorded it has one token"), Nothing(FIXED))
        .tell(async |s: Story| {
            s.restart("edge-1/agent");
            s.never(secs(5), "connected", || s.machine("edge-1/agent").tasks().contains(&"session")).await?;
            s.add_token("edge-1", &new);
            s.pass(REDIALLED).await;
            let mut kept = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;

            s.drop_old_tokens("edge-1");

            s.pass(NOTICED).await;
            add_pod(&s, "edge-1", "late");
            heard(&mut kept, "late").within(secs(1)).await
        });
}
