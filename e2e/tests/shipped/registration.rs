//! Registration by the server itself: it keeps Argo CD's Secrets, and takes none away that it cannot prove gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{CLUSTER_ID, Kubectl, SERVER, Shipped, wait_for};
use serde_json::{Value, json};

use crate::Stage;
use crate::contact::leads_to_the_cluster;

/// The server looks after its Secrets every minute at least.
const KEPT_MAX: Duration = Duration::from_secs(100);

/// Whose Secrets are looked at.
const OURS: &str = "argocd.argoproj.io/secret-type=cluster,app.kubernetes.io/managed-by=postern-server";

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage) {
    stage.step("the server itself keeps Argo CD's Secrets", kept);
}

fn kept(shipped: &mut Shipped) -> Result<()> {
    let argocd = shipped.hub.admin.in_namespace(shipped.argocd_namespace());
    let client = shipped.authority.client("argocd")?;
    let tls = [("tls.crt", client.certificate.as_str()), ("tls.key", &client.key)];
    shipped.hub.set_secret("argocd-client-tls", "kubernetes.io/tls", &tls)?;
    let by_chart = shipped.server_values.clone();
    shipped.server_values["argocd"] = json!({
        "enabled": true, "managed": true, "namespace": shipped.argocd_namespace(),
        "clientCertSecret": "argocd-client-tls", "caSecret": "proxy-ca",
    });
    shipped.server_values["clusters"][0]["labels"] = json!({"tier": "test"});
    shipped.upgrade_server()?;
    let secret = secret_of(&argocd, None)?;
    ensure!(secret["metadata"]["labels"]["tier"] == "test", "its labels are {}", secret["metadata"]["labels"]);
    leads_to_the_cluster(shipped, &secret)?;
    // What somebody has deleted comes again.
    let name = secret["metadata"]["name"].as_str().unwrap_or_default();
    argocd.ok(&["delete", "secret", name])?;
    secret_of(&argocd, secret["metadata"]["uid"].as_str())?;
    // Who turns it off keeps what there is, and takes it away by hand.
    shipped.server_values = by_chart;
    shipped.upgrade_server()?;
    secret_of(&argocd, None)?;
    argocd.ok(&["delete", "secrets", "-l", OURS])?;
    argocd.ok(&["get", "secret", &format!("{SERVER}-cluster-{CLUSTER_ID}")])?;
    shipped.hub.admin.ok(&["delete", "secret", "argocd-client-tls"]).map(drop)
}

/// Waits for the one Secret of the server's own, if it must be with another uid than `not`.
fn secret_of(argocd: &Kubectl, not: Option<&str>) -> Result<Value> {
    wait_for("the server's Secret for Argo CD", KEPT_MAX, || {
        let found = argocd.json(&["get", "secrets", "-l", OURS])?;
        let other = |secret: &&Value| secret["metadata"]["uid"].as_str() != not;
        Ok(found["items"].as_array().and_then(|items| items.iter().find(other)).cloned())
    })
}
