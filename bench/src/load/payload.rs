//! What requests carry: nothing, or one chunk again and again; and how fast bytes moved.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// What an upload hands over at once: large beside a write, small beside the windows.
const CHUNK_BYTES: usize = 64 << 10;

/// When the rate of a long transfer begins to count: by then windows have opened.
const FIRST: Duration = Duration::from_secs(1);

/// Shorter transfers have no rate after the first second: what is left of them is too little.
const RATED_MIN: Duration = Duration::from_millis(1_200);

/// The body of a request.
pub(super) struct Payload {
    chunk: Bytes,
    left: u64,
    progress: Option<Arc<Mutex<Progress>>>,
}

impl Payload {
    pub(super) fn none() -> Self {
        Self { chunk: Bytes::new(), left: 0, progress: None }
    }

    /// `bytes` of a pattern, of which `progress` hears as they are handed over.
    pub(super) fn of(bytes: u64, progress: Arc<Mutex<Progress>>) -> Self {
        let pattern: Vec<u8> = (b'a'..=b'z').cycle().take(CHUNK_BYTES).collect();
        Self { chunk: pattern.into(), left: bytes, progress: Some(progress) }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = self.left.min(self.chunk.len() as u64);
        self.left -= size;
        if let Some(progress) = &self.progress {
            progress.lock().unwrap_or_else(PoisonError::into_inner).add(size, Instant::now());
        }
        Poll::Ready(Some(Ok(Frame::data(self.chunk.slice(..size as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// How many bytes moved since a transfer began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    began: Instant,
    bytes: u64,
    in_first_second: u64,
}

impl Progress {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, bytes: 0, in_first_second: 0 }
    }

    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if now < self.began + FIRST {
            self.in_first_second += bytes;
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the rates of a transfer that ended at `end`.
    pub(super) fn rate(&self, end: Instant, more: &mut BTreeMap<String, f64>) {
        let took = end - self.began;
        more.insert("bytes_per_second".into(), per_second(self.bytes, took));
        if took >= RATED_MIN {
            let rate = per_second(self.bytes - self.in_first_second, took - FIRST);
            more.insert("bytes_per_second_after_first".into(), rate);
        }
    }
}

/// Zero for what took no time.
pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { count as f64 / took.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_after_the_first_second_leaves_out_what_came_before() {
        let began = Instant::now();
        let mut progress = Progress::new(began);
        progress.add(1_000, began + Duration::from_millis(500));
        progress.add(4_000, began + Duration::from_secs(2));
        let mut more = BTreeMap::new();
        progress.rate(began + Duration::from_secs(3), &mut more);
        assert_eq!(more["bytes_per_second_after_first"], 2_000.0);
    }

    #[test]
    fn a_short_transfer_has_no_rate_after_the_first_second() {
        let began = Instant::now();
        let mut progress = Progress::new(began);
        progress.add(1_000, began);
        let mut more = BTreeMap::new();
        progress.rate(began + Duration::from_millis(1_100), &mut more);
        assert_eq!(more.keys().collect::<Vec<_>>(), ["bytes_per_second"]);
    }
}
