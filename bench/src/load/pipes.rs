//! Upgraded connections read at full rate, as port-forwards of something large.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use super::connection::{Ask, Dialer, Sender};
use super::echo::{BROKE_OFF, OPENED_AT_ONCE};
use super::fetch::{CUT, body_bytes};
use super::payload::{Progress, per_second};
use super::tally::Tally;
use crate::task::{Outcome, Way};

/// What is read at once: as much as TLS makes available in one go, several records.
const READ_BYTES: usize = 128 << 10;

pub(super) async fn pipes(way: &Way, path: &str, sessions: usize, max: Duration) -> Result<Outcome> {
    let dialer = Dialer::for_upgrades(way)?;
    let ask = dialer.upgrade(path)?;
    let dialing = stream::iter((0..sessions).map(|_| dialer.dial())).buffer_unordered(OPENED_AT_ONCE);
    let senders: Vec<Sender> = dialing.try_collect().await?;
    let sent = Instant::now();
    let total = Arc::new(Mutex::new(Progress::new(sent)));
    let reading = senders.into_iter().map(|sender| tokio::spawn(read(sender, ask.clone(), sent + max, Arc::clone(&total))));
    let read = join_all(reading).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let end = Instant::now();
    let mut tally = Tally::new();
    let mut rates = Vec::new();
    for result in read {
        match result {
            Ok(pipe) => {
                tally.pass(pipe.end - sent);
                rates.push(per_second(pipe.bytes, pipe.end - sent));
                if pipe.cut {
                    tally.more.insert(CUT.into(), 1.0);
                }
            }
            Err(error) => tally.fail(|| format!("{error:#}")),
        }
    }
    if let Some(slowest) = rates.iter().copied().reduce(f64::min) {
        tally.more.insert("session_bytes_per_second_min".into(), slowest);
    }
    if let Some(fastest) = rates.iter().copied().reduce(f64::max) {
        tally.more.insert("session_bytes_per_second_max".into(), fastest);
    }
    let total = *total.lock().unwrap_or_else(PoisonError::into_inner);
    tally.bytes = total.bytes();
    total.rate(end, &mut tally.more);
    Ok(tally.outcome_of((end - sent).as_secs_f64()))
}

/// What one session gave.
struct Pipe {
    bytes: u64,
    end: Instant,
    cut: bool,
}

/// Reads to the end, or until all that was asked for is there: how long the closing takes is not the pipe's rate.
async fn read(sender: Sender, ask: Ask, until: Instant, total: Arc<Mutex<Progress>>) -> Result<Pipe> {
    let mut io = sender.switch(&ask).await?;
    let expected = body_bytes(&ask);
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    let mut cut = false;
    while expected.is_none_or(|expected| bytes < expected) {
        let Ok(read) = timeout_at(until, io.read(&mut buffer)).await else {
            cut = true;
            break;
        };
        let read = read.context(BROKE_OFF)? as u64;
        if read == 0 {
            break;
        }
        bytes += read;
        total.lock().unwrap_or_else(PoisonError::into_inner).add(read, Instant::now());
    }
    let whole = cut || expected.is_none_or(|expected| bytes == expected);
    ensure!(whole, "{bytes} bytes came where {expected:?} were asked for");
    Ok(Pipe { bytes, end: Instant::now(), cut })
}
