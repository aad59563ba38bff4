//! A load that goes on whatever happens to it: one request every so often, none waits for another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use super::PAGE;
use crate::caller::{Call, Caller};

/// A load that runs. It ends with [`Load::stop`], or with its world.
pub struct Load {
    shared: Arc<Shared>,
}

struct Shared {
    caller: Caller,
    cluster: String,
    namespace: String,
    stopped: watch::Sender<bool>,
    /// Requests that have not ended.
    n_open: watch::Sender<usize>,
    outcome: Mutex<Outcome>,
}

/// What became of a load.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Requests that were begun.
    pub n_requests: usize,
    /// What went wrong, when, and how long its caller waited for that.
    pub failures: Vec<Trouble>,
    /// The longest that a caller waited for an answer, good or bad, its own retries included.
    pub slowest: Duration,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// When it was begun.
    pub at: Instant,
    /// How long its caller waited.
    pub took: Duration,
    /// What the caller was told.
    pub why: String,
}

impl Outcome {
    /// Fails if anything failed.
    ///
    /// # Errors
    /// How many failures there were, and the first.
    pub fn expect_no_failures(&self) -> anyhow::Result<()> {
        match self.failures.first() {
            None => Ok(()),
            Some(first) => anyhow::bail!("{} of {} requests failed: {}", self.failures.len(), self.n_requests, first.why),
        }
    }
}

impl Load {
    pub(super) fn start(caller: &Caller, cluster: &str, namespace: &str, every: Duration) -> Self {
        let shared = Arc::new(Shared {
            caller: caller.anew().quiet(),
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            stopped: watch::Sender::new(false),
            n_open: watch::Sender::new(0),
            outcome: Mutex::default(),
        });
        shared.caller.host().spawn("argocd load", shared.clone().run(every));
        Self { shared }
    }

    /// What became of it so far.
    pub fn so_far(&self) -> Outcome {
        self.shared.outcome().clone()
    }

    /// How many requests run.
    pub fn n_open(&self) -> usize {
        *self.shared.n_open.borrow()
    }

    /// Begins no more, waits for what runs, and tells what became of it all.
    pub async fn stop(self) -> Outcome {
        self.shared.stopped.send_replace(true);
        // The sender is ours.
        let _ = self.shared.n_open.subscribe().wait_for(|n| *n == 0).await;
        self.shared.outcome().clone()
    }
}

impl Shared {
    async fn run(self: Arc<Self>, every: Duration) {
        let mut at = Instant::now();
        while !*self.stopped.borrow() {
            self.n_open.send_modify(|n| *n += 1);
            let n = {
                let mut outcome = self.outcome();
                outcome.n_requests += 1;
                outcome.n_requests
            };
            self.caller.host().spawn("argocd request", self.clone().ask(n));
            at += every;
            tokio::time::sleep_until(at).await;
        }
    }

    async fn ask(self: Arc<Self>, n: usize) {
        let began = Instant::now();
        let answered = self.caller.persist(|| self.call(n)).await;
        let why = match answered {
            Ok(reply) if reply.status.is_success() => None,
            Ok(reply) => Some(format!("{}: {}", reply.status, reply.text())),
            Err(error) => Some(format!("{error:#}")),
        };
        let took = began.elapsed();
        {
            let mut outcome = self.outcome();
            outcome.slowest = outcome.slowest.max(took);
            outcome.failures.extend(why.map(|why| Trouble { at: began, took, why }));
        }
        self.n_open.send_modify(|n| *n -= 1);
    }

    /// Of ten requests one is a page of a list and one a small write; the others ask for an object.
    fn call(&self, n: usize) -> Call {
        let home = format!("/api/v1/namespaces/{}", self.namespace);
        match n % 10 {
            0 => self.caller.get(&self.cluster, &format!("/api/v1/pods?limit={PAGE}")),
            5 => {
                let target = format!("/tunnel/{}{home}/configmaps/kube-root-ca.crt", self.cluster);
                let body = format!(r#"{{"metadata":{{"annotations":{{"load":"{n}"}}}}}}"#);
                let patch = self.caller.request(Method::PATCH, &target);
                patch.header("content-type", "application/merge-patch+json").body(body)
            }
            _ => self.caller.get(&self.cluster, &format!("{home}/pods/web-0")),
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
