//! Windows: how much a peer may send us on one stream, and how much of our credit there is no use for.
//!
//! ```text
//!   granted   credit that the peer holds and has not spent
//!   buffered  bytes that came and were not read
//!   granted + buffered <= max(initial, reserved): what is above the initial window is reserved as growth
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;

/// A window grows no further than this: 16 MiB carry 1 Gbit/s over 130 ms.
pub(crate) const WINDOW_MAX: usize = 16 * 1024 * 1024;

/// A window grows when it was read empty within this many round trips: the peer must then have waited for credit.
const GROW_WITHIN_ROUND_TRIPS: u32 = 2;

/// How much it grows then: from 32 KiB to what 100 Mbit/s over 200 ms need in four round trips, before a second is over.
const GROW_BY: usize = 4;

/// Nearer peers count as this far: below it the scheduling of two busy processes, not distance, sets the pace.
const RTT_MIN: Duration = Duration::from_millis(5);

/// The receiving side's window of one stream.
#[derive(Debug)]
pub(crate) struct Window {
    initial: usize,
    target: usize,
    granted: usize,
    buffered: usize,
    /// Reserved from the budget's growth part.
    reserved: usize,
    /// Bytes read since `epoch`.
    read: usize,
    epoch: Instant,
}

impl Window {
    /// The window of a new stream, whose `initial` bytes are granted by being opened.
    pub(crate) fn new(initial: usize, now: Instant) -> Self {
        Self { initial, target: initial, granted: initial, buffered: 0, reserved: 0, read: 0, epoch: now }
    }

    /// Takes `n` bytes from the peer; false when it sent more than it was granted.
    #[must_use]
    pub(crate) fn receive(&mut self, n: usize) -> bool {
        if n > self.granted {
            return false;
        }
        self.granted -= n;
        self.buffered += n;
        self.assert_invariants();
        true
    }

    /// Takes `n` bytes that no credit covers, from a peer that knows none (version 1); false when the budget has no room.
    #[must_use]
    pub(crate) fn receive_without_credit(&mut self, n: usize, max: usize, budget: &Budget) -> bool {
        self.granted = 0;
        self.target = 0;
        let over = (self.buffered + n).saturating_sub(self.initial + self.reserved);
        if self.buffered + n > max || !budget.reserve_growth(over) {
            return false;
        }
        self.reserved += over;
        self.buffered += n;
        true
    }

    /// The local reader took `n` bytes.
    pub(crate) fn read(&mut self, n: usize, now: Instant, rtt: Duration, budget: &Budget) {
        debug_assert!(n <= self.buffered);
        self.buffered -= n;
        self.shrink(budget);
        self.read += n;
        if self.read < self.target {
            return;
        }
        if now - self.epoch <= rtt.max(RTT_MIN) * GROW_WITHIN_ROUND_TRIPS {
            self.target = (self.target * GROW_BY).min(WINDOW_MAX);
        }
        self.read = 0;
        self.epoch = now;
    }

    /// Credit worth granting now: reserved, and counted as granted. Zero while it would be less than a quarter window.
    #[must_use]
    pub(crate) fn grant(&mut self, budget: &Budget) -> usize {
        let held = self.granted + self.buffered;
        let wanted = self.target.saturating_sub(held);
        if wanted < self.target / 4 {
            return 0;
        }
        if !self.reserve_up_to(held + wanted, budget) {
            // No room to grow: what is reserved already is still ours to grant.
            self.target = (self.initial + self.reserved).min(self.target);
        }
        let credit = self.target.saturating_sub(held);
        self.granted += credit;
        self.assert_invariants();
        credit
    }

    /// Whether [`Window::grant`] would give something.
    pub(crate) fn wants_grant(&self) -> bool {
        self.target > 0 && self.target.saturating_sub(self.granted + self.buffered) >= self.target / 4
    }

    /// The peer gave back `n` bytes of credit; false when it never had them.
    #[must_use]
    pub(crate) fn give_back(&mut self, n: usize, budget: &Budget) -> bool {
        if n > self.granted {
            return false;
        }
        self.granted -= n;
        self.target = self.initial;
        self.shrink(budget);
        self.assert_invariants();
        true
    }

    /// The peer will send nothing more, or never asks for credit: there is none to hold.
    pub(crate) fn finish(&mut self, budget: &Budget) {
        self.granted = 0;
        self.target = 0;
        self.shrink(budget);
    }

    /// Gives back growth that is neither held nor about to be granted again.
    fn shrink(&mut self, budget: &Budget) {
        let needed = self.held().max(self.target).saturating_sub(self.initial);
        if self.reserved > needed {
            budget.release_growth(self.reserved - needed);
            self.reserved = needed;
        }
    }

    /// The end of the stream: everything unread is forgotten, all growth given back.
    pub(crate) fn discard(&mut self, budget: &Budget) {
        self.buffered = 0;
        self.finish(budget);
    }

    /// Credit that the peer holds plus bytes that wait.
    pub(crate) fn held(&self) -> usize {
        self.granted + self.buffered
    }

    /// Credit that the peer holds.
    #[cfg(test)]
    pub(crate) fn granted(&self) -> usize {
        self.granted
    }

    /// Bytes reserved beyond the initial window.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    fn reserve_up_to(&mut self, held: usize, budget: &Budget) -> bool {
        let needed = held.saturating_sub(self.initial);
        if needed <= self.reserved {
            return true;
        }
        let more = needed - self.reserved;
        let granted = budget.reserve_growth(more);
        if granted {
            self.reserved += more;
        }
        granted
    }

    fn assert_invariants(&self) {
        debug_assert!(self.held() <= self.initial + self.reserved, "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: usize = 1000;
    const RTT: Duration = Duration::from_millis(100);

    /// A peer that always sends all it may, a reader that reads all at once, one round trip per turn.
    fn saturate(window: &mut Window, budget: &Budget, turns: u32, turn: Duration) {
        let mut now = Instant::now();
        for _ in 0..turns {
            let n = window.granted;
            assert!(window.receive(n));
            now += turn;
            window.read(n, now, RTT, budget);
            let _ = window.grant(budget);
        }
    }

    #[tokio::test]
    async fn a_window_grows_when_the_reader_keeps_up_with_the_link() {
        let budget = Budget::new(1 << 20);
        let mut window = Window::new(INITIAL, Instant::now());
        saturate(&mut window, &budget, 6, RTT);
        assert!(window.held() >= 16 * INITIAL, "{window:?}");
    }

    #[tokio::test]
    async fn a_slow_readers_window_stays_small() {
        let budget = Budget::new(1 << 20);
        let mut window = Window::new(INITIAL, Instant::now());
        saturate(&mut window, &budget, 20, RTT * 5);
        assert_eq!(window.held(), INITIAL);
    }

    #[tokio::test]
    async fn growth_stops_at_the_budget_and_the_stream_goes_on() {
        let budget = Budget::new(20 * INITIAL);
        let mut window = Window::new(INITIAL, Instant::now());
        saturate(&mut window, &budget, 20, RTT);
        assert!(window.held() >= INITIAL && window.held() <= INITIAL + 5 * INITIAL, "{window:?}");
        assert_eq!(budget.used(), window.reserved());
    }

    #[tokio::test]
    async fn returned_credit_goes_back_to_the_budget() {
        let budget = Budget::new(1 << 20);
        let mut window = Window::new(INITIAL, Instant::now());
        saturate(&mut window, &budget, 6, RTT);
        let unused = window.held() - INITIAL;
        assert!(window.give_back(unused, &budget));
        assert_eq!((window.held(), budget.used()), (INITIAL, 0));
        assert!(!window.give_back(INITIAL + 1, &budget), "more than was granted");
    }
}
