//! A cluster Secret of Argo CD: its name, its marks, and what the server sees of one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use crate::config::clusters::is_subdomain;

/// By it Argo CD finds its clusters.
pub(crate) const SECRET_TYPE: &str = "argocd.argoproj.io/secret-type";

/// By it the server finds what it may have made.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What stands there.
pub(crate) const PROGRAM: &str = "postern-server";

/// With the value `true` Argo CD's controller leaves the cluster alone.
pub(crate) const SKIP_RECONCILE: &str = "argocd.argoproj.io/skip-reconcile";

/// The hub whose it is, by its name.
pub(crate) const HUB: &str = "postern/hub";

/// The cluster whose it is.
pub(crate) const CLUSTER: &str = "postern/cluster";

/// The keys of labels that came from the clusters file, to be taken away with it.
pub(crate) const PASSED_LABELS: &str = "postern/passed-labels";

/// The same of annotations.
pub(crate) const PASSED_ANNOTATIONS: &str = "postern/passed-annotations";

/// Since when the server has Argo CD skip the cluster. Without it, whoever set the other annotation was not the server.
pub(crate) const SKIPPED_SINCE: &str = "postern/skipped-since";

/// Since when the cluster is configured no longer.
pub(crate) const REMOVED_SINCE: &str = "postern/removed-since";

/// What kubectl remembers of an object that was applied, credentials and all.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether no clusters file may set it.
pub(crate) fn is_own_label(key: &str) -> bool {
    matches!(key, SECRET_TYPE | MANAGED_BY)
}

/// Whether no clusters file may set it.
pub(crate) fn is_own_annotation(key: &str) -> bool {
    key.starts_with("postern/") || matches!(key, SKIP_RECONCILE | LAST_APPLIED)
}

/// The name of a cluster's Secret: a DNS subdomain (RFC 1123), which an id with `..` or `.-` would not make.
pub(crate) fn name_of(cluster: &str) -> String {
    let plain = format!("postern-cluster-{cluster}");
    if is_subdomain(&plain) {
        return plain;
    }
    let digest: String = Sha256::digest(cluster).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("postern-cluster-{}-{digest}", cluster.replace('.', "-"))
}

/// SHA-256 of the credentials in a Secret: whether they differ is all that is asked of them, and nothing of them is kept.
pub(crate) type ConfigDigest = [u8; 32];

/// The digest of `data.config`.
pub(crate) fn digest(config: &[u8]) -> ConfigDigest {
    Sha256::digest(config).into()
}

/// A Secret as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// `data.name` and `data.server`.
    pub(crate) called: Vec<u8>,
    pub(crate) server: Vec<u8>,
    pub(crate) config: ConfigDigest,
    /// It is being deleted, and waits for somebody's finalizer.
    pub(crate) is_ending: bool,
}

impl Found {
    /// `None` for what no API server would answer: an object without a name, identity or version.
    pub(crate) fn of(secret: Secret) -> Option<Self> {
        let metadata = secret.metadata;
        let mut data = secret.data.unwrap_or_default();
        let mut of = |key: &str| data.remove(key).map(|bytes| bytes.0).unwrap_or_default();
        let (called, server, config) = (of("name"), of("server"), digest(&of("config")));
        Some(Self {
            name: metadata.name?,
            uid: metadata.uid?,
            version: metadata.resource_version?,
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            called,
            server,
            config,
            is_ending: metadata.deletion_timestamp.is_some(),
        })
    }

    /// The cluster whose it is, if `hub` made it or was given it.
    pub(crate) fn cluster_of(&self, hub: &str) -> Option<&str> {
        let is_managed = self.labels.get(MANAGED_BY).is_some_and(|by| by == PROGRAM);
        let is_of_hub = self.annotations.get(HUB).is_some_and(|of| of == hub);
        self.annotations.get(CLUSTER).filter(|cluster| is_managed && is_of_hub && !cluster.is_empty()).map(String::as_str)
    }

    /// Whose it is, for people, when it is not the one that `hub` needs.
    pub(crate) fn owner(&self, hub: &str) -> String {
        if let Some(cluster) = self.cluster_of(hub) {
            return format!("it is marked as the Secret of the cluster {cluster}");
        }
        match (self.labels.get(MANAGED_BY), self.annotations.get(HUB)) {
            (Some(by), Some(hub)) if by == PROGRAM => format!("it is of the hub {hub}"),
            (Some(by), _) if by != PROGRAM => format!("it is managed by {by}"),
            (Some(_) | None, _) => "it is somebody else's".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_of_a_cluster_makes_a_name_of_its_own_that_kubernetes_takes() {
        let longest = "x".repeat(63);
        let ids = ["edge-1", "a.b", "a..b", "a.-b", "a-.b", "a--b", "a-b", longest.as_str()];
        let names: std::collections::BTreeSet<_> = ids.iter().map(|id| name_of(id)).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        assert!(names.iter().all(|name| is_subdomain(name)), "{names:?}");
        assert_eq!(name_of("edge-1"), "postern-cluster-edge-1");
    }
}
