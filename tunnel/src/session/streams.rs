//! The table of streams and their half-open states.
//!
//! ```text
//!   receiving   Open ──HalfClose──▶ Finished        sending   Open ──finish──▶ Finishing ──HalfClose sent──▶ Finished
//!     │                                               │
//!     └──Reset, session's end──▶ Cut                  └──Reset, session's end──▶ Cut
//! ```
//!
//! A stream leaves the table when its handle was dropped and neither side has anything to say.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::chunks::Chunks;
use super::schedule::Turn;
use super::window::Window;
use crate::budget::Budget;
use crate::error::StreamError;
use crate::frame::Class;
use crate::id::StreamId;

/// A stream may always queue this much; it is part of what every stream reserves.
pub(crate) const SEND_QUEUE_MIN: usize = 16 * 1024;

/// A stream may queue this much while the budget has room to grow: enough to fill frames while its writer is asleep.
pub(crate) const SEND_QUEUE_MAX: usize = 256 * 1024;

/// One direction of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Half {
    Open,
    /// Sending only: half-closed by the local side, with bytes still queued.
    Finishing,
    Finished,
    Cut(StreamError),
}

impl Half {
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Finished | Self::Cut(_))
    }
}

/// Whether a version 1 stream has had its Connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    /// Data may flow.
    Done,
    /// Waiting for the peer's Connected (server) or for the local accept (agent).
    Pending,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) receiving: Half,
    pub(crate) unread: Chunks,
    pub(crate) window: Window,
    pub(crate) sending: Half,
    pub(crate) unsent: Chunks,
    pub(crate) credit: usize,
    /// More was to be sent than there was credit for, and none has come since.
    pub(crate) is_stalled: bool,
    /// Reserved from the budget's growth part for `unsent`.
    queue_growth: usize,
    /// When credit was last spent or granted; an idle sender gives back what it does not use.
    pub(crate) active_at: Instant,
    pub(crate) turn: Turn,
    pub(crate) connect: Connect,
    pub(crate) grant_queued: bool,
    /// The handle was dropped.
    pub(crate) detached: bool,
}

impl Stream {
    pub(crate) fn new(class: Class, window: usize, credit: usize, connect: Connect, now: Instant) -> Self {
        Self {
            receiving: Half::Open,
            unread: Chunks::default(),
            window: Window::new(window, now),
            sending: Half::Open,
            unsent: Chunks::default(),
            credit,
            is_stalled: false,
            queue_growth: 0,
            active_at: now,
            turn: Turn::new(class, now),
            connect,
            grant_queued: false,
            detached: false,
        }
    }

    /// How many of `wanted` bytes may be queued now; reserves for them.
    pub(crate) fn queue_room(&mut self, wanted: usize, budget: &Budget) -> usize {
        let wanted = wanted.min(self.credit);
        let needed = (self.unsent.len() + wanted).min(SEND_QUEUE_MAX).saturating_sub(SEND_QUEUE_MIN);
        if needed > self.queue_growth && budget.reserve_growth(needed - self.queue_growth) {
            self.queue_growth = needed;
        }
        wanted.min((SEND_QUEUE_MIN + self.queue_growth).saturating_sub(self.unsent.len()))
    }

    /// Gives back growth that the queue no longer needs.
    pub(crate) fn shrink_queue(&mut self, budget: &Budget) {
        let needed = self.unsent.len().saturating_sub(SEND_QUEUE_MIN);
        if self.queue_growth > needed {
            budget.release_growth(self.queue_growth - needed);
            self.queue_growth = needed;
        }
    }

    /// Has queued bytes or a half-close that may go out now.
    pub(crate) fn has_output(&self) -> bool {
        self.connect == Connect::Done && (!self.unsent.is_empty() || self.sending == Half::Finishing)
    }

    /// Ends the sending side; what was queued is forgotten.
    pub(crate) fn cut_sending(&mut self, error: StreamError, budget: &Budget) {
        if !self.sending.is_over() {
            self.sending = Half::Cut(error);
        }
        self.unsent.clear();
        self.shrink_queue(budget);
    }

    /// Ends the receiving side, unless all of it has arrived: then it is whole and stays readable.
    pub(crate) fn cut_receiving(&mut self, error: StreamError, budget: &Budget) {
        if self.receiving == Half::Open {
            self.receiving = Half::Cut(error);
            self.unread.clear();
            self.window.discard(budget);
        }
    }

    /// Neither side has anything to say any more.
    pub(crate) fn is_over(&self) -> bool {
        self.receiving.is_over() && self.sending.is_over()
    }

    /// Bytes of the budget's growth part that this stream holds.
    pub(crate) fn growth(&self) -> usize {
        self.queue_growth + self.window.reserved()
    }
}

/// All streams of a session.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    table: BTreeMap<StreamId, Stream>,
    /// The highest id that was ever opened.
    pub(crate) last: u32,
}

impl Streams {
    pub(crate) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.last = self.last.max(id.0);
        self.table.insert(id, stream);
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.table.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.table.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.table.iter_mut().map(|(id, stream)| (*id, stream))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.table.iter().map(|(id, stream)| (*id, stream))
    }

    pub(crate) fn was_opened(&self, id: StreamId) -> bool {
        id.0 <= self.last
    }
}
