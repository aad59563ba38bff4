//! How every answer of a world ended, for the checkers.

use std::sync::{Arc, Mutex, PoisonError};

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    /// HTTP says that this was all of it.
    Whole,
    /// HTTP says that something is missing.
    Aborted,
    /// The caller did not read to the end.
    #[default]
    Cancelled,
}

/// One answer.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) what: String,
    pub(crate) ending: Ending,
    pub(crate) n_bytes: usize,
    /// Whether the body is one JSON document.
    pub(crate) is_document: bool,
    /// The first bytes.
    pub(crate) kept: Vec<u8>,
    /// The last byte that is no white space.
    pub(crate) last: u8,
}

/// All answers of a world. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Entry>>>);

impl Ledger {
    /// Keeps of an answer what can be wrong with it.
    pub(crate) fn add(&self, mut entry: Entry) {
        if entry.ending != Ending::Whole || !entry.is_document || entry.kept.len() < entry.n_bytes {
            entry.kept = Vec::new();
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
