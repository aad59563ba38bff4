//! The word of a cluster's own people: what their policy does not let through, no hub gets.

use anyhow::Context;
use http::{Method, StatusCode};
use sim::caller::{Answer, Call};
use sim::kubectl::Exec;
use sim::promise::Promise::{Less, Nothing, Same};
use sim::story::{Story, Within, millis, secs};
use sim::world::{World, tunnel_token};

use crate::claims::{add_pod, heard, heard_of};

const GUARD: &str = "/etc/postern/guard.yaml";
const CLUSTERS: &str = "/etc/postern/clusters.json";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Why a version 1 agent promises nothing.
const UNGUARDED: &str = "it has no guard";

/// How long a change of the file may take to end what runs.
const ACTED_ON: std::time::Duration = secs(1);

#[test]
fn a_freeze_ends_what_runs_within_a_second_and_refuses_what_comes() {
    world().version_1(Nothing(UNGUARDED), Less("a broken watch looks whole")).tell(async |s: Story| {
        policy_is(&s, "readOnly: false").await?;
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;
        exec.write(b"still here").await?;
        exec.read().within(secs(1)).await?;
        let kubectl = s.kubectl();
        let n_open = s.api("edge-1").n_requests_open();
        let hanging = s.apiserver("edge-1").hang();
        let upload = s.start(async move { kubectl.request(Method::POST, "/tunnel/edge-1/upload").upload(100_000).await });
        s.until("the upload is there too", || s.api("edge-1").n_requests_open() > n_open).within(secs(1)).await?;

        s.write_file("edge-1/agent", GUARD, "frozen: true");

        s.until("nothing runs at the API server", || s.api("edge-1").n_execs() + s.api("edge-1").n_watches() == 0)
            .within(ACTED_ON)
            .await?;
        ended(&mut watch, s.claims_less()).within(millis(200)).await?;
        left(&mut exec).within(millis(200)).await?;
        let upload = upload.within(millis(200)).await??;
        anyhow::ensure!(upload.status == StatusCode::BAD_GATEWAY && upload.headers.get("retry-after").is_none(), "{upload:?}");
        drop(hanging);

        let refused = s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
        let status: serde_json::Value = serde_json::from_str(&refused.text())?;
        anyhow::ensure!(status["reason"] == "Frozen" && status["details"]["causes"][0]["reason"] == "Frozen", "{status}");
        anyhow::ensure!(refused.headers.get("retry-after").is_none(), "a frozen cluster asks to be tried again");

        s.write_file("edge-1/agent", GUARD, "frozen: false");
        s.pass(ACTED_ON).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_change_ends_what_it_forbids_and_nothing_else() {
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "{}").await?;
        let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;

        s.write_file("edge-1/agent", GUARD, "exec: false");

        s.until("no command runs in the pod", || s.api("edge-1").n_execs() == 0).within(ACTED_ON).await?;
        left(&mut exec).within(secs(1)).await?;
        anyhow::ensure!(s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await.is_err(), "an exec came about");
        add_pod(&s, "edge-1", "late");
        heard(&mut watch, "late").within(secs(1)).await?;
        Ok(())
    });
}

#[test]
fn without_exec_and_secrets_the_side_doors_are_closed_too() {
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "{exec: false, secrets: false}").await?;
        for (method, path) in [
            (Method::GET, "/api/v1/secrets"),
            (Method::GET, "/api/v1/namespaces/default/secrets/s"),
            (Method::HEAD, "/api/v1/namespaces/default/secrets/s"),
            (Method::GET, "/api/v1/watch/secrets"),
            (Method::DELETE, "/api/v1/namespaces/default/secrets"),
            (Method::PATCH, "/api/v1/namespaces/default/secrets/s"),
            (Method::GET, "/api/v1/namespaces/default/%73ecrets"),
            (Method::GET, "/api/v1/namespaces/default/pods%2F..%2Fsecrets"),
            (Method::GET, "/api/v1/namespaces/default//secrets"),
            (Method::GET, "/api/v1/namespaces/default/pods/../secrets"),
            (Method::GET, "/api/v1/nodes/n/proxy/pods"),
            (Method::GET, "/api/v1/proxy/nodes/n/pods"),
            (Method::PATCH, "/api/v1/namespaces/default/pods/web-0/ephemeralcontainers"),
            (Method::POST, "/api/v1/namespaces/default/serviceaccounts/default/token"),
            (Method::POST, "/api/v1/namespaces/default/pods/web-0/exec?command=sh"),
            (Method::GET, "/api/v1/namespaces/default/pods/web-0/portforward?ports=80"),
            (Method::GET, "/api/v1/namespaces/default/services/web/proxy/"),
        ] {
            refused(&s, call(&s, method, path)).await?;
        }
        s.kubectl().get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_read_only_cluster_is_read_and_not_written() {
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "readOnly: true").await?;
        for (method, path) in [
            (Method::POST, PODS),
            (Method::PUT, "/api/v1/namespaces/default/pods/web-0"),
            (Method::PATCH, "/api/v1/namespaces/default/pods/web-0/status"),
            (Method::DELETE, "/api/v1/namespaces/default/pods/web-0"),
            (Method::DELETE, PODS),
            (Method::POST, "/api/v1/watch/namespaces/default/pods"),
            (Method::GET, "/api/v1/namespaces/default/pods/web-0/exec?command=sh"),
        ] {
            refused(&s, call(&s, method, path)).await?;
        }
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        add_pod(&s, "edge-1", "late");
        heard(&mut watch, "late").within(secs(1)).await?;
        anyhow::ensure!(s.api("edge-1").executed_writes().is_empty(), "something was written");
        Ok(())
    });
}

#[test]
fn a_denied_namespace_is_seen_by_no_path() {
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "deny: [{namespaces: [kube-system]}]").await?;
        for path in [
            "/api/v1/namespaces/kube-system/pods",
            "/api/v1/namespaces/kube-system",
            "/api/v1/namespaces",
            "/api/v1/pods",
            "/api/v1/pods?watch=1",
            "/api/v1/pods?fieldSelector=metadata.name%3Dweb-0",
            "/api/v1/namespaces/kube%2Dsystem/pods",
            "/api/v1/namespaces/default/../kube-system/pods",
        ] {
            refused(&s, call(&s, Method::GET, path)).await?;
        }
        let told = s.kubectl().get("edge-1", "/api/v1/pods").within(secs(1)).await?.text();
        anyhow::ensure!(told.contains("deny[0]"), "{told}");
        s.kubectl().get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn where_creating_is_denied_an_apply_and_a_put_create_nothing_either() {
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "deny: [{verbs: [create], namespaces: [default]}]").await?;
        let new = format!("{PODS}/new");
        let of = |method, media_type| call(&s, method, &new).header("content-type", media_type).body("{}");
        for media_type in ["application/apply-patch+yaml", "application/apply-patch+cbor"] {
            refused(&s, of(Method::PATCH, media_type)).await?;
        }
        refused(&s, of(Method::PUT, "application/json")).await?;
        of(Method::PATCH, "application/merge-patch+json").within(secs(1)).await?.expect(StatusCode::NOT_FOUND)?;
        Ok(())
    });
}

#[test]
fn a_policy_with_mistakes_changes_nothing() {
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "secrets: false").await?;
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        for broken in ["secrets: true\nfrozne: true", "secrets: perhaps", "", "{", "deny:\n- verbs: [get]"] {
            s.write_file("edge-1/agent", GUARD, broken);
            s.pass(ACTED_ON).await;
            refused(&s, call(&s, Method::GET, "/api/v1/secrets")).await?;
        }
        heard_of(&s, "edge-1/agent", "--guard /etc/postern/guard.yaml:2: frozne: unknown field")?;
        s.machine("edge-1/agent").disk().remove(GUARD);
        s.pass(ACTED_ON).await;
        refused(&s, call(&s, Method::GET, "/api/v1/secrets")).await?;
        add_pod(&s, "edge-1", "late");
        heard(&mut watch, "late").within(secs(1)).await?;

        // A process that begins has no good one to stay with.
        s.crash("edge-1/agent");
        s.restart("edge-1/agent");
        s.until("it ends again", || heard_of(&s, "edge-1/agent", "--guard /etc/postern/guard.yaml: ").is_ok())
            .within(secs(1))
            .await?;
        s.never(secs(5), "connected", || s.machine("edge-1/agent").tasks().contains(&"session")).await
    });
}

#[test]
fn a_hub_that_sends_anything_gets_nothing_that_is_not_allowed() {
    // A version 1 server sends on whatever a caller sends, as a hostile one would.
    world().version_1(Nothing(UNGUARDED), Same).tell(async |s: Story| {
        policy_is(&s, "{exec: false, secrets: false, deny: [{nonResourceURLs: [/metrics]}]}").await?;
        for (name, value) in
            [("impersonate-user", "admin"), ("impersonate-group", "system:masters"), ("impersonate_user", "admin")]
        {
            refused(&s, call(&s, Method::GET, "/version").header(name, value)).await?;
        }
        for path in [
            "/metrics",
            "/./metrics",
            "/%6detrics",
            "/version/../metrics",
            "//metrics",
            "/api/v1/secrets?a;b",
            "/api/v1/watch/secrets",
        ] {
            refused(&s, call(&s, Method::GET, path)).await?;
        }
        Ok(())
    });
}

#[test]
fn who_may_be_impersonated_is_said_by_hub_and_cluster_both() {
    const ARGO: &str = "system:serviceaccount:argocd:deployer";
    const BOTH: &str = r#"{users: ["system:serviceaccount:argocd:*"], groups: [dev]}"#;
    world().version_1(Nothing(UNGUARDED), Nothing("it passes every header on")).tell(async |s: Story| {
        let listed = |impersonate: &str| {
            let token = tunnel_token("edge-1");
            format!(r#"[{{"id": "edge-1", "token": "{token}", "impersonate": {impersonate}}}]"#)
        };
        let at_hub = r#"{"users": ["system:serviceaccount:argocd:*"], "groups": ["dev"]}"#;
        s.write_file("hub/server", CLUSTERS, &listed(at_hub));
        policy_is(&s, &format!("impersonate: {BOTH}\n")).await?;
        let asked = || {
            let call = call(&s, Method::GET, PODS).header("impersonate-user", ARGO);
            call.header("impersonate-group", "dev")
        };

        asked().within(secs(1)).await?.expect(StatusCode::OK)?;
        let requests = s.api("edge-1").requests();
        let arrived = &requests.last().context("the request just made")?.headers;
        for (name, value) in [("impersonate-user", ARGO), ("impersonate-group", "dev")] {
            anyhow::ensure!(arrived.get(name).is_some_and(|there| there == value), "{name} is lost: {arrived:?}");
        }
        refused(&s, asked().header("impersonate-group", "system:masters")).await?;
        refused(&s, asked().header("impersonate-uid", "0")).await?;
        refused(&s, call(&s, Method::GET, PODS).header("impersonate-user", "system:admin")).await?;

        s.write_file("edge-1/agent", GUARD, "impersonate: {users: []}\n");
        s.pass(ACTED_ON).await;
        refused(&s, asked()).await?;
        s.write_file("edge-1/agent", GUARD, &format!("impersonate: {BOTH}\n"));
        s.write_file("hub/server", CLUSTERS, &listed("{}"));
        s.pass(ACTED_ON).await;
        refused(&s, asked()).await
    });
}

/// A cluster whose agent waits for a policy.
fn world() -> World {
    World::new().cluster("edge-1", |c| c.with(|config| config.guard = Some(GUARD.to_owned())).offline()).cold()
}

/// Writes the policy and starts the agent on it.
async fn policy_is(s: &Story, policy: &str) -> anyhow::Result<()> {
    s.write_file("edge-1/agent", GUARD, policy);
    s.restart("edge-1/agent");
    s.until_reachable("edge-1").await
}

fn call(s: &Story, method: Method, path: &str) -> Call {
    s.kubectl().request(method, &format!("/tunnel/edge-1{path}"))
}

/// Expects a 403, and that nothing arrives at the API server.
async fn refused(s: &Story, call: Call) -> anyhow::Result<()> {
    let n_before = s.api("edge-1").requests().len();
    let reply = call.within(secs(1)).await?;
    anyhow::ensure!(reply.status == StatusCode::FORBIDDEN, "{reply:?}");
    anyhow::ensure!(s.api("edge-1").requests().len() == n_before, "the API server has it, whatever was answered");
    Ok(())
}

/// Reads an exec to its end, however it ends.
async fn left(exec: &mut Exec) -> anyhow::Result<()> {
    while let Ok(Some(_)) = exec.read().await {}
    Ok(())
}

/// Reads a watch to its end, which must not look like a whole one's.
async fn ended(watch: &mut Answer, may_look_whole: bool) -> anyhow::Result<()> {
    loop {
        match watch.line().await {
            Ok(Some(_)) => {}
            Ok(None) if may_look_whole => return Ok(()),
            Ok(None) => anyhow::bail!("a cut watch ended as if whole"),
            Err(_) => return Ok(()),
        }
    }
}
