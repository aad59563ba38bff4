//! The requests that run, each with what let it in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tunnel::{Reason, StreamWatch};

use super::Admitted;

/// What a caller's agent is told of a stream that is cut.
const WHY: &str = "the caller may do this no longer";

/// All requests that have a stream. Bounded by the streams of all sessions.
#[derive(Default)]
pub(crate) struct Running(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, (Arc<Admitted>, StreamWatch)>,
}

/// One request's place among those that run; leaves it when dropped.
pub(crate) struct Place {
    running: Arc<Running>,
    id: u64,
}

impl Running {
    pub(super) fn enter(self: &Arc<Self>, request: Arc<Admitted>, stream: StreamWatch) -> Place {
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.entries.insert(id, (request, stream));
        Place { running: self.clone(), id }
    }

    /// Ends the streams of all requests but those that `is_allowed`; how many those are.
    pub(super) fn cut_unless(&self, is_allowed: impl Fn(&Admitted) -> bool) -> usize {
        let refused = |(request, stream): &(Arc<Admitted>, StreamWatch)| (!is_allowed(request)).then(|| stream.clone());
        let cut: Vec<_> = self.table().entries.values().filter_map(refused).collect();
        // Behind the lock: who is woken by it may leave the table.
        cut.iter().for_each(|stream| stream.reset(Reason::Forbidden, WHY));
        cut.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _entry = self.running.table().entries.remove(&self.id);
    }
}
