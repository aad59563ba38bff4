//! Health: whether a cluster answers, asked from end to end, through each session, again and again.
//!
//! A probe is `GET /version` by the very way of callers' requests: session, agent, API server and back. What it finds is kept
//! in the registry, which prefers sessions that answer.

mod verdict;

use std::sync::Arc;
use std::time::Duration;

use host::Host;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Request, Version};
use http_body_util::BodyExt;
use jiff::Timestamp;
use proxy::body;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tunnel::frame::{Class, Open};
use tunnel::id::{ClusterId, SessionId};
use tunnel::{OpenError, Protocol, SessionHandle};

use crate::forward;
use crate::registry::Registry;
use crate::roster::Roster;
pub(crate) use verdict::WORDS_BYTES_MAX;

/// How long a probe waits for its answer: twice what a loaded API server takes to tell its version over the longest way, and
/// short enough that with the interval before it nobody is believed to be well for 15 s.
pub(crate) const PROBE_MAX: Duration = Duration::from_secs(5);

/// How long a probe of a version 1 agent goes on after it counts as failed. Such an agent does not hear that nobody waits any
/// more, and each one given up would be a connection lost to its API server.
const V1_PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read: the version of a distribution with much to tell is under 1 KiB, a `Status` with causes a few.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// When its answer came, or was given up.
    pub(crate) at: Instant,
    /// The same for people.
    pub(crate) time: Timestamp,
    /// From the question to the end of the answer.
    pub(crate) took: Duration,
    /// The version of Kubernetes, or why there is no answer.
    pub(crate) outcome: Result<String, String>,
}

/// Something that went wrong, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastError {
    pub(crate) text: String,
    pub(crate) time: Timestamp,
}

/// Probes sessions.
pub(crate) struct Prober {
    host: Host,
    registry: Arc<Registry>,
    roster: Arc<Roster>,
    interval: Option<Duration>,
}

impl Prober {
    /// `interval` is the time from probe to probe of one session; none = nothing is probed.
    pub(crate) fn new(host: Host, registry: Arc<Registry>, roster: Arc<Roster>, interval: Option<Duration>) -> Self {
        Self { host, registry, roster, interval }
    }

    /// Probes a session that has joined, at once and then at a fixed pace; never ends itself.
    pub(crate) async fn watch(&self, cluster: &ClusterId, id: SessionId, session: &SessionHandle, protocol: Protocol) {
        let Some(interval) = self.interval else { return std::future::pending().await };
        // A fleet that joined in one moment does not probe in step for ever.
        let phase = interval.mul_f64(self.host.chance() as f64 / u64::MAX as f64);
        let mut turns = interval_at(Instant::now() + phase, interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let patience = if protocol == Protocol::V1 { V1_PATIENCE } else { Duration::ZERO };
        let mut was_healthy = None;
        loop {
            let began = Instant::now();
            {
                // Dropped with this block: what is given up is over at the far end too, not only when the next turn comes.
                let mut answer = std::pin::pin!(self.ask(cluster, session));
                let mut found = timeout(PROBE_MAX, answer.as_mut()).await;
                if found.is_err() {
                    self.note(cluster, id, began, Err(verdict::no_answer(PROBE_MAX)), &mut was_healthy);
                    found = timeout(patience, answer).await;
                }
                if let Ok(Some(outcome)) = found {
                    self.note(cluster, id, began, outcome, &mut was_healthy);
                }
            }
            turns.tick().await;
            // A way that answers no ping answers no probe: nothing is heaped on it, and when it is back that is told at once.
            while session.is_suspect() {
                session.suspicion(false).await;
            }
        }
    }

    /// Keeps what was found, and tells the log when it is another than before.
    fn note(
        &self,
        cluster: &ClusterId,
        id: SessionId,
        began: Instant,
        outcome: Result<String, String>,
        was_healthy: &mut Option<bool>,
    ) {
        if was_healthy.replace(outcome.is_ok()) != Some(outcome.is_ok()) {
            match &outcome {
                Ok(kubernetes) => tracing::info!(kubernetes, "the API server answers"),
                Err(why) => tracing::warn!(why, "the API server does not answer as it should"),
            }
        }
        self.registry.probed(cluster, id, began.elapsed(), outcome);
    }

    /// Asks once; none when the session takes no streams any more, which says nothing of what is behind it.
    async fn ask(&self, cluster: &ClusterId, session: &SessionHandle) -> Option<Result<String, String>> {
        let request_id = format!("{:016x}", self.host.chance());
        let target = self.roster.target(cluster);
        let host = forward::host_of(&target);
        let stream = match session.open(Open { class: Class::Small, is_probe: true, request_id, target, ..Open::default() }) {
            Ok(stream) => stream,
            Err(OpenError::Ended | OpenError::Draining | OpenError::Ids) => return None,
            Err(error @ (OpenError::Streams { .. } | OpenError::Budget)) => return Some(Err(verdict::not_asked(error))),
        };
        let mut request = Request::new(body::empty());
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = http::Uri::from_static("/version");
        request.headers_mut().insert(HOST, host);
        // One request per stream, as all others are.
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let response = forward::ask(stream, request).await.map_err(|error| verdict::broken(&error));
        let (head, body) = match response {
            Ok(response) => response.into_parts(),
            Err(why) => return Some(Err(why)),
        };
        let limited = match body::limited(body, ANSWER_BYTES_MAX) {
            Ok(limited) => limited,
            Err(error) => return Some(Err(verdict::broken(&error))),
        };
        let collected = limited.collect().await.map_err(|error| verdict::broken(&*error));
        Some(collected.and_then(|body| verdict::of_answer(head.status, &body.to_bytes())))
    }
}
