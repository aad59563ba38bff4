//! Moves bytes over a link: read when the queue has room, written when they have arrived, in turn with other connections.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use crate::task::Relay;

/// A turn is at most what the wire carries in this time, within the two bounds below: short beside a tick of the timer, since who
/// comes next waits as long.
const TURN: Duration = Duration::from_micros(500);

/// Of a turn at least, or slow links would cost a call for every few packets.
const CHUNK_MIN: usize = 16 << 10;

/// Of a turn at most: larger ones save no more calls.
const CHUNK_MAX: usize = 64 << 10;

/// What a piece counts as at least, for its place in the queue costs memory too.
const PIECE_MIN: usize = 512;

/// Beyond what is on the way, a connection may have this much that has arrived and that its reader has not taken.
const ARRIVED_BYTES: usize = 1 << 20;

/// The rate by which the bytes on the way are reckoned where the task names none: more than loopback carries with TLS.
const RATE_MAX: u64 = 10_000_000_000;

/// One direction of the link, shared by all connections.
pub(super) struct Link {
    clock: Mutex<Clock>,
    /// Who holds it reads next; given in the order in which it was asked for. In it the buffer to read into, so that connections
    /// without traffic have none.
    turn: tokio::sync::Mutex<Box<[u8]>>,
    chunk: usize,
    /// Bytes that one connection may have on the link and behind it, as TCP's window bounds them.
    window: usize,
    /// Bytes taken so far.
    carried: AtomicU64,
}

impl Link {
    pub(super) fn new(task: &Relay) -> Self {
        let latency = Duration::from_secs_f64(task.latency_ms / 1000.0);
        let rate = task.bits_per_second.unwrap_or(RATE_MAX);
        let bytes_in =
            |time: Duration| usize::try_from(u128::from(rate / 8) * time.as_micros() / 1_000_000).unwrap_or(usize::MAX >> 8);
        let chunk = bytes_in(TURN).clamp(CHUNK_MIN, CHUNK_MAX);
        Self {
            clock: Mutex::new(Clock::new(Instant::now(), latency, task.bits_per_second, task.queue_bytes)),
            turn: tokio::sync::Mutex::new(vec![0; chunk].into()),
            chunk,
            // A round trip's worth: what a TCP that is tuned for the link has, and twice what is ever on a way of one.
            window: 2 * bytes_in(latency) + task.queue_bytes + ARRIVED_BYTES,
            carried: AtomicU64::new(0),
        }
    }

    /// Bytes that all connections together have sent over it.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Resolves when something without length, sent at once, has arrived.
    pub(super) async fn pass(&self) {
        let arrives = self.offer(0);
        sleep_until(arrives).await;
    }

    fn offer(&self, n_bytes: usize) -> Instant {
        self.clock().offer(Instant::now(), n_bytes)
    }

    /// Resolves when a chunk fits into the queue.
    async fn room(&self) {
        let at = self.clock().room_at(self.chunk);
        // A timer would cost a tick even for what is over.
        if at > Instant::now() {
            sleep_until(at).await;
        }
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes and when they arrive; none are the end.
struct Piece {
    arrives: Instant,
    bytes: Bytes,
}

/// Carries between `near` and `far` until both directions have ended. An error is a reset, once it has arrived.
pub(super) async fn carry(near: &mut TcpStream, far: &mut TcpStream, links: &(Link, Link)) -> io::Result<()> {
    // The delay of small segments is the endpoints' to choose; an error means that the connection is broken, which reading tells.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_broken, far_broken) = (AtomicBool::new(false), AtomicBool::new(false));
    let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
    let (there, back) = links;
    let near_end = async { tell(broken(&near_read, &near_broken).await, there).await };
    let far_end = async { tell(broken(&far_read, &far_broken).await, back).await };
    let both_ways = async {
        tokio::try_join!(
            one_way(&near_read, &near_broken, (far_write, &far_broken), (there, back)),
            one_way(&far_read, &far_broken, (near_write, &near_broken), (back, there))
        )
    };
    tokio::select! {
        biased;
        reset = near_end => reset,
        reset = far_end => reset,
        done = both_ways => done.map(|_| ()),
    }
}

/// Resolves when a connection is broken, also while nobody reads from it.
async fn broken(socket: &ReadHalf<'_>, is_broken: &AtomicBool) -> io::Error {
    let error = socket.ready(Interest::ERROR).await.err();
    is_broken.store(true, Ordering::Relaxed);
    error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

/// Lets the other end know of a break, as late as a link makes it.
async fn tell(error: io::Error, link: &Link) -> io::Result<()> {
    link.pass().await;
    Err(error)
}

/// From `source` over the first of `links`; what breaks there is told over the second.
async fn one_way(
    source: &ReadHalf<'_>,
    source_broken: &AtomicBool,
    (mut sink, sink_broken): (WriteHalf<'_>, &AtomicBool),
    (link, back): (&Link, &Link),
) -> io::Result<()> {
    let window = Semaphore::new(link.window.min(Semaphore::MAX_PERMITS));
    // The window is used up before it is full.
    let (sender, mut pieces) = mpsc::channel(link.window / PIECE_MIN + 1);
    let take = async {
        match take(source, source_broken, link, &window, sender).await {
            Ok(()) => Ok(()),
            Err(error) => tell(error, link).await,
        }
    };
    let give = async {
        match give(&mut pieces, &mut sink, &window).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // The kernel tells of a break once, and reads an end from then on.
                sink_broken.store(true, Ordering::Relaxed);
                tell(error, back).await
            }
        }
    };
    tokio::try_join!(take, give).map(|_| ())
}

/// Reads to the end, whenever window and queue have room and it is this connection's turn.
async fn take(
    source: &ReadHalf<'_>,
    is_broken: &AtomicBool,
    link: &Link,
    window: &Semaphore,
    sender: mpsc::Sender<Piece>,
) -> io::Result<()> {
    let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        let room = window.acquire_many(u32::try_from(link.chunk).unwrap_or(u32::MAX)).await.map_err(io::Error::other)?;
        source.readable().await?;
        let mut buffer = link.turn.lock().await;
        link.room().await;
        let n = match source.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            read => read?,
        };
        if n == 0 && is_broken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let piece = Piece { arrives: link.offer(n), bytes: Bytes::copy_from_slice(&buffer[..n]) };
        drop(buffer);
        link.carried.fetch_add(n as u64, Ordering::Relaxed);
        room.forget();
        window.add_permits(link.chunk - counted(n));
        sender.try_send(piece).map_err(closed)?;
        if n == 0 {
            return Ok(());
        }
    }
}

/// Writes what has arrived, to the end.
async fn give(pieces: &mut mpsc::Receiver<Piece>, sink: &mut WriteHalf<'_>, window: &Semaphore) -> io::Result<()> {
    while let Some(piece) = pieces.recv().await {
        // What arrives within one tick of the timer goes at once: one wake-up for the batch.
        if piece.arrives > Instant::now() {
            sleep_until(piece.arrives).await;
        }
        if piece.bytes.is_empty() {
            return sink.shutdown().await;
        }
        sink.write_all(&piece.bytes).await?;
        window.add_permits(counted(piece.bytes.len()));
    }
    Ok(())
}

/// What a piece takes of a window.
fn counted(n_bytes: usize) -> usize {
    n_bytes.max(PIECE_MIN)
}
