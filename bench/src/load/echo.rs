//! Upgraded connections on which bytes are echoed at fixed times, as keys that somebody types into an exec.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::connection::{Dialer, HEAD_MAX};
use super::pace::Schedule;
use super::tally::{SharedTally, Tally};
use crate::task::{Outcome, Way};

/// How many sessions are opened at once: more would only queue before two cores.
pub(super) const OPENED_AT_ONCE: usize = 32;

/// How many echoes of a session may wait to be sent: ten seconds of one every 10 ms. More are failures, as they are late.
const ECHOES_WAITING_MAX: usize = 1_000;

/// What is said of a session that ended early.
pub(super) const BROKE_OFF: &str = "the session broke off";

/// How much is echoed, how often and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    pub(super) sessions: usize,
    pub(super) size: usize,
    pub(super) every: Duration,
    pub(super) warm: Duration,
    pub(super) length: Duration,
}

pub(super) async fn echo(way: &Way, path: &str, rhythm: Rhythm) -> Result<Outcome> {
    ensure!(rhythm.sessions > 0 && rhythm.size > 0 && !rhythm.every.is_zero(), "echoes need sessions, a size and an interval");
    let dialer = Dialer::for_upgrades(way)?;
    let ask = dialer.upgrade(path)?;
    let tally = Tally::shared();
    let opening = (0..rhythm.sessions).map(|_| async { dialer.dial().await?.switch(&ask).await });
    let opened: Vec<_> = stream::iter(opening).buffer_unordered(OPENED_AT_ONCE).collect().await;
    // Each session has its own phase: together they are one schedule that takes the sessions in turn.
    let rate = rhythm.sessions as f64 / rhythm.every.as_secs_f64();
    let schedule = Schedule::new(rate, rhythm.warm, rhythm.length);
    let began = schedule.began();
    let (mut tasks, mut senders) = (JoinSet::new(), Vec::new());
    for io in opened {
        match io {
            Ok(io) => {
                let (sender, dues) = mpsc::channel(ECHOES_WAITING_MAX);
                tasks.spawn(converse(io, dues, rhythm.size, tally.clone(), began));
                senders.push(Some(sender));
            }
            Err(error) => {
                tally.lock().tell(|| format!("{error:#}"));
                senders.push(None);
            }
        }
    }
    let late = schedule.keep_exactly(|n, due| {
        let sender = &senders[n as usize % rhythm.sessions];
        let taken = sender.as_ref().is_some_and(|sender| sender.try_send(due).is_ok());
        if !taken && due >= began {
            tally.lock().fail(|| "a session is not there, or too far behind".into());
        }
    });
    let late = late.await?;
    senders.clear();
    while tasks.join_next().await.is_some() {}
    let mut tally = tally.lock();
    tally.more.insert("late_us_p99".into(), late.value_at_percentile(99.0) as f64);
    Ok(tally.outcome(began))
}

/// Echoes that were due and have not come back, in the order in which they will.
#[derive(Default)]
struct Pending(Mutex<VecDeque<Instant>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The life of a session: sends at each due time, and counts what comes back. What does not has failed.
async fn converse(
    io: impl AsyncRead + AsyncWrite + Send,
    mut dues: mpsc::Receiver<Instant>,
    size: usize,
    tally: SharedTally,
    began: Instant,
) {
    let pending = Pending::default();
    let result = exchange(io, &mut dues, size, &pending, |due| {
        if due >= began {
            tally.lock().settle(due, Ok(size as u64));
        }
    });
    let Err(error) = result.await else { return };
    let mut lost = pending.lock().iter().filter(|due| **due >= began).count() as u64;
    while let Some(due) = dues.recv().await {
        lost += u64::from(due >= began);
    }
    tally.lock().fail_times(lost, || format!("{error:#}"));
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite,
    dues: &mut mpsc::Receiver<Instant>,
    size: usize,
    pending: &Pending,
    mut back: impl FnMut(Instant),
) -> Result<()> {
    let pattern: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
    let (mut reader, mut writer) = split(io);
    let all_sent = AtomicBool::new(false);
    let write = async {
        while let Some(due) = dues.recv().await {
            pending.lock().push_back(due);
            writer.write_all(&pattern).await.context(BROKE_OFF)?;
            writer.flush().await.context(BROKE_OFF)?;
        }
        all_sent.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let read = async {
        let mut buffer = vec![0; size];
        loop {
            reader.read_exact(&mut buffer).await.context(BROKE_OFF)?;
            let due = pending.lock().pop_front();
            ensure!(buffer == pattern, "something else came back than was sent");
            back(due.context("more came back than was sent")?);
            if all_sent.load(Ordering::Relaxed) && pending.lock().is_empty() {
                return Ok(());
            }
        }
    };
    let mut read = pin!(read);
    tokio::select! {
        biased;
        read = &mut read => return read,
        written = write => written?,
    }
    if pending.lock().is_empty() {
        return Ok(());
    }
    timeout(HEAD_MAX, read).await.map_err(|_| anyhow!("echoes did not come back in time"))?
}
