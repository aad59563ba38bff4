//! Argo CD itself, where its manifests are given: it finds the cluster by its Secret and syncs an application to it.
//!
//! `E2E_ARGOCD_MANIFESTS` names its `install.yaml`, `E2E_ARGOCD_IMAGES` an archive of its images. The application comes from
//! `E2E_ARGOCD_REPO`, which the hub must reach.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{AGENT, CLUSTER_ID, Names, Shipped, wait_for};
use serde_json::json;

use crate::Stage;

/// Argo CD's manifests bind cluster roles to service accounts of this namespace.
const NAMESPACE: &str = "argocd";

/// The application of its own first steps: a Deployment and a Service.
const REPO: &str = "https://github.com/argoproj/argocd-example-apps";
const APPLICATION: &str = "guestbook";

/// Seven pods, whose images may have to be pulled.
const STARTED_MAX: Duration = Duration::from_secs(600);

/// To clone, compare and apply, and for a pod to start from an image that is pulled.
const SYNCED_MAX: Duration = Duration::from_secs(300);

/// The names to use: Argo CD cannot be installed elsewhere than where it wants to be.
pub(crate) fn names(names: Names) -> Names {
    if given("E2E_ARGOCD_MANIFESTS").is_some() { Names { argocd: NAMESPACE.to_owned(), ..names } } else { names }
}

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage) {
    let Some(manifests) = given("E2E_ARGOCD_MANIFESTS") else {
        eprintln!("SKIPPED: Argo CD itself: `cargo xtask e2e --kind --argocd-manifests install.yaml`, with its images at hand");
        return;
    };
    let file = manifests.display().to_string();
    if stage.must("Argo CD is installed", |shipped| install(shipped, &file)) {
        stage.step("Argo CD syncs an application to the cluster", sync);
    }
    stage.must("Argo CD is removed", |shipped| {
        let admin = shipped.hub.admin.in_namespace(NAMESPACE);
        admin.ok(&["delete", "-f", &file, "--ignore-not-found", "--wait=false"]).map(drop)
    });
}

fn given(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn install(shipped: &mut Shipped, manifests: &str) -> Result<()> {
    if let Some(images) = given("E2E_ARGOCD_IMAGES") {
        shipped.hub.load_archive(Path::new(&images))?;
    }
    let admin = shipped.hub.admin.in_namespace(NAMESPACE);
    // Its CRDs are too large for the note that an ordinary apply leaves.
    admin.ok(&["apply", "--server-side", "-f", manifests])?;
    let rolled_out = || {
        let pods = admin.json(&["get", "deployments,statefulsets"])?;
        let ready = |item: &serde_json::Value| item["status"]["readyReplicas"] == item["spec"]["replicas"];
        let items = pods["items"].as_array().cloned().unwrap_or_default();
        Ok((!items.is_empty() && items.iter().all(ready)).then_some(()))
    };
    wait_for("Argo CD to start", STARTED_MAX, rolled_out)
}

fn sync(shipped: &mut Shipped) -> Result<()> {
    let admin = shipped.hub.admin.in_namespace(NAMESPACE);
    let repo = std::env::var("E2E_ARGOCD_REPO").unwrap_or_else(|_| REPO.to_owned());
    let namespace = shipped.edge.admin.namespace();
    let application = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": APPLICATION},
        "spec": {
            "project": "default",
            "source": {"repoURL": repo, "path": APPLICATION},
            "destination": {"name": CLUSTER_ID, "namespace": namespace},
            "syncPolicy": {"automated": {"prune": true}},
        },
    });
    admin.create(&application)?;
    let synced = || {
        let status = admin.json(&["get", "application", APPLICATION])?["status"].clone();
        Ok((status["sync"]["status"] == "Synced" && status["health"]["status"] == "Healthy").then_some(()))
    };
    let result = wait_for("the application to be synced and healthy", SYNCED_MAX, synced);
    let found = shipped.edge.admin.ok(&["get", "deployments", "-o", "name"])?;
    // What it has made, it takes away.
    admin.ok(&["patch", "application", APPLICATION, "--type=merge", "-p", FINALIZER])?;
    admin.ok(&["delete", "application", APPLICATION])?;
    result?;
    ensure!(found.lines().any(|name| !name.ends_with(AGENT)), "nothing was made in the edge: {found}");
    Ok(())
}

/// Lets the end of an application take its objects along.
const FINALIZER: &str = r#"{"metadata":{"finalizers":["resources-finalizer.argocd.argoproj.io"]}}"#;
