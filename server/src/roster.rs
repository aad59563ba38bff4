//! Roster: the clusters that may be reached, whose tokens they have and where paths lead, as the clusters file says now.

use std::collections::{BTreeMap, BTreeSet};

use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use proxy::impersonation::Impersonation;
use tokio::sync::watch;
use tunnel::id::ClusterId;

use crate::auth::{CertificateName, TokenDigest, Tokens};
use crate::config::ClusterConfig;
use crate::front_door::Routes;
use crate::front_door::refusal::Refusal;
use crate::trust::{Credential, Denied};

/// One list at a time, replaced whole.
pub(crate) struct Roster(watch::Sender<List>);

struct List {
    entries: BTreeMap<ClusterId, Entry>,
    tokens: Tokens<ClusterId>,
    routes: Routes,
}

#[derive(PartialEq, Eq)]
struct Entry {
    route: String,
    target: String,
    tokens: BTreeSet<TokenDigest>,
    /// Whose certificate goes with a token, if any.
    certificates: Vec<CertificateName>,
    impersonate: Impersonation,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// What Argo CD is told of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) route: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a new list says differently.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<ClusterId>,
    pub(crate) removed: Vec<ClusterId>,
    pub(crate) changed: Vec<ClusterId>,
    /// Those of `changed` that keep none of their tokens.
    pub(crate) rekeyed: Vec<ClusterId>,
}

impl Roster {
    pub(crate) fn new(clusters: &[ClusterConfig]) -> Self {
        Self(watch::Sender::new(List::new(clusters)))
    }

    /// Puts another list in place, for all who ask from now on.
    pub(crate) fn replace(&self, clusters: &[ClusterConfig]) -> Changes {
        let old = self.0.send_replace(List::new(clusters)).entries;
        let new = &self.0.borrow().entries;
        let mut changes = Changes::default();
        for (id, entry) in new {
            match old.get(id) {
                None => changes.added.push(id.clone()),
                Some(before) if before != entry => {
                    changes.changed.push(id.clone());
                    if before.tokens.is_disjoint(&entry.tokens) {
                        changes.rekeyed.push(id.clone());
                    }
                }
                Some(_) => {}
            }
        }
        changes.removed = old.into_keys().filter(|id| !new.contains_key(id)).collect();
        changes
    }

    /// All clusters.
    pub(crate) fn clusters(&self) -> Vec<ClusterId> {
        self.0.borrow().entries.keys().cloned().collect()
    }

    /// All clusters with what Argo CD is told of them.
    pub(crate) fn described(&self) -> Vec<(ClusterId, Described)> {
        let described = |entry: &Entry| {
            let (route, labels, annotations) = (entry.route.clone(), entry.labels.clone(), entry.annotations.clone());
            Described { route, labels, annotations }
        };
        self.0.borrow().entries.iter().map(|(id, entry)| (id.clone(), described(entry))).collect()
    }

    /// Whose token it is. Takes as long for a wrong token as for a right one.
    pub(crate) fn cluster_of(&self, token: &[u8]) -> Option<(ClusterId, TokenDigest)> {
        let digest = TokenDigest::of_bytes(token);
        self.0.borrow().tokens.owner_of(&digest).map(|cluster| (cluster.clone(), digest))
    }

    /// Whether the token is one of the cluster's, and the certificate the one that it asks for.
    pub(crate) fn judge(&self, cluster: &ClusterId, credential: &Credential) -> Result<(), Denied> {
        let list = self.0.borrow();
        let entry = list.entries.get(cluster).filter(|entry| entry.tokens.contains(&credential.token)).ok_or(Denied::Token)?;
        let has_one = |certificate| entry.certificates.iter().any(|name| name.is_of(certificate));
        match entry.certificates.is_empty() || credential.certificate.as_deref().is_some_and(has_one) {
            true => Ok(()),
            false => Err(Denied::Binding),
        }
    }

    /// Where a path leads; see [`Routes::route`].
    pub(crate) fn route(&self, uri: &Uri) -> Result<(ClusterId, PathAndQuery), Refusal> {
        self.0.borrow().routes.route(uri)
    }

    /// Whether the cluster lets a request act as whom it asks for.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn judge_impersonation(&self, cluster: &ClusterId, headers: &HeaderMap) -> Result<(), String> {
        match self.0.borrow().entries.get(cluster) {
            Some(entry) => entry.impersonate.judge(headers),
            None => Impersonation::default().judge(headers),
        }
    }

    /// What a version 1 agent of the cluster is asked to dial; empty for one that is not there.
    pub(crate) fn target(&self, cluster: &ClusterId) -> String {
        self.0.borrow().entries.get(cluster).map(|entry| entry.target.clone()).unwrap_or_default()
    }
}

impl List {
    fn new(clusters: &[ClusterConfig]) -> Self {
        let entry = |cluster: &ClusterConfig| Entry {
            route: cluster.route.clone(),
            target: cluster.target_addr.clone(),
            tokens: cluster.tokens.iter().copied().collect(),
            certificates: cluster.certificates.clone(),
            impersonate: cluster.impersonate.clone(),
            labels: cluster.labels.clone(),
            annotations: cluster.annotations.clone(),
        };
        Self {
            entries: clusters.iter().map(|cluster| (cluster.id.clone(), entry(cluster))).collect(),
            tokens: Tokens::new(clusters.iter().map(|cluster| (cluster.id.clone(), cluster.tokens.as_slice()))),
            routes: Routes::new(clusters),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_is_told_by_what_it_says_differently() {
        let list = |text: &str| crate::config::clusters::parse("CLUSTERS", text).expect("a good list").list;
        let roster = Roster::new(&list(r#"[{"id": "a", "token": "1"}, {"id": "b", "token": "2"}, {"id": "c", "token": "3"}]"#));
        let (b, old) = roster.cluster_of(b"2").expect("a known token");
        let accepts = |token| roster.judge(&b, &Credential { token, certificate: None }).is_ok();
        let both = r#"[{"id": "b", "token": "2", "tokens": ["4"]}, {"id": "c", "token": "3"}, {"id": "d", "token": "5"}]"#;
        let changes = roster.replace(&list(both));
        let names = |ids: &[ClusterId]| ids.iter().map(ClusterId::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!([&changes.added, &changes.changed, &changes.removed].map(|ids| names(ids)), ["d", "b", "a"]);
        assert!(changes.rekeyed.is_empty());
        assert!(roster.cluster_of(b"1").is_none() && accepts(old), "the other token of b stays");
        let changes = roster.replace(&list(&both.replace(r#""2", "tokens": ["4"]"#, r#""4""#)));
        assert_eq!(names(&changes.changed), "b");
        assert!(changes.rekeyed.is_empty(), "it keeps one of two");
        let changes = roster.replace(&list(&both.replace(r#""2", "tokens": ["4"]"#, r#""6""#)));
        assert_eq!(names(&changes.rekeyed), "b");
        assert!(!accepts(old));
        let bound = both.replace(r#""id": "b""#, r#""id": "b", "certificates": ["cn:b"]"#);
        roster.replace(&list(&bound));
        let denied = roster.judge(&b, &Credential { token: old, certificate: None });
        assert_eq!(denied, Err(Denied::Binding), "a stolen token alone is worth nothing");
    }
}
