//! What stories see of the Secrets in the hub's own Kubernetes, and what people do to them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sim::story::Story;
use sim::world::{ARGOCD_NAMESPACE, tunnel_token};

/// The hub's clusters file.
const CLUSTERS: &str = "/etc/postern/clusters.json";

/// A Secret of Argo CD's namespace.
pub(crate) fn named(s: &Story, name: &str) -> Option<Value> {
    s.api("hub").get("secrets", ARGOCD_NAMESPACE, name)
}

/// The Secret of a cluster.
pub(crate) fn of(s: &Story, cluster: &str) -> Option<Value> {
    named(s, &format!("postern-cluster-{cluster}"))
}

/// What stands under a key of a cluster's Secret, in plain text; empty without either.
pub(crate) fn data(s: &Story, cluster: &str, key: &str) -> String {
    let bytes = of(s, cluster).and_then(|secret| STANDARD.decode(secret["data"][key].as_str()?).ok());
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// An annotation of a cluster's Secret.
pub(crate) fn annotation(s: &Story, cluster: &str, key: &str) -> Option<String> {
    of(s, cluster)?["metadata"]["annotations"][key].as_str().map(str::to_owned)
}

/// A label of a cluster's Secret.
pub(crate) fn label(s: &Story, cluster: &str, key: &str) -> Option<String> {
    of(s, cluster)?["metadata"]["labels"][key].as_str().map(str::to_owned)
}

/// Whether Argo CD leaves the cluster alone.
pub(crate) fn is_skipped(s: &Story, cluster: &str) -> bool {
    annotation(s, cluster, "argocd.argoproj.io/skip-reconcile").is_some_and(|value| value == "true")
}

/// All writes that the server has made so far.
pub(crate) fn n_writes(s: &Story) -> usize {
    s.api("hub").executed_writes().len()
}

/// All deletions that the server has made so far.
pub(crate) fn n_deletions(s: &Story) -> usize {
    s.api("hub").executed_writes().iter().filter(|write| write.verb == "delete").count()
}

/// A person changes a Secret.
pub(crate) fn edit(s: &Story, name: &str, change: impl FnOnce(&mut Value)) {
    s.note(&format!("a person edits {name}"));
    let mut secret = named(s, name).unwrap_or_else(|| json!({ "metadata": {} }));
    change(&mut secret);
    s.api("hub").put("secrets", ARGOCD_NAMESPACE, name, secret);
}

/// The clusters file lists these, with labels.
pub(crate) fn list(s: &Story, clusters: &[(&str, &Value)]) {
    let entry = |(id, labels): &(&str, &Value)| json!({ "id": id, "token": tunnel_token(id), "labels": labels });
    s.write_file("hub/server", CLUSTERS, &json!(clusters.iter().map(entry).collect::<Vec<_>>()).to_string());
}

/// How often the server has said something.
pub(crate) fn n_said(s: &Story, what: &str) -> usize {
    s.trace().lines().iter().filter(|line| line.who == "hub/server" && line.what.contains(what)).count()
}
