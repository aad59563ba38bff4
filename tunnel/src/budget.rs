//! The memory budget: what peers may send unasked, and what waits on our side, never exceeds it.
//!
//! A stream reserves a fixed part when it opens, so that it can always go on; larger windows and queues are reserved
//! from the rest, only while there is some. The two parts are apart so that bulk never takes the room of new streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget in bytes, alone or under a parent that it also counts against.
#[derive(Debug)]
pub struct Budget {
    fixed: Pool,
    growth: Pool,
    parent: Option<Arc<Self>>,
}

#[derive(Debug)]
struct Pool {
    max: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes`, three quarters of it for what streams hold at least, one quarter for what they grow by.
    ///
    /// The quarter is enough for one stream at full rate over 80 ms and 1 Gbit/s in a session of 64 MiB.
    pub fn new(bytes: usize) -> Self {
        let growth = bytes / 4;
        Self { fixed: Pool::new(bytes - growth), growth: Pool::new(growth), parent: None }
    }

    /// A budget of `bytes` that counts against `parent` too.
    pub fn under(parent: Arc<Self>, bytes: usize) -> Self {
        Self { parent: Some(parent), ..Self::new(bytes) }
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.fixed.used.load(Ordering::Relaxed) + self.growth.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be reserved in all.
    pub fn max(&self) -> usize {
        self.fixed.max + self.growth.max
    }

    /// Reserves for a new stream; false when there is no room, and nothing is reserved then.
    pub(crate) fn reserve_fixed(&self, bytes: usize) -> bool {
        self.reserve(bytes, |budget| &budget.fixed)
    }

    /// Gives back what [`Budget::reserve_fixed`] took.
    pub(crate) fn release_fixed(&self, bytes: usize) {
        self.release(bytes, |budget| &budget.fixed);
    }

    /// Reserves for growth; false when there is no room, and nothing is reserved then.
    pub(crate) fn reserve_growth(&self, bytes: usize) -> bool {
        self.reserve(bytes, |budget| &budget.growth)
    }

    /// Gives back what [`Budget::reserve_growth`] took.
    pub(crate) fn release_growth(&self, bytes: usize) {
        self.release(bytes, |budget| &budget.growth);
    }

    fn reserve(&self, bytes: usize, pool: fn(&Self) -> &Pool) -> bool {
        if !pool(self).reserve(bytes) {
            return false;
        }
        if self.parent.as_ref().is_none_or(|parent| parent.reserve(bytes, pool)) {
            return true;
        }
        pool(self).release(bytes);
        false
    }

    fn release(&self, bytes: usize, pool: fn(&Self) -> &Pool) {
        pool(self).release(bytes);
        if let Some(parent) = &self.parent {
            parent.release(bytes, pool);
        }
    }
}

impl Pool {
    fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    fn reserve(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(bytes).filter(|sum| *sum <= self.max))
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before} bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_against_its_parent_and_gives_everything_back() {
        let parent = Arc::new(Budget::new(4000));
        let (one, two) = (Budget::under(parent.clone(), 4000), Budget::under(parent.clone(), 4000));
        assert!(one.reserve_fixed(2000));
        assert!(!two.reserve_fixed(2000), "the parent holds 3000");
        assert_eq!((two.used(), parent.used()), (0, 2000));
        one.release_fixed(2000);
        assert!(two.reserve_fixed(3000));
        two.release_fixed(3000);
        assert_eq!(parent.used(), 0);
    }

    #[test]
    fn growth_never_takes_the_room_of_new_streams() {
        let budget = Budget::new(4000);
        assert!(budget.reserve_growth(1000));
        assert!(!budget.reserve_growth(1));
        assert!(budget.reserve_fixed(3000));
    }
}
