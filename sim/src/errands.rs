//! Errands: pieces of callers' work that know by themselves what must be right about their outcome.

mod work;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::story::Story;

/// Where the cluster itself changes something for watches to see: an object whose number counts up.
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const BEAT: &str = "beat";

/// How often a refused write is sent again, as client-go does, though it does so ten times.
const ATTEMPTS: usize = 3;

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errand {
    /// Which cluster it asks.
    pub cluster: &'static str,
    /// Who does it.
    pub by: By,
    /// What.
    pub work: Work,
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Over a connection of its own.
    Kubectl,
    /// Over the one that all of Argo CD's work shares.
    Argocd,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// GET of the version.
    Get,
    /// Every pod, in pages.
    List,
    /// POST of an object that the API server names, again on `Retry-After`: two executions are two objects.
    Create,
    /// PUT of an object that is there.
    Put,
    /// A watch of what [`Story::beat`] changes.
    Watch,
    /// A body up.
    Upload {
        /// Its length.
        n_bytes: usize,
    },
    /// A body down.
    Download {
        /// Its length.
        n_bytes: usize,
        /// Bytes per second that the caller reads, if it is slow.
        speed: Option<u64>,
    },
    /// A command that says what it hears.
    Exec {
        /// How much it hears.
        n_bytes: usize,
    },
    /// A container's log, followed.
    Logs,
    /// A body down that the API server breaks off.
    Broken {
        /// After how much.
        n_bytes: usize,
    },
}

/// How work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All of it is done.
    Served,
    /// It was refused, or visibly broke off: the words.
    No(String),
}

/// Work that runs. Dropping it is the caller's leaving.
pub struct Running {
    /// What it is.
    pub errand: Errand,
    pub(crate) began: Instant,
    told: Arc<Mutex<Told>>,
    #[expect(dead_code, reason = "held for its drop")]
    alive: oneshot::Sender<()>,
}

/// What is known of work that runs.
#[derive(Default)]
struct Told {
    end: Option<Result<End, String>>,
    /// The answer has begun.
    has_head: bool,
    /// The number of the last beat seen.
    beat: u64,
    /// The last refusal carried `Retry-After`.
    hinted: bool,
}

type Shared = Arc<Mutex<Told>>;

impl Errand {
    /// Begins it; `n` tells it from others.
    pub fn start(self, n: usize, s: &Story, argocd: &Caller) -> Running {
        let told = Shared::default();
        let kubectl = s.kubectl();
        let (alive, left) = oneshot::channel();
        let (argocd, shared, story) = (argocd.clone(), told.clone(), s.clone());
        drop(s.start(async move {
            let caller = if self.by == By::Argocd { &argocd } else { &*kubectl };
            let done = tokio::select! {
                biased;
                _ = left => return,
                done = self.run(n, &story, caller, &kubectl, &shared) => done,
            };
            lock(&shared).end = Some(done.map_err(|claim| format!("{:?} of {}: {claim:#}", self.work, self.cluster)));
        }));
        Running { errand: self, began: Instant::now(), told, alive }
    }

    /// As a story says it.
    pub(crate) fn code(self) -> String {
        format!("Errand {{ cluster: {:?}, by: By::{:?}, work: Work::{:?} }}", self.cluster, self.by, self.work)
    }

    /// What it may need beyond the time that a caller waits in vain.
    pub(crate) fn patience(self) -> Duration {
        match self.work {
            Work::Download { n_bytes, speed: Some(speed) } => {
                Duration::from_secs_f64(n_bytes as f64 / speed as f64 + 10.0 * n_bytes as f64 / 125_000.0)
            }
            // Each attempt may wait for a session, and a second passes between two.
            Work::Create => Duration::from_secs(12) * ATTEMPTS as u32,
            Work::List => Duration::from_secs(30),
            // Eight of a kind on the slowest way of all, and others.
            Work::Upload { n_bytes } | Work::Download { n_bytes, speed: None } | Work::Broken { n_bytes } => {
                Duration::from_secs_f64(10.0 * n_bytes as f64 / 125_000.0)
            }
            Work::Get | Work::Put | Work::Watch | Work::Exec { .. } | Work::Logs => Duration::ZERO,
        }
    }

    /// Whether it goes on for ever when all is well.
    pub(crate) fn is_endless(self) -> bool {
        matches!(self.work, Work::Watch | Work::Logs)
    }
}

impl Running {
    /// How it ended, if it did.
    ///
    /// # Errors
    /// What was wrong about it.
    pub fn end(&self) -> anyhow::Result<Option<End>> {
        match self.told().end.clone() {
            Some(Ok(end)) => Ok(Some(end)),
            Some(Err(claim)) => Err(anyhow::Error::msg(claim)),
            None => Ok(None),
        }
    }

    /// Fails if the watch goes on and does not show what is there.
    pub fn is_up_to_date(&self, s: &Story) -> anyhow::Result<()> {
        let told = self.told();
        let beat = s.beats(self.errand.cluster);
        ensure!(told.has_head, "{:?} of {} has not even begun", self.errand.work, self.errand.cluster);
        if self.errand.work == Work::Watch {
            ensure!(told.beat == beat, "a watch of {} stands at {} of {beat}", self.errand.cluster, told.beat);
        }
        Ok(())
    }

    /// Whether the last refusal told to try again.
    pub fn was_told_to_repeat(&self) -> bool {
        self.told().hinted
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }
}

impl Story {
    /// Something changes in a cluster: the number of an object counts up.
    pub fn beat(&self, cluster: &str) {
        let n = self.beats(cluster) + 1;
        self.note(&format!("beat {n} in {cluster}"));
        self.api(cluster).put("configmaps", "default", BEAT, json!({ "data": { "n": n.to_string() } }));
    }

    /// How often something changed since the API server started.
    pub fn beats(&self, cluster: &str) -> u64 {
        self.api(cluster).get("configmaps", "default", BEAT).map_or(0, |object| number(&object))
    }
}

fn number(beat: &Value) -> u64 {
    beat["data"]["n"].as_str().and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn lock<T>(told: &Mutex<T>) -> MutexGuard<'_, T> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
