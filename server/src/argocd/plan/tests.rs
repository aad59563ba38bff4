//! Plans as a table, and what no sequence of them may do.

use proptest::prelude::*;

use super::*;
use crate::argocd::secret::digest;

/// Passes until nothing is left to do: what is made in one may let go of something in the next, as of a Secret that Argo CD
/// would see beside the new one.
const PASSES_MAX: usize = 3;

const HUB_URL: &str = "https://hub.example:8080";

/// The Secret of edge-1.
const FIRST: &str = "postern-cluster-edge-1";

/// A minute of the story, as a time of day.
fn minute(n: i64) -> Timestamp {
    Timestamp::from_second(1_780_272_000 + n * 60).expect("a time of day")
}

/// Ten minutes of retention, and these clusters.
fn wanted(clusters: &[&str]) -> Wanted {
    let target = |id: &str| Target { server: format!("{HUB_URL}/tunnel/{id}"), ..Target::default() };
    let clusters = clusters.iter().map(|id| ((*id).to_owned(), target(id))).collect();
    let config = b"{}".to_vec();
    let seen_gone_for = IDS.map(|id| (id.to_owned(), SEEN_GONE_MIN)).into();
    let (hub, retention) = (HUB_URL.to_owned(), Duration::from_secs(600));
    Wanted { hub, digest: digest(&config), config, clusters, retention, seen_gone_for }
}

/// A namespace of Secrets that does as it is told, under the conditions that it is told.
#[derive(Default, Clone)]
struct Namespace {
    secrets: BTreeMap<String, Found>,
    n_writes: u64,
}

impl Namespace {
    /// What a list by the label tells.
    fn found(&self) -> Vec<Found> {
        let is_listed = |secret: &&Found| secret.labels.get(MANAGED_BY).is_some_and(|by| by == PROGRAM);
        self.secrets.values().filter(is_listed).cloned().collect()
    }

    fn first(&mut self) -> &mut Found {
        self.secrets.get_mut(FIRST).expect("edge-1 is registered")
    }

    fn carry_out(&mut self, action: Action) {
        self.n_writes += 1;
        let version = self.n_writes.to_string();
        match action {
            Action::Create { name, secret, .. } => {
                let empty = Found { name: name.clone(), uid: format!("uid-{version}"), version, ..nobody() };
                self.secrets.entry(name).or_insert_with(|| merged(empty, &secret));
            }
            Action::Patch { name, patch } => {
                let found = self.secrets.remove(&name).expect("a patch of what was there");
                assert_eq!(patch["metadata"]["resourceVersion"], found.version.as_str(), "only what was seen is patched");
                self.secrets.insert(name, Found { version, ..merged(found, &patch) });
            }
            Action::Delete { name, uid, version } => {
                let found = self.secrets.remove(&name).expect("a deletion of what was there");
                assert_eq!((found.uid, found.version), (uid, version), "only what was seen is deleted");
            }
        }
    }
}

fn nobody() -> Found {
    let (name, uid, version, labels, annotations, called, server) = Default::default();
    Found { name, uid, version, labels, annotations, called, server, config: [0; 32], is_ending: false }
}

/// A merge patch, as far as Secrets go.
fn merged(mut found: Found, patch: &Value) -> Found {
    for (key, part) in [("labels", &mut found.labels), ("annotations", &mut found.annotations)] {
        for (name, value) in patch["metadata"][key].as_object().into_iter().flatten() {
            match value.as_str() {
                Some(text) => part.insert(name.clone(), text.to_owned()),
                None => part.remove(name),
            };
        }
    }
    let data = |key: &str| patch["data"][key].as_str().map(|text| STANDARD.decode(text).expect("base64"));
    found.called = data("name").unwrap_or(found.called);
    found.server = data("server").unwrap_or(found.server);
    found.config = data("config").map_or(found.config, |config| digest(&config));
    found
}

/// One pass: what was to be done, and it is done.
fn pass(there: &mut Namespace, wanted: &Wanted, standing: Standing, now: Timestamp) -> Vec<Action> {
    let actions = plan(wanted, &there.found(), &|_| standing, now).actions;
    actions.iter().cloned().for_each(|action| there.carry_out(action));
    actions
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_is_wanted_is_made_once_and_then_left_alone() {
    let mut there = Namespace::default();
    let mut both = wanted(&["edge-1", "a..b"]);
    both.clusters.get_mut("edge-1").expect("it").labels = map(&[("env", "prod")]);
    let actions = pass(&mut there, &both, Standing::Keep, minute(0));
    let Action::Create { secret, .. } = &actions[1] else { panic!("{actions:?}") };
    insta::assert_snapshot!("created", serde_json::to_string_pretty(secret).expect("JSON"));
    for standing in [Standing::Keep, Standing::Lift] {
        assert_eq!(pass(&mut there, &both, standing, minute(1)), [], "nothing differs");
    }
    assert_eq!(there.secrets.len(), 2);
}

#[test]
fn what_others_put_there_stays_and_what_they_took_comes_back() {
    let mut there = Namespace::default();
    let mut one = wanted(&["edge-1"]);
    let target = one.clusters.get_mut("edge-1").expect("it");
    target.labels = map(&[("env", "prod"), ("tier", "1")]);
    target.annotations = map(&[("example.com/note", "ours")]);
    pass(&mut there, &one, Standing::Keep, minute(0));
    there.first().labels.insert("team".to_owned(), "a person's".to_owned());
    there.first().annotations.insert("example.com/seen".to_owned(), "by Argo CD".to_owned());
    there.first().labels.remove(SECRET_TYPE);
    there.first().server = b"https://elsewhere.example".to_vec();
    let target = one.clusters.get_mut("edge-1").expect("it");
    target.labels.remove("tier");
    target.annotations.clear();
    assert_eq!(pass(&mut there, &one, Standing::Keep, minute(1)).len(), 1);

    let secret = there.first();
    let has = |key: &str| secret.labels.get(key).map(String::as_str);
    assert_eq!([has("team"), has("env"), has("tier")], [Some("a person's"), Some("prod"), None]);
    assert_eq!(has(SECRET_TYPE), Some("cluster"));
    assert_eq!(secret.server, b"https://hub.example:8080/tunnel/edge-1");
    let keys: Vec<_> = secret.annotations.keys().map(String::as_str).collect();
    assert_eq!(keys, ["example.com/seen", CLUSTER, HUB, PASSED_LABELS]);
    assert_eq!(pass(&mut there, &one, Standing::Keep, minute(2)), []);
}

#[test]
fn whoever_writes_into_the_record_of_keys_cannot_have_the_servers_own_taken_away() {
    let mut there = Namespace::default();
    let one = wanted(&["edge-1"]);
    pass(&mut there, &one, Standing::Keep, minute(0));
    let (labels, annotations) = (format!("{SECRET_TYPE},{MANAGED_BY}"), format!("{HUB},{SKIP_RECONCILE}"));
    let written = [(PASSED_LABELS, labels.as_str()), (PASSED_ANNOTATIONS, &annotations), (SKIP_RECONCILE, "true")];
    there.first().annotations.extend(map(&written));
    pass(&mut there, &one, Standing::Keep, minute(1));
    let secret = there.first();
    assert_eq!(secret.cluster_of(HUB_URL), Some("edge-1"));
    assert!(secret.labels.contains_key(SECRET_TYPE) && secret.annotations.contains_key(SKIP_RECONCILE));
}

#[test]
fn a_cluster_that_was_away_too_long_is_skipped_until_it_is_back() {
    let mut there = Namespace::default();
    let one = wanted(&["edge-1"]);
    pass(&mut there, &one, Standing::Keep, minute(0));
    let has = |there: &mut Namespace| [SKIP_RECONCILE, SKIPPED_SINCE].map(|key| there.first().annotations.contains_key(key));
    assert_eq!(pass(&mut there, &one, Standing::Skip, minute(1)).len(), 1);
    assert_eq!(has(&mut there), [true, true]);
    assert_eq!(pass(&mut there, &one, Standing::Skip, minute(2)), []);
    assert_eq!(pass(&mut there, &one, Standing::Keep, minute(3)), [], "it is not yet its moment");
    assert_eq!(plan(&one, &there.found(), &|_| Standing::Keep, minute(3)).n_skipped, 1);
    pass(&mut there, &one, Standing::Lift, minute(4));
    assert_eq!(has(&mut there), [false, false]);

    pass(&mut there, &one, Standing::Skip, minute(5));
    there.first().annotations.remove(SKIP_RECONCILE);
    assert_eq!(pass(&mut there, &one, Standing::Skip, minute(6)), [], "a person wants it reconciled all the same");
    pass(&mut there, &one, Standing::Lift, minute(7));
    assert_eq!(has(&mut there), [false, false]);
}

#[test]
fn what_a_person_has_argo_cd_skip_or_not_stays_so() {
    for value in ["true", "false"] {
        let mut there = Namespace::default();
        let one = wanted(&["edge-1"]);
        pass(&mut there, &one, Standing::Keep, minute(0));
        there.first().annotations.insert(SKIP_RECONCILE.to_owned(), value.to_owned());
        for standing in [Standing::Skip, Standing::Lift, Standing::Keep] {
            assert_eq!(pass(&mut there, &one, standing, minute(1)), [], "{value} {standing:?}");
        }
    }
}

#[test]
fn a_cluster_that_is_gone_from_the_configuration_keeps_its_secret_for_the_retention() {
    let mut there = Namespace::default();
    let (both, rest) = (wanted(&["edge-1", "edge-2"]), wanted(&["edge-2"]));
    pass(&mut there, &both, Standing::Keep, minute(0));
    assert_eq!(pass(&mut there, &rest, Standing::Skip, minute(1)).len(), 2, "one is marked, the other skipped");
    for n in [2, 10] {
        assert_eq!(pass(&mut there, &rest, Standing::Skip, minute(n)), []);
    }
    let looked_at = plan(&rest, &there.found(), &|_| Standing::Keep, minute(10));
    assert_eq!((looked_at.n_removed, looked_at.next_removal), (1, Some(Duration::from_secs(60))));
    pass(&mut there, &both, Standing::Skip, minute(10));
    pass(&mut there, &rest, Standing::Skip, minute(12));
    assert_eq!(pass(&mut there, &rest, Standing::Skip, minute(21)), [], "it came back, and its time began anew");
    let actions = pass(&mut there, &rest, Standing::Skip, minute(22));
    assert!(matches!(actions.as_slice(), [Action::Delete { name, .. }] if name == FIRST), "{actions:?}");
    assert_eq!(there.secrets.len(), 1);
}

#[test]
fn no_clock_has_deleted_what_the_process_itself_has_not_seen_gone_for_long() {
    let mut there = Namespace::default();
    let mut none = wanted(&[]);
    none.retention = Duration::from_secs(24 * 3600);
    pass(&mut there, &wanted(&["edge-1"]), Standing::Keep, minute(0));
    pass(&mut there, &none, Standing::Keep, minute(1));
    none.seen_gone_for.insert("edge-1".to_owned(), SEEN_GONE_MIN - Duration::from_secs(1));
    assert_eq!(pass(&mut there, &none, Standing::Keep, minute(1_000_000)), []);
    let looked_at = plan(&none, &there.found(), &|_| Standing::Keep, minute(1_000_000));
    assert_eq!(looked_at.next_removal, Some(Duration::from_secs(1)));
    none.seen_gone_for.insert("edge-1".to_owned(), SEEN_GONE_MIN);
    assert_eq!(pass(&mut there, &none, Standing::Keep, minute(1_000_000)).len(), 1);
}

#[test]
fn a_url_that_another_cluster_takes_over_leads_argo_cd_to_one_secret_only() {
    let mut there = Namespace::default();
    let (old, mut new) = (wanted(&["edge-1"]), wanted(&["edge-2"]));
    new.clusters.get_mut("edge-2").expect("it").server = old.clusters["edge-1"].server.clone();
    pass(&mut there, &old, Standing::Keep, minute(0));
    pass(&mut there, &new, Standing::Keep, minute(1));
    assert_eq!(plan(&new, &there.found(), &|_| Standing::Keep, minute(1)).duplicates.len(), 1);
    assert!(there.first().labels.contains_key(SECRET_TYPE), "not before its successor is there");
    assert_eq!(pass(&mut there, &new, Standing::Keep, minute(1)).len(), 1);
    assert!(!there.first().labels.contains_key(SECRET_TYPE) && there.first().annotations.contains_key(REMOVED_SINCE));
    assert!(plan(&new, &there.found(), &|_| Standing::Keep, minute(1)).duplicates.is_empty());
    assert_eq!(pass(&mut there, &new, Standing::Keep, minute(2)), []);
    assert_eq!(pass(&mut there, &new, Standing::Keep, minute(20)).len(), 1, "it is deleted in its time all the same");
    pass(&mut there, &old, Standing::Keep, minute(21));
    assert!(there.first().labels.contains_key(SECRET_TYPE));
}

#[test]
fn a_time_of_removal_that_no_clock_can_have_written_counts_for_nothing() {
    for (written, n_writes) in [("", 1), ("yesterday", 1), ("9999-01-01T00:00:00Z", 0)] {
        let mut there = Namespace::default();
        pass(&mut there, &wanted(&["edge-1"]), Standing::Keep, minute(0));
        there.first().annotations.insert(REMOVED_SINCE.to_owned(), written.to_owned());
        let actions = pass(&mut there, &wanted(&["edge-2"]), Standing::Keep, minute(1000));
        let of_it: Vec<_> = actions.iter().filter(|action| action.name() == FIRST).collect();
        assert_eq!(of_it.len(), n_writes, "{written}: {of_it:?}");
        assert!(there.secrets.contains_key(FIRST), "{written}");
    }
}

#[test]
fn a_secret_that_is_handed_over_is_kept_under_its_own_name() {
    let mut there = Namespace::default();
    pass(&mut there, &wanted(&["edge-1"]), Standing::Keep, minute(0));
    let handed = Found { name: "proxy-server-cluster-edge-1".to_owned(), ..there.secrets.remove(FIRST).expect("it") };
    there.secrets.insert(handed.name.clone(), handed);
    assert_eq!(pass(&mut there, &wanted(&["edge-1"]), Standing::Keep, minute(1)), []);
}

#[test]
fn what_somebody_deletes_is_left_to_its_end_and_made_anew() {
    let mut there = Namespace::default();
    let mut one = wanted(&["edge-1"]);
    pass(&mut there, &one, Standing::Keep, minute(0));
    there.first().is_ending = true;
    one.config = b"other".to_vec();
    one.digest = digest(&one.config);
    assert_eq!(pass(&mut there, &one, Standing::Skip, minute(1)), [], "a finalizer holds it");
    there.secrets.clear();
    assert_eq!(pass(&mut there, &one, Standing::Keep, minute(2)).len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    /// These of the clusters are configured from now on.
    Configure([bool; 3]),
    Stand(Standing),
    Pass(i64),
    /// A person changes an annotation or label of a Secret, or makes one.
    Meddle(usize, &'static str, Option<&'static str>),
    Delete(usize),
}

const IDS: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

/// What a person may write where it hurts.
const VALUES: [Option<&str>; 7] = [
    None,
    Some("true"),
    Some("https://other.example"),
    Some(HUB_URL),
    Some("edge-2"),
    Some("2020-01-01T00:00:00Z"),
    Some(SECRET_TYPE),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let standing = prop::sample::select(vec![Standing::Keep, Standing::Skip, Standing::Lift]);
    let keys = [HUB, CLUSTER, MANAGED_BY, REMOVED_SINCE, SKIP_RECONCILE, SKIPPED_SINCE, PASSED_LABELS];
    let meddled = (0..IDS.len(), prop::sample::select(keys.to_vec()), prop::sample::select(VALUES.to_vec()));
    let step = prop_oneof![
        any::<[bool; 3]>().prop_map(Step::Configure),
        standing.prop_map(Step::Stand),
        (0..15i64).prop_map(Step::Pass),
        meddled.prop_map(|(secret, key, value)| Step::Meddle(secret, key, value)),
        (0..IDS.len()).prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..40)
}

fn meddle(there: &mut Namespace, id: &str, key: &str, value: Option<&str>) {
    let theirs = Found { name: name_of(id), uid: "theirs".to_owned(), version: "0".to_owned(), ..nobody() };
    let meddled = there.secrets.entry(name_of(id)).or_insert(theirs);
    let part = if key == MANAGED_BY { &mut meddled.labels } else { &mut meddled.annotations };
    match value {
        Some(_) if key == MANAGED_BY => part.insert(key.to_owned(), PROGRAM.to_owned()),
        Some(value) => part.insert(key.to_owned(), value.to_owned()),
        None => part.remove(key),
    };
}

proptest! {
    #[test]
    fn no_sequence_deletes_what_is_configured_or_not_owned_or_not_yet_over(steps in steps()) {
        let (mut there, mut now, mut standing, mut configured) = (Namespace::default(), 0, Standing::Keep, wanted(&IDS));
        for step in steps {
            match step {
                Step::Configure(which) => {
                    let ids = IDS.iter().zip(which).filter(|(_, is_there)| *is_there);
                    configured = wanted(&ids.map(|(id, _)| *id).collect::<Vec<_>>());
                }
                Step::Stand(how) => standing = how,
                Step::Pass(minutes) => now += minutes,
                Step::Meddle(secret, key, value) => meddle(&mut there, IDS[secret], key, value),
                Step::Delete(secret) => drop(there.secrets.remove(&name_of(IDS[secret]))),
            }
            for _ in 0..PASSES_MAX {
                for action in plan(&configured, &there.found(), &|_| standing, minute(now)).actions {
                    let was = there.secrets.get(action.name());
                    let of = was.and_then(|was| was.cluster_of(HUB_URL));
                    prop_assert!(action.is_creation() || of.is_some(), "somebody else's is touched: {action:?}");
                    if let (Action::Delete { .. }, Some(was), Some(of)) = (&action, was, of) {
                        prop_assert!(!configured.clusters.contains_key(of), "{of} is configured");
                        let since: Timestamp = was.annotations[REMOVED_SINCE].parse().expect("a time");
                        prop_assert!(minute(now).duration_since(since).as_secs() >= 600, "its time is not over");
                    }
                    there.carry_out(action);
                }
            }
            let rest = plan(&configured, &there.found(), &|_| standing, minute(now)).actions;
            // What is marked as removed long ago goes at the second look; a name that is taken is wanted for ever.
            let may_be = |action: &Action| !matches!(action, Action::Patch { .. }) && there.secrets.contains_key(action.name());
            prop_assert!(rest.iter().all(may_be), "a further pass has nothing to do: {rest:?}");
        }
    }
}
