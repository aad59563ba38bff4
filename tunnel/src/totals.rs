//! What many sessions come to in all: counts that outlive the sessions, and what they hold now.

use crate::driver::SessionHandle;
use crate::frame::Class;
use crate::session::SessionStats;

/// Counts that only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Data bytes received.
    pub bytes_received: u64,
    /// Data bytes sent.
    pub bytes_sent: u64,
    /// How often a stream that had more to send ran out of credit.
    pub credit_stalls: u64,
}

impl Totals {
    /// Adds what one session came to.
    pub fn add(&mut self, session: &SessionStats) {
        self.bytes_received += session.bytes_received;
        self.bytes_sent += session.bytes_sent;
        self.credit_stalls += session.credit_stalls;
    }
}

/// What several sessions come to at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// How many there are.
    pub sessions: usize,
    /// Their streams by class, in the order of [`Class::ALL`].
    pub streams: [usize; Class::ALL.len()],
    /// Bytes that came and were not read, or were written and have not left.
    pub buffered: usize,
    /// With those of sessions that have ended.
    pub totals: Totals,
}

impl Sums {
    /// Those of `sessions`, whose predecessors came to `past`. Looks at every stream.
    pub fn of(past: Totals, sessions: &[SessionHandle]) -> Self {
        let mut sums = Self { sessions: sessions.len(), totals: past, ..Self::default() };
        for stats in sessions.iter().map(SessionHandle::stats) {
            sums.streams.iter_mut().zip(stats.streams).for_each(|(sum, n)| *sum += n);
            sums.buffered += stats.buffered;
            sums.totals.add(&stats);
        }
        sums
    }
}
