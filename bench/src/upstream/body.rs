//! Bodies: whole ones, long ones made of one pattern, and watches.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How much of a long body is handed over at once: clones of one pattern, so it costs nothing to have.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// An object as a pattern repeats it.
const OBJECT: &str =
    r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"bench","namespace":"bench"},"data":{"a":"b"}},"#;

/// Length of an event's line, its end included: a small object's.
pub(super) const EVENT_BYTES: usize = 1024;

/// What an event's line ends with.
const EVENT_END: &str = "\"}}\n";

/// Nobody watches for longer, and clocks do not run over.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The body of an answer.
pub(super) enum Body {
    Whole(Option<Bytes>),
    Filled { pattern: Bytes, left: u64, is_announced: bool },
    Watch(Option<Box<Watch>>),
}

impl Body {
    /// What long bodies are made of.
    pub(super) fn pattern() -> Bytes {
        OBJECT.bytes().cycle().take(CHUNK_BYTES).collect()
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// `left` bytes under a `content-length`.
    pub(super) fn announced(pattern: Bytes, left: u64) -> Self {
        Self::Filled { pattern, left, is_announced: true }
    }

    /// `left` bytes whose number nobody is told before.
    pub(super) fn streamed(pattern: Bytes, left: u64) -> Self {
        Self::Filled { pattern, left, is_announced: false }
    }

    /// Stays open until its reader leaves.
    pub(super) fn watch(events: Option<Events>) -> Self {
        Self::Watch(events.map(|events| Box::new(Watch::new(events))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Filled { left: 0, .. } => None,
            Self::Filled { pattern, left, .. } => {
                let n = usize::try_from(*left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
                *left -= n as u64;
                Some(pattern.slice(..n))
            }
            Self::Watch(Some(watch)) => Some(ready!(watch.poll_line(cx))),
            // The connection itself notices that its reader has left.
            Self::Watch(None) => return Poll::Pending,
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Filled { left, .. } => *left == 0,
            Self::Watch(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Filled { left, is_announced: true, .. } => SizeHint::with_exact(*left),
            Self::Filled { .. } | Self::Watch(_) => SizeHint::default(),
        }
    }
}

/// When a watch tells of what: `count` events, the first at `from_ms` after 1970, the others `every_ms` apart.
#[derive(Clone, Copy)]
pub(super) struct Events {
    pub(super) from_ms: u64,
    pub(super) every_ms: u64,
    pub(super) count: u64,
}

/// A watch that tells of events; there are many thousands of them, so each is its timer and little else.
pub(super) struct Watch {
    events: Events,
    next: u64,
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    fn new(events: Events) -> Self {
        Self { events, next: 0, timer: Box::pin(tokio::time::sleep_until(due(events, 0))) }
    }

    /// The next event's line when its time has come; those that are late follow each other at once.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if self.next >= self.events.count {
            return Poll::Pending;
        }
        ready!(self.timer.as_mut().poll(cx));
        let seq = self.next;
        self.next += 1;
        self.timer.as_mut().reset(due(self.events, self.next));
        Poll::Ready(line(seq, since_epoch()))
    }
}

/// The moment of an event on the clock of timers, judged by the wall clock as it is.
fn due(events: Events, seq: u64) -> Instant {
    let due = Duration::from_millis(events.from_ms.saturating_add(seq.saturating_mul(events.every_ms)));
    let wait = due.saturating_sub(since_epoch());
    Instant::now() + wait.min(WAIT_MAX)
}

fn line(seq: u64, sent: Duration) -> Bytes {
    let mut line = BytesMut::with_capacity(EVENT_BYTES);
    let sent = sent.as_nanos();
    // Writing to memory cannot fail.
    let _ = write!(line, r#"{{"type":"MODIFIED","seq":{seq},"sent":{sent},"object":{{"kind":"ConfigMap","fill":""#);
    line.put_bytes(b'x', EVENT_BYTES - EVENT_END.len() - line.len());
    line.put_slice(EVENT_END.as_bytes());
    line.freeze()
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
