//! Registry: where each cluster's sessions are now, and how loaded. Sessions of one cluster may coexist.

mod parking;
mod standing;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::Host;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};
use tunnel::id::{ClusterId, SessionId};
use tunnel::{Reason, SessionHandle, Totals};

use crate::config::ServerConfig;
use crate::foreign;
use crate::health::{LastError, Probe, WORDS_BYTES_MAX};
use crate::roster::{Changes, Roster};
use crate::trust::{Asked, Credential, Denied, Trust, Verdict};
use parking::Parking;
pub(crate) use standing::{Serving, Standing, State};

/// How long what runs on an outdated session may go on: Argo CD begins each watch anew after ten minutes.
const OUTDATED_MAX: Duration = Duration::from_secs(15 * 60);

/// All configured clusters and their live sessions.
pub(crate) struct Registry {
    host: Host,
    clusters: Mutex<BTreeMap<ClusterId, Cluster>>,
    /// A session joined, or the clusters are others.
    changed: Notify,
    parking: Parking,
    /// Whether API servers are asked at all.
    probes: bool,
}

struct Cluster {
    sessions: Vec<Entry>,
    /// When the last session was lost; the start of the process counts, since its predecessor's sessions were lost then,
    /// and so does the moment at which the cluster was added, whose agent may be about to dial.
    lost_at: Instant,
    /// The same for people.
    lost_since: Timestamp,
    /// Why, or nothing when no session was ever there.
    lost_why: Option<String>,
    /// Its sessions ended because none of their tokens is good any longer: nobody will be back soon.
    is_locked_out: bool,
    /// What its sessions that have ended came to.
    past: Totals,
    /// What went wrong last, kept when it is well again.
    last_error: Option<LastError>,
    /// How it stood when somebody looked last, and since when.
    stood: (State, Timestamp),
}

impl Cluster {
    fn new(host: &Host) -> Self {
        let now = timestamp(host);
        Self {
            sessions: Vec::new(),
            lost_at: Instant::now(),
            lost_since: now,
            lost_why: None,
            is_locked_out: false,
            past: Totals::default(),
            last_error: None,
            stood: (State::Offline, now),
        }
    }
}

struct Entry {
    id: SessionId,
    handle: SessionHandle,
    credential: Credential,
    /// By what the same agent process was let in since: who renews what it shows, and dials again with it, loses nothing
    /// that still runs.
    renewed: Option<Credential>,
    /// Since when only that keeps it: it takes no new streams, and ends soon.
    outdated_since: Option<Instant>,
    /// The agent process at the other end; empty for version 1. A random name that only it and we know.
    agent: String,
    /// A newer session of the same agent is here: this one takes no new streams while that one can.
    superseded: bool,
    joined: Timestamp,
    /// What was found when the API server was last asked through it.
    probe: Option<Probe>,
}

impl Entry {
    /// Whether its own state lets new requests go through it.
    fn takes_streams(&self) -> bool {
        self.handle.is_open() && self.outdated_since.is_none()
    }

    /// Whether its API server did not answer when it was last asked.
    fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// Why it did not.
    fn failure(&self) -> Option<&String> {
        self.probe.as_ref().and_then(|probe| probe.outcome.as_ref().err())
    }
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
    /// Too many requests wait already, of this cluster or in all.
    ParkingFull,
    /// The sessions that are there were found full.
    Full,
}

impl Registry {
    pub(crate) fn new(config: &ServerConfig, host: Host) -> Self {
        let clusters = config.clusters.iter().map(|entry| (entry.id.clone(), Cluster::new(&host))).collect();
        Self {
            clusters: Mutex::new(clusters),
            host,
            changed: Notify::new(),
            parking: Parking::new(config),
            probes: config.probe_interval.is_some(),
        }
    }

    /// Has the clusters of `roster`, which has `changes`, and ends the sessions that `trust` lets in no longer; how many
    /// those are.
    pub(crate) fn follow(&self, trust: &Trust, roster: &Roster, changes: &Changes) -> usize {
        // Certificates are verified with nothing locked: no request waits for that.
        let verdicts: BTreeMap<_, _> = self.credentials().into_iter().map(|(id, asked)| (id, asked.verdict(trust))).collect();
        let mut ended = Vec::new();
        {
            let mut clusters = self.clusters();
            for cluster in clusters.values_mut() {
                let mut n_denied = 0;
                for entry in &mut cluster.sessions {
                    match verdicts.get(&entry.id) {
                        Some(Verdict::Good) => entry.outdated_since = None,
                        Some(Verdict::Outdated) => {
                            let since = *entry.outdated_since.get_or_insert_with(Instant::now);
                            ended.extend((since.elapsed() >= OUTDATED_MAX).then(|| entry.handle.clone()));
                        }
                        Some(Verdict::Denied(denied)) => {
                            ended.push(entry.handle.clone());
                            // A token may have a successor with which the agent is about to come back.
                            n_denied += usize::from(*denied != Denied::Token);
                        }
                        // It came meanwhile, and was judged by what is new.
                        None => {}
                    }
                }
                cluster.is_locked_out |= n_denied > 0 && n_denied == cluster.sessions.len();
            }
            for id in &changes.rekeyed {
                if let Some(cluster) = clusters.get_mut(id) {
                    cluster.is_locked_out = !cluster.sessions.is_empty();
                }
            }
            let mut before = std::mem::take(&mut *clusters);
            let kept = |id: ClusterId| {
                let cluster = before.remove(&id).unwrap_or_else(|| Cluster::new(&self.host));
                (id, cluster)
            };
            *clusters = roster.clusters().into_iter().map(kept).collect();
        }
        ended.iter().for_each(|session| session.close(Reason::Revoked));
        self.changed.notify_waiters();
        ended.len()
    }

    /// What each session stands on.
    fn credentials(&self) -> Vec<(SessionId, Asked)> {
        let clusters = self.clusters();
        let asked = |id: &ClusterId, entry: &Entry| {
            let (began, renewed) = (entry.credential.clone(), entry.renewed.clone());
            (entry.id, Asked { cluster: id.clone(), began, renewed })
        };
        clusters.iter().flat_map(|(id, cluster)| cluster.sessions.iter().map(move |entry| asked(id, entry))).collect()
    }

    /// Adds a session that `credential` let in; older ones of the same agent give way to it. False if the cluster is not here:
    /// it was taken out, or is so new that [`Registry::follow`] has not added it yet.
    #[must_use = "nobody finds a session that did not enter"]
    pub(crate) fn join(&self, cluster: &ClusterId, id: SessionId, handle: SessionHandle, credential: Credential) -> bool {
        let agent = handle.peer().map(|peer| peer.name).unwrap_or_default();
        let now = timestamp(&self.host);
        {
            let mut clusters = self.clusters();
            let Some(cluster) = clusters.get_mut(cluster) else { return false };
            for older in cluster.sessions.iter_mut().filter(|older| older.agent == agent) {
                older.superseded = true;
                older.renewed = (!agent.is_empty()).then(|| credential.clone());
            }
            cluster.is_locked_out = false;
            cluster.sessions.push(Entry {
                id,
                handle,
                credential,
                renewed: None,
                outdated_since: None,
                agent,
                superseded: false,
                joined: now,
                probe: None,
            });
            cluster.stand(now);
        }
        self.changed.notify_waiters();
        true
    }

    /// A session is suspect, or is so no more: who waits for one may have it.
    pub(crate) fn suspicion_changed(&self, cluster: &ClusterId) {
        if let Some(cluster) = self.clusters().get_mut(cluster) {
            cluster.stand(timestamp(&self.host));
        }
        self.changed.notify_waiters();
    }

    /// Removes that session and no other, however late it is. An end that nobody wanted `is_error`.
    pub(crate) fn leave(&self, cluster: &ClusterId, id: SessionId, why: &str, is_error: bool) {
        let (now, why) = (timestamp(&self.host), foreign::shown(why, WORDS_BYTES_MAX));
        if let Some(cluster) = self.clusters().get_mut(cluster) {
            if let Some(ended) = cluster.sessions.iter().find(|entry| entry.id == id) {
                cluster.past.add(&ended.handle.stats());
            }
            let n_before = cluster.sessions.len();
            cluster.sessions.retain(|entry| entry.id != id);
            if cluster.sessions.is_empty() && n_before > 0 {
                cluster.lost_at = Instant::now();
                cluster.lost_since = now;
                cluster.lost_why = Some(why.clone());
            }
            if is_error {
                cluster.last_error = Some(LastError { text: why, time: now });
            }
            cluster.stand(now);
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
        let _place = self.parking.enter(cluster, head_bytes).ok_or(Absent::ParkingFull)?;
        let give_up_at = Instant::now() + self.parking.wait_max;
        loop {
            // Before the look, so that a session that joins in between is not missed.
            let changed = self.changed.notified();
            let found = self.look(cluster, full);
            let is_awaited = matches!(found, Err(Absent::Offline { recent: true, .. }));
            if !is_awaited || timeout_at(give_up_at, changed).await.is_err() {
                return found;
            }
        }
    }

    /// The least loaded session that takes streams, and whose API server answered when it was last asked, if there is such a
    /// one; the newest among equals.
    fn look(&self, cluster: &ClusterId, full: &[SessionId]) -> Result<(SessionId, SessionHandle), Absent> {
        let clusters = self.clusters();
        let cluster = clusters.get(cluster).ok_or(Absent::Unknown)?;
        let takes = |entry: &&Entry| entry.takes_streams() && !entry.handle.is_suspect() && !full.contains(&entry.id);
        let usable = cluster.sessions.iter().rev().filter(takes);
        match usable.min_by_key(|entry| (entry.has_failed(), entry.superseded, entry.handle.n_streams())) {
            Some(entry) => Ok((entry.id, entry.handle.clone())),
            None if !full.is_empty() => Err(Absent::Full),
            None => {
                // A session that only drains, or is suspect, counts as lost now: its agent is dialling another.
                let is_lost_now = !cluster.sessions.is_empty() || cluster.lost_at.elapsed() < self.parking.window;
                let recent = is_lost_now && !cluster.is_locked_out;
                Err(Absent::Offline { since: cluster.lost_since, why: cluster.lost_why.clone(), recent })
            }
        }
    }

    /// Resolves at the next session that joins, or change of the clusters, after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// For how long each cluster has had no session; `None` while it has one.
    pub(crate) fn absences(&self) -> Vec<(ClusterId, Option<Duration>)> {
        let absence = |cluster: &Cluster| cluster.sessions.is_empty().then(|| cluster.lost_at.elapsed());
        self.clusters().iter().map(|(id, cluster)| (id.clone(), absence(cluster))).collect()
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

    /// Every cluster with its live sessions, and what those that have ended came to.
    pub(crate) fn fleet(&self) -> Vec<(ClusterId, Totals, Vec<SessionHandle>)> {
        let clusters = self.clusters();
        let handles = |cluster: &Cluster| cluster.sessions.iter().map(|entry| entry.handle.clone()).collect();
        clusters.iter().map(|(id, cluster)| (id.clone(), cluster.past, handles(cluster))).collect()
    }

    /// Whether there is such a cluster.
    pub(crate) fn knows(&self, cluster: &str) -> bool {
        self.clusters().contains_key(cluster)
    }

    /// How many requests wait for a session.
    pub(crate) fn n_parked(&self) -> usize {
        self.parking.n_waiting()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::clusters;

    #[tokio::test]
    async fn a_session_enters_once_the_registry_follows_the_roster_and_not_before() {
        let list = |text| clusters::parse("CLUSTERS", text).expect("a good list").list;
        let config = ServerConfig { clusters: list(r#"[{"id": "a", "token": "1"}]"#), ..ServerConfig::default() };
        let roster = std::sync::Arc::new(Roster::new(&config.clusters));
        let registry = Registry::new(&config, Host::real());
        let trust = Trust::new(roster.clone(), None, None, None);
        let budget = std::sync::Arc::new(tunnel::Budget::new(1 << 20));
        let session = tunnel::SessionConfig::new(tunnel::Role::Server, tunnel::Protocol::V1, budget);
        let (handle, _incoming, _driver) = tunnel::start(session, tokio::io::duplex(1024).0, Default::default()).await;

        let changes = roster.replace(&list(r#"[{"id": "a", "token": "1"}, {"id": "b", "token": "2"}]"#));
        let (b, credential) = trust.admit(Some(b"2"), None).expect("a known token");
        assert!(!registry.join(&b, SessionId(1), handle.clone(), credential.clone()), "who did not enter must be told");
        registry.follow(&trust, &roster, &changes);
        assert!(registry.join(&b, SessionId(2), handle, credential));
        assert_eq!(registry.sessions().iter().filter(|(of, _)| *of == b).count(), 1);
    }
}
