//! Argo CD's cluster cache (gitops-engine, pkg/cache): one list and one watch for each kind, as told by discovery.
//!
//! ```text
//!   discover ──▶ list ──▶ watch ──▶ (1 s) ──▶ watch from the last version ──▶ …
//!                 ▲ ▲                │ 410                │ ten minutes are over
//!                 │ └──────(1 s)─────┴────────────────────┘
//!                 └─ a list that failed, after 1 s
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::Page;
use super::limiter::Limiter;
use crate::apiserver::{ApiServer, ObjectName};
use crate::caller::Caller;

/// Lists at once (`ARGOCD_CLUSTER_CACHE_LIST_SEMAPHORE`).
const LISTS_MAX: usize = 50;

/// How long a watch lives before its kind is listed anew (`ARGOCD_CLUSTER_CACHE_WATCH_RESYNC_DURATION`).
const RESYNC: Duration = Duration::from_secs(600);

/// Before a watch or a list is tried again (`watchResourcesRetryTimeout`, `RetryWatcher`).
const RETRY: Duration = Duration::from_secs(1);

/// Before a cluster that could not be discovered is tried again (`ARGOCD_CLUSTER_SYNC_RETRY_TIMEOUT_DURATION`).
const SYNC_RETRY: Duration = Duration::from_secs(10);

/// What Argo CD leaves out: too many, and nobody's to manage.
const EXCLUDED: [&str; 1] = ["events"];

/// What a cache did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lists that were whole, pages not counted.
    pub n_lists: usize,
    /// Watches that were answered.
    pub n_watches: usize,
    /// Lists, watches and discoveries that failed or broke off.
    pub n_failures: usize,
    /// Watches that were told 410.
    pub n_gone: usize,
}

/// What Argo CD knows of one cluster. Cheap to clone; it goes on until its world ends.
#[derive(Clone)]
pub struct ClusterCache {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: String,
    caller: Caller,
    limiter: Limiter,
    lists: Semaphore,
    /// Everything is to be listed anew. Not a `watch`, which wakes in an order of its own dice.
    invalidated: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kinds that discovery named; none before it did.
    n_kinds: usize,
    /// By plural: what every watch since the latest list told.
    kinds: BTreeMap<String, Stretch>,
    objects: BTreeMap<ObjectName, String>,
    counts: Counts,
}

/// A list and the events after it.
struct Stretch {
    from: u64,
    seen: Vec<u64>,
}

/// One kind of the cluster.
#[derive(Debug, Clone)]
struct Kind {
    plural: String,
    path: String,
}

/// Why a watch ended.
enum Ended {
    /// It can go on from the last version.
    Broken,
    /// Its version is forgotten.
    Gone,
}

impl ClusterCache {
    pub(super) fn start(caller: &Caller, cluster: &str) -> Self {
        let shared = Shared {
            cluster: cluster.to_owned(),
            // A client of its own for each cluster, whose thousands of requests nobody wants to read.
            caller: caller.anew().quiet(),
            limiter: Limiter::new(),
            lists: Semaphore::new(LISTS_MAX),
            invalidated: Notify::new(),
            state: Mutex::default(),
        };
        let cache = Self { shared: Arc::new(shared) };
        cache.spawn(cache.clone().warm_up());
        cache
    }

    /// How many kinds the cluster has; none before it was discovered.
    pub fn n_kinds(&self) -> usize {
        self.state().n_kinds
    }

    /// How many kinds were listed.
    pub fn n_warm(&self) -> usize {
        self.state().kinds.len()
    }

    /// Whether every kind was listed.
    pub fn is_warm(&self) -> bool {
        let state = self.state();
        state.n_kinds > 0 && state.kinds.len() == state.n_kinds
    }

    /// Lists every kind anew, now (what a person does by "Invalidate cache").
    pub fn invalidate(&self) {
        self.shared.invalidated.notify_waiters();
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Whether it is warm and holds what the API server does, each object in the same version.
    pub fn equals(&self, api: &ApiServer) -> bool {
        self.is_warm() && self.difference(api).is_none()
    }

    /// Fails unless it is warm and equal, and its watches told of each change since their lists once, in order.
    ///
    /// # Errors
    /// The first difference.
    pub fn expect_equal(&self, api: &ApiServer) -> anyhow::Result<()> {
        anyhow::ensure!(self.is_warm(), "{} of {} kinds were listed", self.n_warm(), self.n_kinds());
        if let Some(difference) = self.difference(api) {
            anyhow::bail!("{difference}");
        }
        for (plural, stretch) in &self.state().kinds {
            // A history that is forgotten proves nothing.
            let Some(changes) = api.changes(plural, stretch.from) else { continue };
            anyhow::ensure!(changes == stretch.seen, "of {plural} changed {changes:?}, and the watches told {:?}", stretch.seen);
        }
        Ok(())
    }

    fn difference(&self, api: &ApiServer) -> Option<String> {
        let state = self.state();
        let mut there = api.versions();
        there.retain(|(plural, _, _), _| state.kinds.contains_key(plural));
        if there == state.objects {
            return None;
        }
        let missing = there.iter().find(|(name, version)| state.objects.get(*name) != Some(*version));
        let stale = state.objects.iter().find(|(name, _)| !there.contains_key(*name));
        Some(match (missing, stale) {
            (Some((name, version)), _) => format!("{name:?} is {version}, and cached {:?}", state.objects.get(name)),
            (None, stale) => format!("{stale:?} is cached, and not there"),
        })
    }

    async fn warm_up(self) {
        let kinds = loop {
            match self.discover().await {
                Ok(kinds) => break kinds,
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(SYNC_RETRY).await;
        };
        self.state().n_kinds = kinds.len();
        for kind in kinds {
            self.spawn(self.clone().keep(kind));
        }
    }

    /// Asks whether the cluster is there, then for its kinds.
    async fn discover(&self) -> anyhow::Result<Vec<Kind>> {
        self.ask("/version?timeout=32s").await?;
        let mut roots = vec!["/api/v1".to_owned()];
        let groups = self.ask("/apis").await?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            let version = group["preferredVersion"]["groupVersion"].as_str().context("a group without a version")?;
            roots.push(format!("/apis/{version}"));
        }
        let mut kinds = Vec::new();
        for root in roots {
            let resources = self.ask(&root).await?;
            for resource in resources["resources"].as_array().into_iter().flatten() {
                let plural = resource["name"].as_str().unwrap_or_default().to_owned();
                let can = |verb: &str| resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|one| one == verb));
                if can("list") && can("watch") && !plural.contains('/') && !EXCLUDED.contains(&&*plural) {
                    kinds.push(Kind { path: format!("{root}/{plural}"), plural });
                }
            }
        }
        Ok(kinds)
    }

    /// Lists and watches a kind for ever.
    async fn keep(self, kind: Kind) {
        loop {
            match self.list(&kind).await {
                Ok(version) => self.watch(&kind, version).await,
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn list(&self, kind: &Kind) -> anyhow::Result<u64> {
        let _turn = self.shared.lists.acquire().await?;
        let (mut objects, mut version) = (BTreeMap::new(), String::new());
        let mut target = Some(Page::target(&kind.path, ""));
        while let Some(asked) = target {
            let reply = self.persist(&asked).await?;
            if reply.status == StatusCode::GONE && asked.contains("continue=") {
                // The pages' version is forgotten: everything at once (client-go tools/pager).
                objects.clear();
                target = Some(kind.path.clone());
                continue;
            }
            let page = Page::of(reply)?;
            for item in &page.items {
                let (name, version) = kind.name_of(item);
                if objects.insert(name.clone(), version).is_some() {
                    self.shared.caller.found(format!("{name:?} was listed twice"));
                }
            }
            target = page.next.map(|token| Page::target(&kind.path, &token));
            version = page.version;
        }
        let version = version.parse().context("a list without a version")?;
        let mut state = self.state();
        state.objects.retain(|(plural, _, _), _| *plural != kind.plural);
        state.objects.append(&mut objects);
        state.kinds.insert(kind.plural.clone(), Stretch { from: version, seen: Vec::new() });
        state.counts.n_lists += 1;
        if state.kinds.len() == state.n_kinds && state.counts.n_lists == state.n_kinds {
            self.shared.caller.tell(format!("the cache of {} is warm", self.shared.cluster));
        }
        Ok(version)
    }

    /// Watches until it is time to list again.
    async fn watch(&self, kind: &Kind, mut version: u64) {
        // Each kind at a time of its own, or all would relist at once for ever.
        let jitter = RESYNC.mul_f64((self.shared.caller.host().chance() % 1000) as f64 / 10_000.0);
        let resync = tokio::time::sleep_until(Instant::now() + RESYNC - jitter);
        let watching = async {
            loop {
                match self.watch_once(kind, &mut version).await {
                    Ok(Ended::Gone) => return,
                    Ok(Ended::Broken) => {}
                    Err(error) => self.failed(&error),
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            biased;
            () = resync => {}
            () = self.shared.invalidated.notified() => {}
            () = watching => {}
        }
    }

    async fn watch_once(&self, kind: &Kind, version: &mut u64) -> anyhow::Result<Ended> {
        self.shared.limiter.acquire().await;
        let target = format!("{}?watch=true&allowWatchBookmarks=true&resourceVersion={version}", kind.path);
        let mut watch = self.shared.caller.persist_open(|| self.shared.caller.get(&self.shared.cluster, &target)).await?;
        if watch.status == StatusCode::GONE {
            self.state().counts.n_gone += 1;
            return Ok(Ended::Gone);
        }
        anyhow::ensure!(watch.status == StatusCode::OK, "the watch of {} got {}", kind.plural, watch.status);
        self.state().counts.n_watches += 1;
        while let Some(line) = watch.line().await? {
            let event: Value = serde_json::from_str(&line).context("an event that is no JSON")?;
            if event["type"] == "ERROR" {
                anyhow::ensure!(event["object"]["code"] == 410, "the watch of {} said {}", kind.plural, event["object"]);
                self.state().counts.n_gone += 1;
                return Ok(Ended::Gone);
            }
            self.take(kind, version, &event);
        }
        Ok(Ended::Broken)
    }

    fn take(&self, kind: &Kind, version: &mut u64, event: &Value) {
        let (name, text) = kind.name_of(&event["object"]);
        let is_bookmark = event["type"] == "BOOKMARK";
        let told = text.parse().unwrap_or_default();
        if told < *version || told == *version && !is_bookmark {
            self.shared.caller.found(format!("after version {version} a watch of {} told of {told}: {event}", kind.plural));
        }
        *version = told;
        if is_bookmark {
            return;
        }
        let mut state = self.state();
        if let Some(stretch) = state.kinds.get_mut(&kind.plural) {
            stretch.seen.push(told);
        }
        if event["type"] == "DELETED" {
            state.objects.remove(&name);
        } else {
            state.objects.insert(name, text);
        }
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let reply = self.persist(path).await?.expect(StatusCode::OK)?;
        serde_json::from_slice(&reply.body).with_context(|| format!("{path} is no JSON"))
    }

    async fn persist(&self, target: &str) -> anyhow::Result<crate::caller::Reply> {
        self.shared.limiter.acquire().await;
        self.shared.caller.persist(|| self.shared.caller.get(&self.shared.cluster, target)).await
    }

    fn failed(&self, error: &anyhow::Error) {
        tracing::debug!(cluster = self.shared.cluster, "the cache had a failure: {error:#}");
        self.state().counts.n_failures += 1;
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.caller.host().spawn("argocd cache", work);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn name_of(&self, object: &Value) -> (ObjectName, String) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        ((self.plural.clone(), text("namespace"), text("name")), text("resourceVersion"))
    }
}
