//! A flow through a box: two connections, bytes both ways, and the box's reasons to end it.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::{Buffer, Middlebox};
use crate::fabric::Socket;

/// What a box reads at a time: a page or four, as splicing proxies do.
const READ_BYTES: usize = 16 * 1024;

/// One of the two connections of a flow.
pub(super) trait Leg: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ends it with a reset.
    fn reset(self: Box<Self>);
}

impl Leg for Socket {
    fn reset(self: Box<Self>) {
        Self::reset(*self);
    }
}

/// How a flow ended.
pub(super) enum Ended {
    /// Both ends, or one that counts for both, said their last byte.
    Closed,
    /// One end broke off, and the other was told.
    Broken,
    /// The box lost patience and told both ends.
    Reset,
    /// The box lost patience and told nobody: the sockets stay open for as long as these are held.
    Forgotten(Box<dyn Leg>, Box<dyn Leg>),
}

/// Why a flow stopped.
enum Why {
    Closed,
    Broken,
    Patience,
}

/// Runs a flow to its end. `early` was read from `near` already.
pub(super) async fn run(plan: &Middlebox, mut near: Box<dyn Leg>, mut far: Box<dyn Leg>, early: Bytes) -> Ended {
    let seen = Seen(Mutex::new(Instant::now()));
    let why = {
        let (near_out, near_in) = tokio::io::split(&mut near);
        let (far_out, far_in) = tokio::io::split(&mut far);
        let there = carry(near_out, far_in, early, (plan, false), &seen);
        let back = carry(far_out, near_in, Bytes::new(), (plan, plan.holds_upgraded), &seen);
        let both = async {
            match plan.closes_halves {
                false => tokio::try_join!(biased; there, back).map(|_| ()),
                true => tokio::select! {
                    biased;
                    ended = there => ended,
                    ended = back => ended,
                },
            }
        };
        tokio::select! {
            biased;
            () = too_old(plan.max_age) => Why::Patience,
            () = seen.idle(plan.idle_timeout) => Why::Patience,
            closed = both => if closed.is_ok() { Why::Closed } else { Why::Broken },
        }
    };
    let ended = match why {
        Why::Closed => return Ended::Closed,
        Why::Patience if !plan.resets => return Ended::Forgotten(near, far),
        Why::Patience => Ended::Reset,
        Why::Broken => Ended::Broken,
    };
    near.reset();
    far.reset();
    ended
}

/// Carries one direction to its end, and the end too.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Bytes,
    (plan, holds_upgraded): (&Middlebox, bool),
    seen: &Seen,
) -> io::Result<()> {
    to.write_all(&early).await?;
    let mut kept = BytesMut::new();
    let (mut due, mut is_upgraded) = (None, false);
    loop {
        let mut bytes = [0; READ_BYTES];
        let n_read = tokio::select! {
            biased;
            () = until(due) => None,
            read = from.read(&mut bytes) => Some(read?),
        };
        seen.now();
        match (n_read, plan.buffer) {
            (Some(0), _) => {
                to.write_all(&kept).await?;
                return to.shutdown().await;
            }
            (Some(n), None) if holds_upgraded => {
                let (at_once, held) = bytes[..n].split_at(passed(&bytes[..n], is_upgraded));
                is_upgraded |= !held.is_empty() || at_once.starts_with(SWITCHING);
                to.write_all(at_once).await?;
            }
            (Some(n), None) => to.write_all(&bytes[..n]).await?,
            (Some(n), Some(Buffer { bytes: enough, time })) => {
                kept.extend_from_slice(&bytes[..n]);
                due.get_or_insert(Instant::now() + time);
                if kept.len() < enough {
                    continue;
                }
                to.write_all(&kept.split()).await?;
                due = None;
            }
            (None, _) => {
                to.write_all(&kept.split()).await?;
                due = None;
            }
        }
    }
}

/// How an upgrade is answered.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// How much of an answer's bytes is passed on by a box that holds what is upgraded: all up to the end of a 101's head.
fn passed(bytes: &[u8], is_upgraded: bool) -> usize {
    match is_upgraded {
        true => 0,
        false if bytes.starts_with(SWITCHING) => {
            bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |end| end + 4)
        }
        false => bytes.len(),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn too_old(age: Option<Duration>) {
    until(age.map(|age| Instant::now() + age)).await;
}

/// When a byte came last, in either direction.
struct Seen(Mutex<Instant>);

impl Seen {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when nothing came for `time`.
    async fn idle(&self, time: Option<Duration>) {
        let Some(time) = time else { return std::future::pending().await };
        loop {
            let due = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + time;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}
