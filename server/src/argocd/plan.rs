//! Plan: from what is wanted, what is there, how clusters stand and the time of day to what is to be done. Pure.
//!
//! Nothing here removes a Secret of a cluster that is configured, nor one that is not this hub's, nor one before its time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::secret::{
    CLUSTER, ConfigDigest, Found, HUB, MANAGED_BY, PASSED_ANNOTATIONS, PASSED_LABELS, PROGRAM, REMOVED_SINCE, SECRET_TYPE,
    SKIP_RECONCILE, SKIPPED_SINCE, digest, is_own_annotation, is_own_label, name_of,
};

/// How long a process has to have seen that a cluster is gone, at least and whatever the time of day: a wall clock that jumps is
/// set right by then, and a server whose clusters file is older than another's, as in a rollout, has ended.
const SEEN_GONE_MIN: Duration = Duration::from_secs(600);

/// What Argo CD is to have; with credentials, which nothing prints.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    /// The hub's name: its URL.
    pub(crate) hub: String,
    /// `data.config`, the same for all.
    pub(crate) config: Vec<u8>,
    pub(crate) digest: ConfigDigest,
    pub(crate) clusters: BTreeMap<String, Target>,
    pub(crate) retention: Duration,
    /// For how long this process itself has seen each cluster that is not configured: no clock can jump over that.
    pub(crate) seen_gone_for: BTreeMap<String, Duration>,
}

/// One cluster, as its Secret tells it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    /// The URL at which it is reached.
    pub(crate) server: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Whether Argo CD is to leave a cluster alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As it is now.
    Keep,
    /// It was offline for too long.
    Skip,
    /// It is back, and its moment has come.
    Lift,
}

/// One write; with credentials, which nothing prints.
#[derive(Clone, PartialEq)]
pub(crate) enum Action {
    /// Makes what nobody has.
    Create { cluster: String, name: String, secret: Value },
    /// Changes what differs, and only of the version that was seen.
    Patch { name: String, patch: Value },
    /// Deletes that object, of the version that was seen.
    Delete { name: String, uid: String, version: String },
}

impl Action {
    /// The Secret's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Create { name, .. } | Self::Patch { name, .. } | Self::Delete { name, .. } => name,
        }
    }

    /// Whether it makes what was not there.
    pub(crate) fn is_creation(&self) -> bool {
        matches!(self, Self::Create { .. })
    }

    /// A word for metrics.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Patch { .. } => "patch",
            Self::Delete { .. } => "delete",
        }
    }

    /// What it wants, whatever version was there and whatever time it is: two that want the same have the same.
    pub(crate) fn digest(&self) -> ConfigDigest {
        let mut wanted = match self {
            Self::Create { secret, .. } => secret.clone(),
            Self::Patch { patch, .. } => patch.clone(),
            Self::Delete { .. } => Value::Null,
        };
        if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            for key in [SKIPPED_SINCE, REMOVED_SINCE] {
                let time = metadata.get_mut("annotations").and_then(|annotations| annotations.get_mut(key));
                time.into_iter().filter(|time| time.is_string()).for_each(|time| *time = "".into());
            }
        }
        digest(format!("{} {wanted}", self.verb()).as_bytes())
    }

    /// What it was, for the log.
    pub(crate) fn told(&self) -> &'static str {
        match self {
            Self::Create { .. } => "a cluster was registered in Argo CD",
            Self::Patch { .. } => "the Secret of a cluster in Argo CD was brought up to date",
            Self::Delete { .. } => "the Secret of a cluster that is configured no longer was deleted",
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb(), self.name())
    }
}

/// What is to be done, and what there is before.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Secrets of configured clusters that Argo CD works with.
    pub(crate) n_registered: usize,
    /// Those that the server has it skip.
    pub(crate) n_skipped: usize,
    /// Those of clusters that are configured no longer.
    pub(crate) n_removed: usize,
    /// Until the first of them is to be deleted.
    pub(crate) next_removal: Option<Duration>,
    /// URLs that Argo CD finds in more than one Secret, with the names of those.
    pub(crate) duplicates: BTreeMap<Vec<u8>, Vec<String>>,
}

/// Says what to do at the time of day `now`.
pub(crate) fn plan(wanted: &Wanted, found: &[Found], standing: &dyn Fn(&str) -> Standing, now: Timestamp) -> Plan {
    let mut plan = Plan { duplicates: duplicates(found), ..Plan::default() };
    let mut present = BTreeSet::new();
    let is_of_configured = |secret: &&Found| {
        let target = secret.cluster_of(&wanted.hub).and_then(|cluster| wanted.clusters.get(cluster));
        !secret.is_ending && target.is_some_and(|target| target.server.as_bytes() == secret.server)
    };
    let served: BTreeSet<_> = found.iter().filter(is_of_configured).map(|secret| secret.server.as_slice()).collect();
    let is_shared = |secret: &Found| served.contains(secret.server.as_slice());
    for secret in found {
        let Some(cluster) = secret.cluster_of(&wanted.hub) else { continue };
        match wanted.clusters.get(cluster) {
            Some(target) => {
                present.insert(cluster);
                let is_skipped = secret.annotations.contains_key(SKIPPED_SINCE);
                *if is_skipped { &mut plan.n_skipped } else { &mut plan.n_registered } += 1;
                // Whoever deletes it has begun already; it is made anew when it is gone.
                if !secret.is_ending {
                    plan.actions.extend(patch(wanted, cluster, target, secret, standing(cluster), now));
                }
            }
            None => {
                plan.n_removed += 1;
                let left = left(wanted, cluster, secret, now).filter(|_| !secret.is_ending);
                plan.next_removal = plan.next_removal.into_iter().chain(left).min();
                let has_successor = is_shared(secret) && secret.labels.contains_key(SECRET_TYPE);
                plan.actions.extend(remove(secret, left, has_successor, now).filter(|_| !secret.is_ending));
            }
        }
    }
    for (cluster, target) in wanted.clusters.iter().filter(|(cluster, _)| !present.contains(cluster.as_str())) {
        plan.actions.push(create(wanted, cluster, target, standing(cluster), now));
    }
    plan
}

/// What leads Argo CD to one URL by several Secrets, whichever hub's they are.
fn duplicates(found: &[Found]) -> BTreeMap<Vec<u8>, Vec<String>> {
    let mut of_url = BTreeMap::<Vec<u8>, Vec<String>>::new();
    for secret in found.iter().filter(|secret| secret.labels.contains_key(SECRET_TYPE) && !secret.server.is_empty()) {
        of_url.entry(secret.server.clone()).or_default().push(secret.name.clone());
    }
    of_url.retain(|_, names| names.len() > 1);
    of_url
}

fn create(wanted: &Wanted, cluster: &str, target: &Target, standing: Standing, now: Timestamp) -> Action {
    let name = name_of(cluster);
    let (labels, mut annotations) = marks(wanted, cluster, target);
    if standing == Standing::Skip {
        annotations.extend(skip(now));
    }
    let data = json!({
        "name": STANDARD.encode(cluster),
        "server": STANDARD.encode(&target.server),
        "config": STANDARD.encode(&wanted.config),
    });
    let metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data });
    Action::Create { cluster: cluster.to_owned(), name, secret }
}

/// Labels and annotations that a Secret has from the server, however the cluster stands.
fn marks(wanted: &Wanted, cluster: &str, target: &Target) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    // Its own come last, and win.
    let labels = target.labels.clone().into_iter().chain([of(SECRET_TYPE, "cluster"), of(MANAGED_BY, PROGRAM)]);
    let mut annotations = target.annotations.clone();
    annotations.extend([of(HUB, &wanted.hub), of(CLUSTER, cluster)]);
    for (key, passed) in [(PASSED_LABELS, &target.labels), (PASSED_ANNOTATIONS, &target.annotations)] {
        if !passed.is_empty() {
            annotations.insert(key.to_owned(), passed.keys().map(String::as_str).collect::<Vec<_>>().join(","));
        }
    }
    (labels.collect(), annotations)
}

/// What has Argo CD leave a cluster alone, and tells that the server wanted it.
fn skip(now: Timestamp) -> [(String, String); 2] {
    [(SKIP_RECONCILE.to_owned(), "true".to_owned()), (SKIPPED_SINCE.to_owned(), now.to_string())]
}

/// What differs, as a JSON merge patch (RFC 7386), if anything does.
fn patch(wanted: &Wanted, cluster: &str, target: &Target, found: &Found, standing: Standing, now: Timestamp) -> Option<Action> {
    let (labels, mut annotations) = marks(wanted, cluster, target);
    let passed_labels = passed(found, PASSED_LABELS).filter(|key| !is_own_label(key));
    let passed_annotations = passed(found, PASSED_ANNOTATIONS).filter(|key| !is_own_annotation(key));
    let mut gone: Vec<&str> = passed_annotations.chain([REMOVED_SINCE, PASSED_LABELS, PASSED_ANNOTATIONS]).collect();
    let has = |key: &str| found.annotations.contains_key(key);
    match standing {
        // A person's word on it stands, whatever it is.
        Standing::Skip if !has(SKIPPED_SINCE) && !has(SKIP_RECONCILE) => {
            annotations.extend(skip(now));
        }
        Standing::Lift if has(SKIPPED_SINCE) => {
            gone.push(SKIPPED_SINCE);
            if found.annotations.get(SKIP_RECONCILE).is_some_and(|value| value == "true") {
                gone.push(SKIP_RECONCILE);
            }
        }
        Standing::Keep | Standing::Skip | Standing::Lift => {}
    }
    let labels = difference(&labels, passed_labels, &found.labels);
    let annotations = difference(&annotations, gone.into_iter(), &found.annotations);
    let mut data = Map::new();
    let is = [
        ("name", cluster.as_bytes(), found.called == cluster.as_bytes()),
        ("server", target.server.as_bytes(), found.server == target.server.as_bytes()),
        ("config", wanted.config.as_slice(), found.config == wanted.digest),
    ];
    for (key, bytes, _) in is.into_iter().filter(|(_, _, is_same)| !is_same) {
        data.insert(key.to_owned(), STANDARD.encode(bytes).into());
    }
    if labels.is_empty() && annotations.is_empty() && data.is_empty() {
        return None;
    }
    Some(patch_of(found, labels, annotations, data))
}

/// Marks it at first, and deletes it when no time is `left`. Argo CD is to see one Secret for each URL: what has a successor
/// leaves its sight at once.
fn remove(found: &Found, left: Option<Duration>, has_successor: bool, now: Timestamp) -> Option<Action> {
    let is_marked = removed_since(found).is_some();
    if has_successor || !is_marked {
        let labels = has_successor.then(|| (SECRET_TYPE.to_owned(), Value::Null));
        let mark = (!is_marked).then(|| (REMOVED_SINCE.to_owned(), now.to_string().into()));
        return Some(patch_of(found, labels.into_iter().collect(), mark.into_iter().collect(), Map::new()));
    }
    let Found { name, uid, version, .. } = found.clone();
    left?.is_zero().then_some(Action::Delete { name, uid, version })
}

/// How long the Secret of a cluster that is configured no longer stays, if that is known.
fn left(wanted: &Wanted, cluster: &str, found: &Found, now: Timestamp) -> Option<Duration> {
    let seen_gone_for = wanted.seen_gone_for.get(cluster).copied().unwrap_or_default();
    let unseen = wanted.retention.min(SEEN_GONE_MIN).saturating_sub(seen_gone_for);
    removed_for(found, now).map(|gone_for| wanted.retention.saturating_sub(gone_for).max(unseen))
}

fn removed_since(found: &Found) -> Option<Timestamp> {
    found.annotations.get(REMOVED_SINCE).and_then(|since| since.parse().ok())
}

/// For how long its cluster is gone. What lies in the future was written by another clock, and says nothing.
fn removed_for(found: &Found, now: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(removed_since(found)?)).ok()
}

/// Keys that came from the clusters file when the Secret was written last.
fn passed<'a>(found: &'a Found, record: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    found.annotations.get(record).into_iter().flat_map(|keys| keys.split(',')).filter(|key| !key.is_empty())
}

/// What makes `found` have all of `wanted`, and none of `gone` that is not wanted; the rest is others'.
fn difference<'a>(
    wanted: &BTreeMap<String, String>,
    gone: impl Iterator<Item = &'a str>,
    found: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let gone = gone.filter(|key| found.contains_key(*key) && !wanted.contains_key(*key)).map(|key| (key.to_owned(), Value::Null));
    let set = wanted.iter().filter(|(key, value)| found.get(*key) != Some(*value));
    gone.chain(set.map(|(key, value)| (key.clone(), value.as_str().into()))).collect()
}

fn patch_of(found: &Found, labels: Map<String, Value>, annotations: Map<String, Value>, data: Map<String, Value>) -> Action {
    let mut metadata = Map::from_iter([("resourceVersion".to_owned(), found.version.as_str().into())]);
    let mut patch = Map::new();
    for (key, part) in [("labels", labels), ("annotations", annotations)] {
        if !part.is_empty() {
            metadata.insert(key.to_owned(), part.into());
        }
    }
    patch.insert("metadata".to_owned(), metadata.into());
    if !data.is_empty() {
        patch.insert("data".to_owned(), data.into());
    }
    Action::Patch { name: found.name.clone(), patch: patch.into() }
}

#[cfg(test)]
mod tests;
