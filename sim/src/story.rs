//! Story: the verbs a test says while the world runs. No verb waits by itself; `pass`, `within` and work do.

mod doctor;
mod expect;
mod identities;
mod middleboxes;
mod misfortunes;
mod names;
mod operator;
mod strangers;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::{Method, StatusCode};
use tokio::sync::oneshot;

pub use doctor::Examined;
pub use expect::{Within, kib, mib, millis, minutes, rps, secs};
pub(crate) use identities::Listed;
pub use misfortunes::Fault;
pub use operator::Operator;

use crate::apiserver::ApiServer;
use crate::argocd::ArgoCd;
use crate::caller::{Caller, Protocol};
use crate::fabric::Fabric;
use crate::kubectl::Kubectl;
use crate::machine::Machine;
use crate::stage::Stage;
use crate::trace::Trace;

/// How long a healthy fleet takes to connect at the start: a dial and a handshake over the worst preset, with a
/// repeated segment or two.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// How often a claim about a state is looked at; the grain of tokio's timers would be ten times as often for nothing.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A world that runs, as its story sees it. Cheap to clone.
#[derive(Clone)]
pub struct Story {
    stage: Arc<Stage>,
    less: Arc<OnceLock<&'static str>>,
    has_asked: Arc<AtomicBool>,
}

impl Story {
    pub(crate) fn new(stage: Arc<Stage>) -> Self {
        Self { stage, less: Arc::default(), has_asked: Arc::default() }
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// kubectl beside the hub: HTTP/1.1, a connection for each request that runs.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.caller("kubectl", "hub/kubectl", Protocol::Http1))
    }

    /// Argo CD in the hub: HTTP/2, one connection for all; HTTP/1.1 where the server is of version 1, which has no other.
    pub fn argocd(&self) -> ArgoCd {
        let protocol = if self.stage.has_version_1_server { Protocol::Http1 } else { Protocol::Http2 };
        ArgoCd::new(self.caller("argocd", "hub/argocd", protocol))
    }

    /// The API server of a cluster, as its operator sees it.
    ///
    /// # Panics
    /// If it never ran.
    pub fn api(&self, cluster: &str) -> ApiServer {
        self.stage.cluster(cluster).api().unwrap_or_else(|| panic!("the API server of {cluster} never ran"))
    }

    /// A machine, to look at or to write files to.
    pub fn machine(&self, name: &str) -> &Machine {
        self.stage.machine(name)
    }

    /// The network.
    pub fn fabric(&self) -> &Fabric {
        &self.stage.fabric
    }

    /// The transcript so far.
    pub fn trace(&self) -> &Trace {
        &self.stage.trace
    }

    /// Puts a remark into the transcript.
    pub fn note(&self, what: &str) {
        self.stage.trace.tell("story", what);
    }

    /// Whether this telling has a version 1 peer and the story promised less of it.
    pub fn claims_less(&self) -> bool {
        self.has_asked.store(true, Ordering::Relaxed);
        self.less.get().is_some()
    }

    /// Fails a telling that promises less and claims all the same.
    pub(crate) fn expect_less(&self) -> anyhow::Result<()> {
        let Some(words) = self.less.get() else { return Ok(()) };
        anyhow::ensure!(self.has_asked.load(Ordering::Relaxed), "it promises less ({words}), and never asked claims_less()");
        Ok(())
    }

    pub(crate) fn claim_less(&self, words: Option<&'static str>) {
        if let Some(words) = words {
            self.note(&format!("claims less: {words}"));
            // Told once, at the beginning.
            let _ = self.less.set(words);
        }
    }

    /// Announces an ERROR in a log whose line contains `part`; any other fails the story.
    pub fn expect_error(&self, part: &str) {
        self.errors().push(part.to_owned());
    }

    pub(crate) fn announced_errors(&self) -> Vec<String> {
        self.errors().clone()
    }

    /// Lets time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until `check` is true; bound it with [`Within::within`].
    pub async fn until(&self, claim: &str, check: impl Fn() -> bool) -> anyhow::Result<()> {
        while !check() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.note(claim);
        Ok(())
    }

    /// Claims that `check` is true for all of `time`.
    ///
    /// # Errors
    /// The claim, with the moment at which it became false.
    pub async fn holds_for(&self, time: Duration, claim: &str, check: impl Fn() -> bool) -> anyhow::Result<()> {
        let began = tokio::time::Instant::now();
        while began.elapsed() < time {
            anyhow::ensure!(check(), "{claim}: false after {:?} of {time:?}", began.elapsed());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Claims that `check` is false for all of `time`.
    ///
    /// # Errors
    /// The claim, with the moment at which it happened.
    pub async fn never(&self, time: Duration, claim: &str, check: impl Fn() -> bool) -> anyhow::Result<()> {
        self.holds_for(time, &format!("never {claim}"), || !check()).await
    }

    /// Starts work that runs beside the story; awaiting the handle gives its result.
    pub fn start<T, F>(&self, work: F) -> impl Future<Output = anyhow::Result<T>> + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, wait) = oneshot::channel();
        self.stage.tasks.spawn("story", async move {
            // The story may not care how it ended.
            let _ = done.send(work.await);
        });
        async { wait.await.context("work that the story started did not end") }
    }

    /// Asks a cluster for its version until it answers; bound it with [`Within::within`].
    pub async fn until_reachable(&self, cluster: &str) -> anyhow::Result<()> {
        let looker = self.kubectl();
        while !looker.get(cluster, "/version").await.is_ok_and(|reply| reply.status == StatusCode::OK) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// How many sessions of agents the hub has.
    pub async fn n_sessions(&self) -> anyhow::Result<usize> {
        let stage = &self.stage;
        let port = stage.metrics_ports.get("hub/server").copied().unwrap_or(stage.internal_port);
        let (host, trace, ledger) = (stage.caller("hub/kubectl"), stage.trace.clone(), stage.ledger.clone());
        let looker = Caller::new("story", host, port, Protocol::Http1, trace, ledger).quiet();
        let metrics = looker.request(Method::GET, "/metrics").await?.expect(StatusCode::OK)?.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("agents_connected "));
        line.and_then(|count| count.parse().ok()).context("the hub has no metric agents_connected")
    }

    /// Waits until as many agents are connected as the plan has.
    pub(crate) async fn all_connected(&self) -> anyhow::Result<()> {
        let connected = async {
            // A hub that does not listen yet refuses the dial.
            while self.n_sessions().await.unwrap_or(0) < self.stage.n_agents {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = tokio::time::timeout(CONNECT_MAX, connected).await;
        in_time.with_context(|| format!("{} agents did not connect within {CONNECT_MAX:?}", self.stage.n_agents))
    }

    fn caller(&self, name: &'static str, machine: &str, protocol: Protocol) -> Caller {
        let stage = &self.stage;
        Caller::new(name, stage.caller(machine), stage.internal_port, protocol, stage.trace.clone(), stage.ledger.clone())
    }

    fn errors(&self) -> MutexGuard<'_, Vec<String>> {
        self.stage.announced_errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
