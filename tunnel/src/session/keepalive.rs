//! Liveness: a peer is alive when a byte came from it, and pings make sure that a healthy peer is never silent.

use std::time::Duration;

use tokio::time::Instant;

/// The round-trip time assumed before one was measured: across a continent.
const RTT_ASSUMED: Duration = Duration::from_millis(100);

/// When to ping, when to give up, how far the peer is.
#[derive(Debug)]
pub(crate) struct Keepalive {
    ping_interval: Duration,
    silence_max: Duration,
    heard_at: Instant,
    ping_at: Instant,
    /// The token of the ping on its way, and when it was asked for.
    waiting: Option<(u64, Instant)>,
    next_token: u64,
    rtt: Option<Duration>,
}

impl Keepalive {
    pub(crate) fn new(ping_interval: Duration, silence_max: Duration, now: Instant) -> Self {
        // The first ping goes out at once, to know the round-trip time early.
        Self { ping_interval, silence_max, heard_at: now, ping_at: now, waiting: None, next_token: 1, rtt: None }
    }

    /// A byte came from the peer.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = self.heard_at.max(now);
    }

    /// How long nothing was heard, when that is too long.
    pub(crate) fn silent(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.heard_at);
        (silence >= self.silence_max).then_some(silence)
    }

    /// The token of a ping that is due now.
    pub(crate) fn ping(&mut self, now: Instant) -> Option<u64> {
        if now < self.ping_at {
            return None;
        }
        self.ping_at = now + self.ping_interval;
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

    /// When the next ping is due.
    pub(crate) fn ping_at(&self) -> Instant {
        self.ping_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn silence_is_measured_on_what_was_heard_alone() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(SECOND * 15, SECOND * 45, start);
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
        let mut keepalive = Keepalive::new(SECOND, SECOND * 45, start);
        let token = keepalive.ping(start);
        keepalive.pong(Some(999), start + SECOND);
        assert_eq!(keepalive.rtt(), None);
        keepalive.pong(token, start + SECOND / 10);
        assert_eq!(keepalive.rtt(), Some(SECOND / 10));
        keepalive.pong(token, start + SECOND);
        assert_eq!(keepalive.rtt(), Some(SECOND / 10), "an answer counts once");
    }
}
