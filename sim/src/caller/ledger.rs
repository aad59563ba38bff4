//! What every caller of a world asked and was told, for the checkers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use tokio::time::Instant;

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
    /// The number of its request.
    pub(crate) id: u64,
    pub(crate) what: String,
    pub(crate) ending: Ending,
    pub(crate) n_bytes: usize,
    /// Whether the answer asks to be asked again.
    pub(crate) has_retry_after: bool,
    /// Whether the body is one JSON document.
    pub(crate) is_document: bool,
    /// The first bytes.
    pub(crate) kept: Vec<u8>,
    /// The last byte that is no white space.
    pub(crate) last: u8,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: String,
    /// Equal for all attempts at one write.
    pub(crate) write: Option<u64>,
    pub(crate) at: Instant,
    pub(crate) end: Option<End>,
    pub(crate) ended_at: Option<Instant>,
}

/// How a request ended for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// An answer began.
    Answered(StatusCode),
    /// None came, and the caller knows.
    Failed,
    /// The caller did not wait for one.
    Left,
}

/// All requests and answers of a world. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

/// What is in a ledger.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) answers: Vec<Entry>,
    /// By number, from 1 on.
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// What a caller saw that cannot be.
    pub(crate) findings: Vec<String>,
    n_writes: u64,
}

impl Ledger {
    /// Notes a request that is about to be sent.
    pub(crate) fn ask(&self, method: &Method, target: &str, write: Option<u64>) -> Asking {
        let mut book = self.lock();
        let id = book.asked.len() as u64 + 1;
        let (method, target) = (method.clone(), target.to_owned());
        book.asked.insert(id, Asked { method, target, write, at: Instant::now(), end: None, ended_at: None });
        Asking { ledger: self.clone(), id }
    }

    /// A number for a write that may need several attempts.
    pub(crate) fn begin_write(&self) -> u64 {
        let mut book = self.lock();
        book.n_writes += 1;
        book.n_writes
    }

    /// Keeps of an answer what can be wrong with it.
    pub(crate) fn add(&self, mut entry: Entry) {
        if entry.ending != Ending::Whole || entry.kept.len() < entry.n_bytes {
            entry.kept = Vec::new();
        }
        self.lock().answers.push(entry);
    }

    /// A caller saw something that cannot be: fails the world.
    pub(crate) fn found(&self, finding: String) {
        self.lock().findings.push(finding);
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has not ended; dropping it is leaving.
pub(crate) struct Asking {
    ledger: Ledger,
    pub(crate) id: u64,
}

impl Asking {
    pub(crate) fn answered(&self, status: StatusCode) {
        self.end(End::Answered(status));
    }

    pub(crate) fn failed(&self) {
        self.end(End::Failed);
    }

    fn end(&self, end: End) {
        if let Some(asked) = self.ledger.lock().asked.get_mut(&self.id) {
            asked.end.get_or_insert(end);
            asked.ended_at.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.end(End::Left);
    }
}
