//! Retransmission: what a cut swallowed is sent again when its kernel's timer says so, and nothing overtakes it.
//!
//! The timer knows nothing of healing. It backs off, so that a way that is well again may carry nothing for as long as
//! it was cut. A direction in which nobody spoke meanwhile has nothing to repeat and works at once.

use std::time::Duration;

use tokio::time::Instant;

use super::link::RTO_MIN;
use super::pipe::{Lost, Parcel, PipeId};
use super::traffic::{Event, Traffic};

/// The most between two repetitions (Linux, TCP_RTO_MAX; RFC 6298 section 2.5 allows it).
const RTO_MAX: Duration = Duration::from_secs(120);

/// When a dial says SYN again for the first time (RFC 6298 section 2.1).
pub(super) const SYN_RTO: Duration = Duration::from_secs(1);

/// The first time from `now` on at which something is sent that was first sent at `since`, then after `rto`, and then
/// after twice as long each time (RFC 6298 section 5.5).
pub(super) fn next_sending(since: Instant, rto: Duration, now: Instant) -> Instant {
    let (mut at, mut wait) = (since, rto);
    while at < now {
        at += wait;
        wait = (wait * 2).min(RTO_MAX);
    }
    at
}

impl Traffic {
    /// A cut swallows what stands in line: it would have been sent now.
    pub(super) fn cut(&mut self, link: usize, now: Instant) {
        for direction in [0, 1] {
            for id in std::mem::take(&mut self.links[link].lines[direction].ready) {
                let Some(conn) = self.conns.get_mut(&id.conn) else { continue };
                conn.pipes[id.side].queued = false;
                conn.pipes[id.side].lose(now);
            }
        }
    }

    /// Lets a link work again. What was only late arrives `after` that, what was lost at its next repetition.
    pub(super) fn resume(&mut self, link: usize, after: Duration, now: Instant) {
        for id in std::mem::take(&mut self.links[link].late) {
            self.bring(id, now + after);
        }
        let rto = self.links[link].wan.round_trip() + RTO_MIN;
        let mut again = Vec::new();
        for (conn, found) in self.conns.iter_mut().filter(|(_, found)| found.link == link) {
            for (side, pipe) in found.pipes.iter_mut().enumerate() {
                if let Some(lost) = &mut pipe.lost {
                    let at = next_sending(lost.since, rto, now);
                    lost.again_at = Some(at);
                    again.push((at, PipeId { conn: *conn, side }));
                }
            }
        }
        for (at, id) in again {
            self.at(at, Event::SentAgain(id));
        }
        self.pump(link, 0, now);
        self.pump(link, 1, now);
    }

    /// Repeats what was lost, and goes on with what waited behind it.
    pub(super) fn send_again(&mut self, id: PipeId, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let way = &self.links[conn.link];
        let is_due = |lost: &mut Lost| lost.again_at.is_some_and(|at| at <= now);
        // Who is lost again meanwhile is repeated later.
        if way.blocked() || conn.pipes[id.side].lost.take_if(is_due).is_none() {
            return;
        }
        let latency = way.wan.latency;
        self.bring(id, now + latency);
        self.enqueue(id, now);
    }

    /// Has what travels in a pipe arrive at `arrival` at the earliest.
    fn bring(&mut self, id: PipeId, arrival: Instant) {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        for (at, _) in &mut conn.pipes[id.side].flight {
            *at = (*at).max(arrival);
        }
        self.at(arrival, Event::Arrives(id));
    }
}

impl super::pipe::Pipe {
    /// A cut swallowed what was sent at `since`; what was swallowed before counts.
    pub(super) fn lose(&mut self, since: Instant) {
        self.lost.get_or_insert(Lost { since, again_at: None });
    }

    /// Whether nothing may arrive yet. A reset ends a connection whatever was lost on it.
    pub(super) fn waits_for_repetition(&self) -> bool {
        self.lost.is_some() && !self.flight.iter().any(|(_, parcel)| matches!(parcel, Parcel::Reset))
    }
}
