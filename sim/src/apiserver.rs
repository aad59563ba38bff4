//! A fake Kubernetes API server, good enough for kubectl, client-go and the `kube` crate.
//!
//! It runs over any byte stream, so the same code answers inside a simulation and on a real TLS socket. What it does not
//! do well (server-side apply, SPDY, schemas) it refuses in words; it never does it almost right. Pods run,
//! Deployments are ready and deletions are done at once: there is no scheduler, no kubelet and no garbage collector.

mod access;
mod arrivals;
mod body;
mod cluster;
mod discovery;
mod exec;
mod form;
mod gauge;
mod kinds;
mod list;
mod logs;
mod misbehavior;
mod openapi;
mod patch;
mod port_forward;
mod preload;
mod probes;
mod protobuf;
mod query;
mod resources;
mod route;
mod select;
mod serve;
mod status;
mod store;
mod tls;
mod watch;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::{Drain, DrainSwitch, Host};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;

pub use access::Rights;
pub(crate) use arrivals::MARK;
pub use arrivals::{Arrival, Arrivals};
use gauge::Gauge;
pub use misbehavior::Misbehavior;
use misbehavior::Misbehaviors;
pub use probes::pattern;
use store::Store;
pub use tls::Tls;
use write::Stamp;

/// Requests and writes kept for tests to look at; a long load forgets the oldest.
const LOG_LEN: usize = 100_000;

/// What kind of API server to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The only bearer token that is accepted; with none, every caller is.
    pub token: Option<String>,
    /// Pods `web-0`, `web-1`, … in the namespace `default` at the start.
    pub pods: usize,
    /// How often a watch that allows bookmarks gets one.
    pub bookmark_every: Duration,
    /// Changes that are remembered; watches and pages that reach further back are answered 410.
    pub history_len: usize,
    /// Kinds beyond those that every cluster has, as custom resources make them; 150 in all is what Argo CD meets.
    pub extra_kinds: usize,
    /// What arrives is noted here.
    pub arrivals: Arrivals,
    /// Requests at once on one HTTP/2 connection (`--http2-max-streams-per-connection`).
    pub http2_streams_max: u32,
    /// What everybody may do.
    pub rights: Rights,
    /// Namespaces beyond those that every cluster has.
    pub namespaces: &'static [&'static str],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            pods: 3,
            // What kube-apiserver's watch cache does.
            bookmark_every: Duration::from_secs(60),
            // Enough that nobody sees a 410 who did not ask for one with a smaller value.
            history_len: 10_000,
            extra_kinds: 0,
            arrivals: Arrivals::default(),
            // What kube-apiserver offers.
            http2_streams_max: 250,
            rights: Rights::All,
            namespaces: &[],
        }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// GET, POST, …
    pub method: Method,
    /// Path and query, byte for byte.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
}

/// A write that was carried out and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutedWrite {
    /// `create`, `update`, `patch` or `delete`.
    pub verb: &'static str,
    /// `pods`, `deployments.apps`.
    pub resource: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// Plural of the kind, namespace (empty for cluster-scoped kinds), name.
pub type ObjectName = (String, String, String);

/// The fake API server, as one of its machines runs it. Cheap to clone; clones are one server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
    host: Host,
    drain: Drain,
}

/// What all machines of a highly available API server have in common: etcd, and its operator's view.
struct Shared {
    /// Keeps the drain of a server that is never drained from starting.
    _never: DrainSwitch,
    options: Options,
    state: Mutex<State>,
    /// The store has a new revision, for watches to look at. Not a `watch`, which wakes in an order of its own dice.
    changed: Notify,
    open_watches: Gauge,
    open_execs: Gauge,
    open_requests: Gauge,
    misbehaviors: Misbehaviors,
}

struct State {
    store: Store,
    tokens: Vec<String>,
    requests: VecDeque<ReceivedRequest>,
    writes: VecDeque<ExecutedWrite>,
}

impl ApiServer {
    /// A server with its preloaded objects; it serves nobody yet.
    pub fn new(host: Host, options: Options) -> Self {
        let store = Store::new(options.history_len);
        let tokens = options.token.clone().into_iter().collect();
        let state = State { store, tokens, requests: VecDeque::new(), writes: VecDeque::new() };
        let (never, drain) = DrainSwitch::new();
        let shared = Shared {
            _never: never,
            options,
            state: Mutex::new(state),
            changed: Notify::new(),
            open_watches: Gauge::default(),
            open_execs: Gauge::default(),
            open_requests: Gauge::default(),
            misbehaviors: Misbehaviors::default(),
        };
        let server = Self { shared: Arc::new(shared), host, drain };
        preload::preload(&server);
        server
    }

    /// The same server on another machine, or on the same one after a restart; `drain` ends it there.
    pub fn on(&self, host: Host, drain: Drain) -> Self {
        Self { shared: self.shared.clone(), host, drain }
    }

    /// Every request received so far, oldest first, refused ones too.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.state().requests.iter().cloned().collect()
    }

    /// Every write that was carried out, oldest first; writes by [`ApiServer::put`] and dry runs are not among them.
    pub fn executed_writes(&self) -> Vec<ExecutedWrite> {
        self.state().writes.iter().cloned().collect()
    }

    /// How many watches are open.
    pub fn n_watches(&self) -> usize {
        self.shared.open_watches.count()
    }

    /// How many exec and attach sessions are open.
    pub fn n_execs(&self) -> usize {
        self.shared.open_execs.count()
    }

    /// How many requests are being answered: from the head's arrival until the answer's body is sent or given up.
    pub fn n_requests_open(&self) -> usize {
        self.shared.open_requests.count()
    }

    /// Resolves as soon as exactly `n` watches are open. Cancel-safe.
    pub async fn wait_for_watches(&self, n: usize) {
        self.shared.open_watches.wait_for(n).await;
    }

    /// Resolves as soon as exactly `n` exec and attach sessions are open. Cancel-safe.
    pub async fn wait_for_execs(&self, n: usize) {
        self.shared.open_execs.wait_for(n).await;
    }

    /// Resolves as soon as exactly `n` requests are being answered. Cancel-safe.
    pub async fn wait_for_requests_open(&self, n: usize) {
        self.shared.open_requests.wait_for(n).await;
    }

    /// Puts an object of the kind `plural` there, as the cluster itself would, and fills in what is missing; returns its
    /// revision.
    ///
    /// # Panics
    /// If `plural` is no kind of the fake's, or the object cannot be one.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) -> u64 {
        let kind = kinds::by_plural(plural).unwrap_or_else(|| panic!("{plural} is no kind of the fake's"));
        self.stamp().identify(kind, namespace, name, &mut object);
        cluster::settle(kind, &mut object, &self.stamp()).unwrap_or_else(|status| panic!("{status:?}"));
        self.change(|store| {
            store.put(kind, (namespace.to_owned(), name.to_owned()), object);
            store.revision()
        })
    }

    /// Removes an object; whether it was there.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        kinds::by_plural(plural)
            .is_some_and(|kind| self.change(|store| store.remove(kind, &(namespace.to_owned(), name.to_owned()))).is_some())
    }

    /// An object as it is.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = kinds::by_plural(plural)?;
        self.with_store(|store| store.get(kind, &(namespace.to_owned(), name.to_owned())).map(|object| Value::clone(object)))
    }

    /// The latest `resourceVersion`.
    pub fn revision(&self) -> u64 {
        self.with_store(|store| store.revision())
    }

    /// Every object that is listed: its kind's plural, namespace and name, and its version.
    pub fn versions(&self) -> BTreeMap<ObjectName, String> {
        self.with_store(|store| {
            let kinds = kinds::KINDS.iter().chain(kinds::extra(self.options().extra_kinds));
            let objects = kinds.flat_map(|kind| store.objects(kind).into_iter().map(move |(key, object)| (kind, key, object)));
            let named = objects.map(|(kind, (namespace, name), object)| {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                ((kind.plural.to_owned(), namespace, name), version)
            });
            named.collect()
        })
    }

    /// The revisions after `since` in which objects of the kind `plural` changed; none when they are forgotten.
    pub fn changes(&self, plural: &str, since: u64) -> Option<Vec<u64>> {
        self.with_store(|store| {
            let changes = store.changes_since(since).ok()?;
            Some(changes.filter(|change| change.kind.plural == plural).map(|change| change.revision).collect())
        })
    }

    /// Forgets the history: watches and pages from earlier revisions are answered 410.
    pub fn compact(&self) {
        self.state().store.compact();
    }

    /// From now on misbehaves, on all its machines, until [`ApiServer::behave`] is given what this returns.
    pub fn misbehave(&self, how: Misbehavior) -> u64 {
        self.shared.misbehaviors.begin(how)
    }

    /// Ends one misbehaviour.
    pub fn behave(&self, number: u64) {
        self.shared.misbehaviors.end(number);
    }

    /// From now on accepts these bearer tokens only, or with none every caller. Two overlap while one is rotated.
    pub fn set_tokens(&self, tokens: Vec<String>) {
        self.state().tokens = tokens;
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn drain(&self) -> Drain {
        self.drain.clone()
    }

    pub(crate) fn misbehaviors(&self) -> &Misbehaviors {
        &self.shared.misbehaviors
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn serves(&self, kind: &kinds::Kind) -> bool {
        kind.group != kinds::EXTRA_GROUP
            || kinds::extra(self.options().extra_kinds).iter().any(|extra| extra.plural == kind.plural)
    }

    pub(crate) fn now(&self) -> Timestamp {
        // A wall clock outside of the years -9999..9999 is no clock.
        Timestamp::try_from(self.host.wall_clock()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { now: self.now(), chance: [self.host.chance(), self.host.chance()] }
    }

    pub(crate) fn changed(&self) -> &Notify {
        &self.shared.changed
    }

    pub(crate) fn open_watches(&self) -> &Gauge {
        &self.shared.open_watches
    }

    pub(crate) fn open_execs(&self) -> &Gauge {
        &self.shared.open_execs
    }

    pub(crate) fn open_requests(&self) -> &Gauge {
        &self.shared.open_requests
    }

    pub(crate) fn with_store<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.state().store)
    }

    /// Changes the store and wakes the watches.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let (result, is_newer) = {
            let mut state = self.state();
            let before = state.store.revision();
            (change(&mut state.store), state.store.revision() > before)
        };
        if is_newer {
            self.shared.changed.notify_waiters();
        }
        result
    }

    pub(crate) fn log_request(&self, request: ReceivedRequest) {
        remember(&mut self.state().requests, request);
    }

    pub(crate) fn log_write(&self, write: ExecutedWrite) {
        remember(&mut self.state().writes, write);
    }

    pub(crate) fn accepts(&self, token: Option<&str>) -> bool {
        let tokens = &self.state().tokens;
        tokens.is_empty() || tokens.iter().any(|wanted| token == Some(wanted))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<T>(log: &mut VecDeque<T>, entry: T) {
    if log.len() == LOG_LEN {
        log.pop_front();
    }
    log.push_back(entry);
}

#[cfg(test)]
mod tests;
