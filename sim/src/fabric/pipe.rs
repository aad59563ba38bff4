//! One direction of a connection: what waits to leave, what travels, what waits to be read; and the two ends.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

use bytes::Bytes;
use tokio::time::Instant;

use super::marks::Tail;

/// One direction of one connection: from `ends[side]` to the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PipeId {
    pub(super) conn: u64,
    pub(super) side: usize,
}

/// What travels in a pipe.
#[derive(Debug)]
pub(super) enum Parcel {
    Bytes(Bytes),
    /// The last byte was sent.
    Fin,
    /// The other end knows nothing of this connection any more.
    Reset,
}

/// How far the end of the bytes has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fin {
    Open,
    /// It follows when all bytes have left.
    Waits,
    Sent,
}

#[derive(Debug)]
pub(super) struct Pipe {
    /// Taken from the writer, not yet on the line.
    pub(super) unsent: VecDeque<Bytes>,
    pub(super) n_unsent: usize,
    pub(super) fin: Fin,
    /// Whether the pipe stands in its line's queue.
    pub(super) queued: bool,
    /// In the line's queue or on the way, each with the time of its arrival, in order.
    pub(super) flight: VecDeque<(Instant, Parcel)>,
    /// Arrived and not yet read.
    pub(super) inbox: VecDeque<Bytes>,
    /// Bytes on the way, arrived and unread, or lost at a machine without power: what the receive window counts.
    pub(super) n_window: usize,
    pub(super) eof: bool,
    /// What a cut swallowed and was not repeated yet: nothing leaves or arrives meanwhile.
    pub(super) lost: Option<Lost>,
    /// What of a marked word has left so far.
    pub(super) tail: Tail,
}

/// The kernel's retransmission timer of a pipe.
#[derive(Debug)]
pub(super) struct Lost {
    /// When the first byte that was lost was first sent, or would have been.
    pub(super) since: Instant,
    /// When it is sent again, known from healing on.
    pub(super) again_at: Option<Instant>,
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            unsent: VecDeque::new(),
            n_unsent: 0,
            fin: Fin::Open,
            queued: false,
            flight: VecDeque::new(),
            inbox: VecDeque::new(),
            n_window: 0,
            eof: false,
            lost: None,
            tail: Tail::default(),
        }
    }

    /// The next `max` bytes at most, off the waiting ones. Small writes are put together, as a kernel does.
    pub(super) fn take_segment(&mut self, max: usize) -> Bytes {
        let first = self.unsent.front_mut().map(|front| front.split_to(front.len().min(max))).unwrap_or_default();
        self.drop_empty_front();
        let segment = if first.len() < max && !self.unsent.is_empty() {
            let mut joined = first.to_vec();
            while joined.len() < max
                && let Some(front) = self.unsent.front_mut()
            {
                joined.extend_from_slice(&front.split_to(front.len().min(max - joined.len())));
                self.drop_empty_front();
            }
            joined.into()
        } else {
            first
        };
        self.n_unsent -= segment.len();
        segment
    }

    fn drop_empty_front(&mut self) {
        if self.unsent.front().is_some_and(Bytes::is_empty) {
            self.unsent.pop_front();
        }
    }

    pub(super) fn forget_unsent(&mut self) {
        self.unsent.clear();
        self.n_unsent = 0;
    }
}

/// One end of a connection: a socket of a machine.
#[derive(Debug)]
pub(super) struct End {
    /// The machine's name.
    pub(super) machine: String,
    pub(super) addr: SocketAddr,
    /// Whether a program still holds the socket.
    pub(super) held: bool,
    /// Whether the machine lost its power: nothing answers for this end, not even a reset.
    pub(super) gone: bool,
    pub(super) error: Option<io::ErrorKind>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl End {
    pub(super) fn new(machine: &str, addr: SocketAddr) -> Self {
        Self { machine: machine.to_owned(), addr, held: true, gone: false, error: None, reader: None, writer: None }
    }

    pub(super) fn fail(&mut self, error: io::ErrorKind, wakers: &mut Vec<Waker>) {
        self.error.get_or_insert(error);
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    /// Index of the link.
    pub(super) link: usize,
    /// The link's direction of `pipes[0]`; `pipes[1]` has the other.
    pub(super) direction: usize,
    pub(super) ends: [End; 2],
    pub(super) pipes: [Pipe; 2],
}

impl Conn {
    /// The line that `pipes[side]` uses.
    pub(super) fn line(&self, side: usize) -> usize {
        self.direction ^ side
    }

    /// The sockets that programs still hold.
    pub(super) fn sockets(&self) -> Vec<super::SocketInfo> {
        let held = |side: &usize| self.ends[*side].held && !self.ends[*side].gone;
        let info = |side: usize| super::SocketInfo {
            machine: self.ends[side].machine.clone(),
            peer: self.ends[1 - side].machine.clone(),
            port: self.ends[1].addr.port(),
            n_unsent: self.pipes[side].n_unsent,
            n_unread: self.pipes[side].n_window,
        };
        [0, 1].into_iter().filter(held).map(info).collect()
    }

    /// Whether nobody will ever ask about this connection again.
    pub(super) fn is_over(&self) -> bool {
        let dead = |end: &End| end.gone || end.error.is_some();
        let quiet = |pipe: &Pipe| pipe.n_unsent == 0 && pipe.flight.is_empty() && pipe.fin != Fin::Waits;
        let ended = self.ends.iter().all(|end| !end.held);
        ended && (self.ends.iter().any(dead) || self.pipes.iter().all(quiet))
    }
}
