//! A fake Kubernetes API server, good enough for kubectl, client-go and the `kube` crate.
//!
//! It runs over any byte stream, so the same code answers inside a simulation and on a real TLS socket. What it does not
//! do well (server-side apply, SPDY, port-forward, schemas) it refuses in words; it never does it almost right. Pods run,
//! Deployments are ready and deletions are done at once: there is no scheduler, no kubelet and no garbage collector.

mod access;
mod body;
mod cluster;
mod discovery;
mod exec;
mod form;
mod gauge;
mod kinds;
mod list;
mod logs;
mod openapi;
mod patch;
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

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::Host;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch as revisions;

use gauge::Gauge;
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

/// The fake API server. Cheap to clone; clones are one server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

struct Shared {
    host: Host,
    options: Options,
    state: Mutex<State>,
    /// The store's revision, for watches to wait on.
    revisions: revisions::Sender<u64>,
    open_watches: Gauge,
    open_execs: Gauge,
    open_requests: Gauge,
}

struct State {
    store: Store,
    token: Option<String>,
    throttled: bool,
    requests: VecDeque<ReceivedRequest>,
    writes: VecDeque<ExecutedWrite>,
}

impl ApiServer {
    /// A server with its preloaded objects; it serves nobody yet.
    pub fn new(host: Host, options: Options) -> Self {
        let store = Store::new(options.history_len);
        let state =
            State { store, token: options.token.clone(), throttled: false, requests: VecDeque::new(), writes: VecDeque::new() };
        let shared = Shared {
            host,
            options,
            state: Mutex::new(state),
            revisions: revisions::Sender::new(0),
            open_watches: Gauge::default(),
            open_execs: Gauge::default(),
            open_requests: Gauge::default(),
        };
        let server = Self { shared: Arc::new(shared) };
        preload::preload(&server);
        server
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

    /// Forgets the history: watches and pages from earlier revisions are answered 410.
    pub fn compact(&self) {
        self.state().store.compact();
    }

    /// From now on answers 429 to everything (or no longer).
    pub fn throttle(&self, throttled: bool) {
        self.state().throttled = throttled;
    }

    /// From now on accepts this bearer token only, or with none every caller.
    pub fn set_token(&self, token: Option<String>) {
        self.state().token = token;
    }

    pub(crate) fn host(&self) -> &Host {
        &self.shared.host
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        // A wall clock outside of the years -9999..9999 is no clock.
        Timestamp::try_from(self.shared.host.wall_clock()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { now: self.now(), chance: [self.shared.host.chance(), self.shared.host.chance()] }
    }

    pub(crate) fn revisions(&self) -> revisions::Receiver<u64> {
        self.shared.revisions.subscribe()
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
        let (result, revision) = {
            let mut state = self.state();
            (change(&mut state.store), state.store.revision())
        };
        self.shared.revisions.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
        result
    }

    pub(crate) fn log_request(&self, request: ReceivedRequest) {
        remember(&mut self.state().requests, request);
    }

    pub(crate) fn log_write(&self, write: ExecutedWrite) {
        remember(&mut self.state().writes, write);
    }

    pub(crate) fn is_throttled(&self) -> bool {
        self.state().throttled
    }

    pub(crate) fn accepts(&self, token: Option<&str>) -> bool {
        self.state().token.as_deref().is_none_or(|wanted| token == Some(wanted))
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
