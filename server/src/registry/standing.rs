//! Standing: how each cluster stands, by what was found through its sessions.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tunnel::id::{ClusterId, SessionId};
use tunnel::{SessionHandle, Sums};

use super::{Cluster, Entry, Registry, timestamp};
use crate::foreign;
use crate::health::{LastError, Probe, WORDS_BYTES_MAX};

/// How a cluster stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// An agent is connected, and its API server did not answer when it was last asked.
    Unhealthy,
    /// No agent is connected.
    Offline,
    /// An agent is connected, and its API server was not asked yet.
    Unknown,
    /// The API server answered when it was last asked.
    Healthy,
}

impl State {
    /// All, the worst first.
    pub(crate) const ALL: [Self; 4] = [Self::Unhealthy, Self::Offline, Self::Unknown, Self::Healthy];

    /// The word for it, in documents and questions.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
        }
    }
}

/// How one cluster stands at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) cluster: ClusterId,
    pub(crate) state: State,
    /// Why, unless all is well.
    pub(crate) why: Option<String>,
    /// Since when it stands so.
    pub(crate) since: Timestamp,
    /// What went wrong last, which may be over.
    pub(crate) last_error: Option<LastError>,
    /// The session that stands for all; none while it is offline.
    pub(crate) serving: Option<Serving>,
    /// Of all its sessions.
    pub(crate) sums: Sums,
}

/// What is known of the session that would serve the next request.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) connected_since: Timestamp,
    /// As the agent calls itself; empty for version 1.
    pub(crate) agent: String,
    /// Between the two ends of the tunnel.
    pub(crate) round_trip: Option<Duration>,
    pub(crate) probe: Option<Probe>,
}

impl Registry {
    /// What was found when the API server was asked through a session.
    pub(crate) fn probed(&self, cluster: &ClusterId, id: SessionId, took: Duration, outcome: Result<String, String>) {
        let now = timestamp(&self.host);
        let mut clusters = self.clusters();
        let Some(cluster) = clusters.get_mut(cluster) else { return };
        let Some(entry) = cluster.sessions.iter_mut().find(|entry| entry.id == id) else { return };
        if let Err(why) = &outcome {
            cluster.last_error = Some(LastError { text: why.clone(), time: now });
        }
        entry.probe = Some(Probe { at: Instant::now(), time: now, took, outcome });
        cluster.stand(now);
    }

    /// Somebody with a token of the cluster was turned away.
    pub(crate) fn turned_away(&self, cluster: &ClusterId, why: &str) {
        let now = timestamp(&self.host);
        if let Some(cluster) = self.clusters().get_mut(cluster) {
            cluster.last_error = Some(LastError { text: foreign::shown(why, WORDS_BYTES_MAX), time: now });
        }
    }

    /// Whether API servers are asked at all.
    pub(crate) fn probes(&self) -> bool {
        self.probes
    }

    /// How all clusters stand, by their names, with what was found when their API servers were last asked.
    pub(crate) fn states(&self) -> Vec<(ClusterId, State, Option<Probe>)> {
        let now = timestamp(&self.host);
        let state = |(id, cluster): (&ClusterId, &mut Cluster)| {
            cluster.stand(now);
            (id.clone(), cluster.stood.0, cluster.best().and_then(|best| best.probe.clone()))
        };
        self.clusters().iter_mut().map(state).collect()
    }

    /// All that is known of how the clusters stand that `are_wanted`, by their names.
    pub(crate) fn standings(&self, are_wanted: &dyn Fn(&ClusterId) -> bool) -> Vec<Standing> {
        let now = timestamp(&self.host);
        let mut clusters = self.clusters();
        let wanted = clusters.iter_mut().filter(|(id, _)| are_wanted(id));
        let standings: Vec<_> = wanted.map(|(id, cluster)| cluster.standing(id, now)).collect();
        drop(clusters);
        // All streams of all sessions are looked at, with the registry unlocked: no request waits for that.
        let summed = |(mut standing, sessions): (Standing, Vec<SessionHandle>)| {
            standing.sums = Sums::of(standing.sums.totals, &sessions);
            if standing.state == State::Unknown && !self.probes {
                standing.why = Some("API servers are not asked (--probe-interval 0)".to_owned());
            }
            standing
        };
        standings.into_iter().map(summed).collect()
    }
}

impl Cluster {
    /// Notes since when it stands as it does.
    pub(super) fn stand(&mut self, now: Timestamp) -> Option<String> {
        let (state, why) = self.judge();
        if self.stood.0 != state {
            self.stood = (state, now);
        }
        why
    }

    /// The session that would serve the next request.
    fn best(&self) -> Option<&Entry> {
        let newest_first = self.sessions.iter().rev();
        newest_first.min_by_key(|entry| (!entry.takes_streams(), entry.handle.is_suspect(), entry.has_failed(), entry.superseded))
    }

    /// How it stands, and the sessions of which the sums are to be made.
    fn standing(&mut self, id: &ClusterId, now: Timestamp) -> (Standing, Vec<SessionHandle>) {
        let why = self.stand(now);
        let (state, since) = self.stood;
        let serving = self.best().map(|entry| Serving {
            connected_since: entry.joined,
            agent: entry.agent.clone(),
            round_trip: entry.handle.rtt(),
            probe: entry.probe.clone(),
        });
        let sums = Sums { totals: self.past, ..Sums::default() };
        let standing = Standing { cluster: id.clone(), state, why, since, last_error: self.last_error.clone(), serving, sums };
        (standing, self.sessions.iter().map(|entry| entry.handle.clone()).collect())
    }

    /// How it stands, and why, unless all is well.
    fn judge(&self) -> (State, Option<String>) {
        if self.sessions.is_empty() {
            let never = "no agent has connected since the server knows the cluster";
            return (State::Offline, Some(self.lost_why.clone().unwrap_or_else(|| never.to_owned())));
        }
        let usable: Vec<&Entry> = self.sessions.iter().rev().filter(|entry| entry.takes_streams()).collect();
        if usable.is_empty() {
            return (State::Unhealthy, Some("its sessions take no new requests: they end with what runs on them".to_owned()));
        }
        // The session that a newer one of the same agent stands for may be a link that is cut.
        let current: Vec<&Entry> = usable.iter().copied().filter(|entry| !entry.superseded).collect();
        let why_one = current.iter().find_map(|entry| entry.failure());
        let trusted = || usable.iter().filter(|entry| !entry.handle.is_suspect());
        if trusted().any(|entry| entry.probe.as_ref().is_some_and(|probe| probe.outcome.is_ok())) {
            let n_failed = current.iter().filter(|entry| entry.has_failed()).count();
            let why = why_one.map(|why| format!("{n_failed} of {} sessions: {why}", current.len()));
            return (State::Healthy, why);
        }
        if trusted().any(|entry| entry.probe.is_none()) {
            return (State::Unknown, Some("its API server was not asked yet".to_owned()));
        }
        let why = why_one.or_else(|| usable.iter().find_map(|entry| entry.failure())).cloned();
        (State::Unhealthy, Some(why.unwrap_or_else(|| "the agent, or the way to it, does not answer pings".to_owned())))
    }
}
