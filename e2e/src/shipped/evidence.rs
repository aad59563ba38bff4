//! What may say why a step failed: logs, events, objects, manifests and metrics of both clusters, in one folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{AGENT, Place, SERVER, Shipped};

/// Gathers what there is. What cannot be had is said in its place: the very failure may be why.
pub(super) fn gather(shipped: &Shipped, what: &str) -> Result<PathBuf> {
    let word: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let folder = target_dir()?.join("e2e").join(format!("FAILED-{}-{word}", std::process::id()));
    for (role, place, release, port) in [("hub", &shipped.hub, SERVER, 8080), ("edge", &shipped.edge, AGENT, 8081)] {
        let folder = folder.join(role);
        fs::create_dir_all(&folder)?;
        look(place, release, port, &folder)?;
    }
    // What this process started, and said to helm.
    for entry in fs::read_dir(shipped.dir())?.flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(folder)
}

fn look(place: &Place, release: &str, port: u16, folder: &Path) -> Result<()> {
    let asked: [(&str, &[&str]); 5] = [
        ("nodes-and-pods.txt", &["get", "nodes,pods", "--all-namespaces", "-o", "wide"]),
        ("objects.txt", &["get", "all,secrets,configmaps,endpoints,networkpolicies", "-o", "wide"]),
        ("events.txt", &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]),
        ("describe-pods.txt", &["describe", "pods"]),
        ("describe-nodes.txt", &["describe", "nodes"]),
    ];
    for (file, args) in asked {
        fs::write(folder.join(file), said(place.admin.ok(args)))?;
    }
    for what in ["manifest", "values", "notes"] {
        fs::write(folder.join(format!("helm-{what}.txt")), said(place.helm(&["get", what, release])))?;
    }
    let pods =
        place.admin.ok(&["get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}"]).unwrap_or_default();
    for pod in pods.lines() {
        fs::write(folder.join(format!("{pod}.log")), said(place.admin.ok(&["logs", pod, "--all-containers"])))?;
        if let Ok(log) = place.admin.ok(&["logs", pod, "--all-containers", "--previous"]) {
            fs::write(folder.join(format!("{pod}.previous.log")), log)?;
        }
        if pod.starts_with(release) {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy/metrics", place.admin.namespace());
            fs::write(folder.join(format!("{pod}.metrics.txt")), said(place.admin.raw(&path)))?;
        }
    }
    Ok(())
}

fn said(result: Result<String>) -> String {
    result.unwrap_or_else(|error| format!("{error:#}\n"))
}

/// The target folder that this test was built into.
fn target_dir() -> Result<PathBuf> {
    let test = std::env::current_exe().context("find this test's own program")?;
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM.
    let profile = test.ancestors().find(|folder| folder.join("deps").is_dir()).and_then(Path::parent);
    Ok(profile.context("this program lies outside of a target directory")?.to_owned())
}
