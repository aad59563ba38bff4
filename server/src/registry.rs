//! Registry: where each cluster's sessions are now, and how loaded. Sessions of one cluster may coexist.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::Host;
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tunnel::SessionHandle;
use tunnel::id::{ClusterId, SessionId};

use crate::config::ServerConfig;

/// All configured clusters and their live sessions.
pub(crate) struct Registry {
    host: Host,
    clusters: Mutex<BTreeMap<ClusterId, Cluster>>,
    /// Counts up when a session joins.
    joined: watch::Sender<u64>,
    parking: Parking,
}

struct Cluster {
    sessions: Vec<Entry>,
    /// When the last session was lost; the start of the process counts, since its predecessor's sessions were lost then.
    lost_at: Instant,
    /// The same for people.
    lost_since: Timestamp,
    /// Why, or nothing when no session was ever there.
    lost_why: Option<String>,
}

struct Entry {
    id: SessionId,
    handle: SessionHandle,
    /// The agent process at the other end; empty for version 1.
    agent: String,
    /// A newer session of the same agent is here: this one takes no new streams while that one can.
    superseded: bool,
}

/// A place where requests wait for a session that was just lost.
struct Parking {
    wait_max: Duration,
    window: Duration,
    requests: Semaphore,
    bytes: Semaphore,
}

/// Why there is no session for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// No such cluster is configured.
    Unknown,
    /// No agent is connected.
    Offline {
        /// Since when.
        since: Timestamp,
        /// Why the last session ended.
        why: Option<String>,
        /// It was lost a short while ago, and may be back soon.
        recent: bool,
    },
    /// Too many requests wait already.
    ParkingFull,
    /// The sessions that are there were found full.
    Full,
}

impl Registry {
    pub(crate) fn new(config: &ServerConfig, host: Host) -> Self {
        let now = Instant::now();
        let since = timestamp(&host);
        let cluster = || Cluster { sessions: Vec::new(), lost_at: now, lost_since: since, lost_why: None };
        let parking = Parking {
            wait_max: config.park_max,
            window: config.park_window,
            requests: Semaphore::new(config.park_requests_max),
            bytes: Semaphore::new(config.park_bytes_max),
        };
        Self {
            clusters: Mutex::new(config.clusters.iter().map(|entry| (entry.id.clone(), cluster())).collect()),
            host,
            joined: watch::Sender::new(0),
            parking,
        }
    }

    /// Adds a session; older ones of the same agent give way to it.
    pub(crate) fn join(&self, cluster: &ClusterId, id: SessionId, handle: SessionHandle) {
        let agent = handle.peer().map(|peer| peer.name).unwrap_or_default();
        if let Some(cluster) = self.clusters().get_mut(cluster) {
            for older in cluster.sessions.iter_mut().filter(|older| older.agent == agent) {
                older.superseded = true;
            }
            cluster.sessions.push(Entry { id, handle, agent, superseded: false });
        }
        self.joined.send_modify(|n| *n += 1);
    }

    /// Removes that session and no other, however late it is.
    pub(crate) fn leave(&self, cluster: &ClusterId, id: SessionId, why: &str) {
        let now = timestamp(&self.host);
        if let Some(cluster) = self.clusters().get_mut(cluster) {
            let n_before = cluster.sessions.len();
            cluster.sessions.retain(|entry| entry.id != id);
            if cluster.sessions.is_empty() && n_before > 0 {
                cluster.lost_at = Instant::now();
                cluster.lost_since = now;
                cluster.lost_why = Some(why.to_owned());
            }
        }
    }

    /// The session that should serve a request whose head has `head_bytes`, other than those that were found `full`.
    /// Waits a while when the last session was lost just now.
    pub(crate) async fn place(
        &self,
        cluster: &ClusterId,
        head_bytes: usize,
        full: &[SessionId],
    ) -> Result<(SessionId, SessionHandle), Absent> {
        match self.look(cluster, full) {
            Err(Absent::Offline { recent: true, .. }) => {}
            found => return found,
        }
        let bytes = u32::try_from(head_bytes).unwrap_or(u32::MAX);
        let (Ok(_request), Ok(_bytes)) = (self.parking.requests.try_acquire(), self.parking.bytes.try_acquire_many(bytes)) else {
            return Err(Absent::ParkingFull);
        };
        let give_up_at = Instant::now() + self.parking.wait_max;
        let mut joined = self.joined.subscribe();
        loop {
            // Marked as seen before looking, so that a session that joins in between is not missed.
            joined.mark_unchanged();
            let found = self.look(cluster, full);
            if found.is_ok() {
                return found;
            }
            match timeout_at(give_up_at, joined.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return found,
            }
        }
    }

    /// The least loaded session that takes streams; the newest among equals.
    fn look(&self, cluster: &ClusterId, full: &[SessionId]) -> Result<(SessionId, SessionHandle), Absent> {
        let clusters = self.clusters();
        let cluster = clusters.get(cluster).ok_or(Absent::Unknown)?;
        let usable = cluster.sessions.iter().rev().filter(|entry| entry.handle.is_open() && !full.contains(&entry.id));
        match usable.min_by_key(|entry| (entry.superseded, entry.handle.n_streams())) {
            Some(entry) => Ok((entry.id, entry.handle.clone())),
            None if !full.is_empty() => Err(Absent::Full),
            None => {
                // A session that only drains counts as lost now: its agent is dialling another.
                let recent = !cluster.sessions.is_empty() || cluster.lost_at.elapsed() < self.parking.window;
                Err(Absent::Offline { since: cluster.lost_since, why: cluster.lost_why.clone(), recent })
            }
        }
    }

    /// How many sessions of a cluster are there, whatever their state.
    pub(crate) fn n_sessions(&self, cluster: &ClusterId) -> usize {
        self.clusters().get(cluster).map_or(0, |cluster| cluster.sessions.len())
    }

    /// Every live session, for drains and metrics.
    pub(crate) fn sessions(&self) -> Vec<(ClusterId, SessionHandle)> {
        let clusters = self.clusters();
        let sessions = |(id, cluster): (&ClusterId, &Cluster)| {
            let id = id.clone();
            cluster.sessions.iter().map(move |entry| (id.clone(), entry.handle.clone())).collect::<Vec<_>>()
        };
        clusters.iter().flat_map(sessions).collect()
    }

    /// How many requests wait for a session.
    pub(crate) fn n_parked(&self, requests_max: usize) -> usize {
        requests_max.saturating_sub(self.parking.requests.available_permits())
    }

    fn clusters(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Cluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of day, to the second.
fn timestamp(host: &Host) -> Timestamp {
    let since_epoch = host.wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_second(i64::try_from(since_epoch.as_secs()).unwrap_or_default()).unwrap_or_default()
}
