//! What arrived at a cluster's API servers, by the mark that its caller put on it; outlives each of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

/// The header that numbers a caller's requests.
pub(crate) const MARK: &str = "x-sim-request";

/// One request that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// What was answered, if anything yet.
    pub status: Option<StatusCode>,
    /// When it was here.
    pub at: Instant,
    /// Until when somebody worked on it or on its answer, if it is over.
    pub until: Option<Instant>,
}

/// All marked requests that arrived. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<Mutex<BTreeMap<u64, Vec<Arrival>>>>);

impl Arrivals {
    /// The arrivals of the request with this number.
    pub fn of(&self, id: u64) -> Vec<Arrival> {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    /// Notes that a request is here, if it is marked.
    pub(crate) fn arrive(&self, headers: &HeaderMap) -> Option<Arriving> {
        let id = headers.get(MARK)?.to_str().ok()?.parse().ok()?;
        let mut all = self.lock();
        let row = all.entry(id).or_default();
        row.push(Arrival { status: None, at: Instant::now(), until: None });
        Some(Arriving { arrivals: self.clone(), id, n: row.len() - 1 })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<Arrival>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered; open until it is dropped.
pub(crate) struct Arriving {
    arrivals: Arrivals,
    id: u64,
    n: usize,
}

impl Arriving {
    pub(crate) fn answered(&self, status: StatusCode) {
        self.note(|arrival| arrival.status = Some(status));
    }

    fn note(&self, note: impl FnOnce(&mut Arrival)) {
        if let Some(arrival) = self.arrivals.lock().get_mut(&self.id).and_then(|row| row.get_mut(self.n)) {
            note(arrival);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.note(|arrival| arrival.until = Some(Instant::now()));
    }
}
