//! Which stream speaks next: interactive before watch before small before bulk, in turn among equals.
//!
//! A stream that sends much is bulk whatever it was opened as, until it has been quiet for a while: a download through
//! a port-forward must not starve the terminal beside it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::frame::Class;
use crate::id::StreamId;

/// A stream that sent more than this in one [`BURST_PERIOD`] is bulk: several screens of text or one page of a list.
pub(crate) const BURST_MAX: usize = 256 * 1024;

/// How long a stream stays bulk after a burst.
pub(crate) const BURST_PERIOD: Duration = Duration::from_secs(1);

/// The streams that have something to send.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    ready: BTreeMap<Class, VecDeque<StreamId>>,
}

/// What the schedule knows of one stream.
#[derive(Debug)]
pub(crate) struct Turn {
    class: Class,
    burst: usize,
    burst_began: Instant,
    queued: bool,
}

impl Turn {
    pub(crate) fn new(class: Class, now: Instant) -> Self {
        Self { class, burst: 0, burst_began: now, queued: false }
    }

    /// The class that it was opened as.
    pub(crate) fn opened_as(&self) -> Class {
        self.class
    }

    /// The class that counts now.
    fn class(&self, now: Instant) -> Class {
        let bursting = self.burst > BURST_MAX && now - self.burst_began < BURST_PERIOD;
        if bursting { Class::Bulk } else { self.class }
    }

    /// Counts bytes that were sent.
    pub(crate) fn sent(&mut self, n: usize, now: Instant) {
        if now - self.burst_began >= BURST_PERIOD {
            self.burst = 0;
            self.burst_began = now;
        }
        self.burst += n;
    }
}

impl Schedule {
    /// Puts a stream in line unless it is.
    pub(crate) fn push(&mut self, id: StreamId, turn: &mut Turn, now: Instant) {
        if !turn.queued {
            turn.queued = true;
            self.ready.entry(turn.class(now)).or_default().push_back(id);
        }
    }

    /// The stream whose turn it is; it must be pushed again if it has more to say.
    pub(crate) fn pop(&mut self) -> Option<StreamId> {
        self.ready.values_mut().find_map(VecDeque::pop_front)
    }

    /// Whether nobody is in line.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.values().all(VecDeque::is_empty)
    }

    /// How many streams are in line.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ready.values().map(VecDeque::len).sum()
    }

    /// Takes a stream out of line.
    pub(crate) fn remove(&mut self, id: StreamId, turn: &mut Turn) {
        if std::mem::take(&mut turn.queued) {
            self.ready.values_mut().for_each(|line| line.retain(|waiting| *waiting != id));
        }
    }

    /// Notes that the popped stream is out of line.
    pub(crate) fn popped(turn: &mut Turn) {
        turn.queued = false;
    }
}
