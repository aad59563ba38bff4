//! Liveness: a peer is alive when a byte came from it, and pings make sure that a healthy peer is never silent.
//!
//! Suspicion comes long before silence: a ping without an answer, and not a byte since. It ends nothing, for the way may be
//! cut for a moment or only slow; but TCP repeats what was lost after ever longer pauses, so that a new connection may
//! work long before this one does. Only the answer ends it: bytes of the peer do not show that ours arrive.

use std::time::Duration;

use tokio::time::Instant;

/// The round-trip time assumed before one was measured: across a continent.
const RTT_ASSUMED: Duration = Duration::from_millis(100);

/// What was said and not answered by a single byte for so long provokes a ping: long enough that most answers need none.
const UNANSWERED_MAX: Duration = Duration::from_secs(2);

/// How long nothing may be heard while a ping waits, beside [`SUSPECT_ROUND_TRIPS`]. Kernels repeat what was lost 0.2, 0.6, 1.4
/// and 3 s after it was sent, and a cut that is over by then needs no other session.
const SUSPECT: Duration = Duration::from_secs(3);

/// The answer itself takes one, and another if it has to be repeated.
const SUSPECT_ROUND_TRIPS: u32 = 2;

/// When to ping, when to suspect, when to give up, how far the peer is.
#[derive(Debug)]
pub(crate) struct Keepalive {
    ping_interval: Duration,
    silence_max: Duration,
    /// Version 1 pings by the clock, whatever was heard, and is never suspected.
    by_the_clock: bool,
    heard_at: Instant,
    /// Since when something that was said is unanswered.
    spoke_at: Option<Instant>,
    /// The last ping.
    pinged_at: Option<Instant>,
    /// The token of the ping on its way, and when it was asked for.
    waiting: Option<(u64, Instant)>,
    suspect: bool,
    next_token: u64,
    rtt: Option<Duration>,
}

impl Keepalive {
    pub(crate) fn new(ping_interval: Duration, silence_max: Duration, by_the_clock: bool, now: Instant) -> Self {
        Self {
            ping_interval,
            silence_max,
            by_the_clock,
            heard_at: now,
            spoke_at: None,
            pinged_at: None,
            waiting: None,
            suspect: false,
            next_token: 1,
            rtt: None,
        }
    }

    /// A byte came from the peer.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = self.heard_at.max(now);
        self.spoke_at.take_if(|spoke_at| *spoke_at <= now);
    }

    /// Something leaves for the peer other than an answer to its ping: two sides must not provoke each other for ever.
    pub(crate) fn spoke(&mut self, now: Instant) {
        self.spoke_at.get_or_insert(now);
    }

    /// How long nothing was heard, when that is too long.
    pub(crate) fn silent(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.heard_at);
        (silence >= self.silence_max).then_some(silence)
    }

    /// The token of a ping that is due now.
    pub(crate) fn ping(&mut self, now: Instant) -> Option<u64> {
        if self.ping_at().is_none_or(|at| now < at) {
            return None;
        }
        self.pinged_at = Some(now);
        let token = self.next_token;
        self.next_token += 1;
        self.waiting = Some((token, now));
        Some(token)
    }

    /// The ping with `token` leaves for the socket now; waiting behind other frames is no distance.
    pub(crate) fn ping_left(&mut self, token: Option<u64>, now: Instant) {
        if let Some((waiting, asked_at)) = &mut self.waiting
            && token.is_none_or(|token| token == *waiting)
        {
            *asked_at = now;
        }
    }

    /// An answer came. Version 1 pongs carry no token and answer the latest ping.
    pub(crate) fn pong(&mut self, token: Option<u64>, now: Instant) {
        let Some((_, asked_at)) = self.waiting.take_if(|(waiting, _)| token.is_none_or(|token| token == *waiting)) else {
            return;
        };
        let sample = now.saturating_duration_since(asked_at);
        // What a kernel kept for its timer tells nothing of the distance.
        if std::mem::take(&mut self.suspect) {
            return;
        }
        // Shorter is nearer the truth (less queueing); longer is believed slowly.
        self.rtt = Some(match self.rtt {
            Some(rtt) if sample > rtt => rtt + (sample - rtt) / 8,
            _ => sample,
        });
    }

    /// The measured round-trip time.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The round-trip time to reckon with.
    pub(crate) fn rtt_or_assumed(&self) -> Duration {
        self.rtt.unwrap_or(RTT_ASSUMED)
    }

    /// When the peer will have been silent for too long.
    pub(crate) fn silent_at(&self) -> Instant {
        self.heard_at + self.silence_max
    }

    /// When the next ping is due, unless one waits for its answer.
    pub(crate) fn ping_at(&self) -> Option<Instant> {
        // The first ping goes out at once, to know the round-trip time early.
        let Some(pinged_at) = self.pinged_at else { return Some(self.heard_at) };
        if self.by_the_clock {
            return Some(pinged_at + self.ping_interval);
        }
        let idle_at = self.heard_at + self.ping_interval;
        let provoked_at = self.spoke_at.map_or(idle_at, |spoke_at| spoke_at + UNANSWERED_MAX);
        self.waiting.is_none().then_some(idle_at.min(provoked_at))
    }

    /// When the peer will be suspect, if it is not and nothing more is heard.
    pub(crate) fn suspect_at(&self) -> Option<Instant> {
        let (_, asked_at) = self.waiting.filter(|_| !self.suspect && !self.by_the_clock)?;
        Some(self.heard_at.max(asked_at) + SUSPECT + SUSPECT_ROUND_TRIPS * self.rtt_or_assumed())
    }

    /// Suspects the peer if it is time to; whether it became suspect by that.
    pub(crate) fn suspect_if_due(&mut self, now: Instant) -> bool {
        let due = self.suspect_at().is_some_and(|at| at <= now);
        self.suspect |= due;
        due
    }

    /// Whether a ping is without an answer for so long that another session might do better.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn silence_is_measured_on_what_was_heard_alone() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(SECOND * 15, SECOND * 45, true, start);
        assert!(keepalive.ping(start).is_some());
        assert!(keepalive.ping(start + SECOND * 15).is_some(), "pings go on without answers");
        assert_eq!(keepalive.silent(start + SECOND * 44), None);
        assert_eq!(keepalive.silent(start + SECOND * 45), Some(SECOND * 45));
        keepalive.heard(start + SECOND * 44);
        assert_eq!(keepalive.silent(start + SECOND * 45), None);
    }

    #[tokio::test]
    async fn only_the_answer_to_the_latest_ping_measures_the_distance() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(SECOND, SECOND * 45, false, start);
        let token = keepalive.ping(start);
        keepalive.pong(Some(999), start + SECOND);
        assert_eq!(keepalive.rtt(), None);
        keepalive.pong(token, start + SECOND / 10);
        assert_eq!(keepalive.rtt(), Some(SECOND / 10));
        keepalive.pong(token, start + SECOND);
        assert_eq!(keepalive.rtt(), Some(SECOND / 10), "an answer counts once");
    }

    #[tokio::test]
    async fn a_ping_is_due_when_nothing_was_heard_and_sooner_when_something_was_said() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(SECOND * 8, SECOND * 45, false, start);
        let token = keepalive.ping(start);
        assert_eq!(keepalive.ping_at(), None, "one ping waits at most");
        keepalive.heard(start + SECOND);
        keepalive.pong(token, start + SECOND);
        keepalive.heard(start + SECOND * 5);
        assert_eq!(keepalive.ping_at(), Some(start + SECOND * 13));
        keepalive.spoke(start + SECOND * 6);
        keepalive.spoke(start + SECOND * 7);
        assert_eq!(keepalive.ping_at(), Some(start + SECOND * 8));
        keepalive.heard(start + SECOND * 7);
        assert_eq!(keepalive.ping_at(), Some(start + SECOND * 15), "it was answered");
    }

    #[tokio::test]
    async fn suspicion_begins_in_silence_alone_and_ends_by_the_answer_alone() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(SECOND * 8, SECOND * 45, false, start);
        let token = keepalive.ping(start);
        keepalive.heard(start + SECOND * 2);
        let due = start + SECOND * 5 + RTT_ASSUMED * 2;
        assert_eq!(keepalive.suspect_at(), Some(due));
        assert!(!keepalive.suspect_if_due(due - SECOND));
        assert!(keepalive.suspect_if_due(due));
        keepalive.heard(due + SECOND);
        assert!(keepalive.is_suspect(), "that we hear the peer does not show that it hears us");
        keepalive.pong(token, due + SECOND);
        assert!(!keepalive.is_suspect());
        assert_eq!(keepalive.rtt(), None, "a cut is no distance");
    }
}
