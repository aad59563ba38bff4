//! What many sessions came to in all: counts that outlive the sessions.

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
