//! One large transfer: a GET read to its end, or a POST.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::connection::{Ask, Dialer, read_whole};
use super::payload::{Payload, Progress};
use super::tally::{Tally, micros};
use crate::task::{Outcome, Way};

/// What `more` says of a transfer that its time ended.
pub(super) const CUT: &str = "cut_by_max_ms";

pub(super) async fn fetch(way: &Way, path: &str, max: Duration) -> Result<Outcome> {
    let dialer = Dialer::new(way)?;
    let ask = dialer.get(path, "")?;
    let mut sender = dialer.dial().await?;
    let mut tally = Tally::new();
    let sent = Instant::now();
    let result = match sender.fetch(&ask).await {
        Ok(response) => read(response.into_body(), &ask, sent, sent + max, &mut tally).await,
        Err(error) => Err(error),
    };
    let end = Instant::now();
    match result {
        Ok(()) => tally.pass(end - sent),
        Err(error) => tally.fail(|| format!("{error:#}")),
    }
    Ok(tally.outcome_of((end - sent).as_secs_f64()))
}

async fn read(mut body: Incoming, ask: &Ask, sent: Instant, until: Instant, tally: &mut Tally) -> Result<()> {
    let expected = body_bytes(ask);
    let mut progress = Progress::new(sent);
    let cut = loop {
        let Ok(frame) = timeout_at(until, body.frame()).await else { break true };
        let Some(frame) = frame else { break false };
        let frame = frame.context("the answer broke off")?;
        let Some(data) = frame.data_ref() else { continue };
        let now = Instant::now();
        if progress.bytes() == 0 {
            tally.more.insert("first_byte_us".into(), micros(now - sent) as f64);
        }
        progress.add(data.len() as u64, now);
        tally.bytes = progress.bytes();
    };
    progress.rate(Instant::now(), &mut tally.more);
    if cut {
        tally.more.insert(CUT.into(), 1.0);
        return Ok(());
    }
    let bytes = progress.bytes();
    ensure!(expected.is_none_or(|expected| expected == bytes), "{bytes} bytes came where {expected:?} were asked for");
    Ok(())
}

/// How many bytes the path of a request asks for.
pub(super) fn body_bytes(ask: &Ask) -> Option<u64> {
    let mut pairs = ask.uri().query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix("bytes="))?.parse().ok()
}

pub(super) async fn upload(way: &Way, path: &str, bytes: u64, max: Duration) -> Result<Outcome> {
    let dialer = Dialer::new(way)?;
    let ask = dialer.post(path)?;
    let mut sender = dialer.dial().await?;
    let mut tally = Tally::new();
    let sent = Instant::now();
    let progress = Arc::new(Mutex::new(Progress::new(sent)));
    let payload = Payload::of(bytes, Arc::clone(&progress));
    let answered = timeout_at(sent + max, async {
        let response = sender.send_for_success(&ask, payload).await?;
        read_whole(response.into_body()).await
    });
    let answered = answered.await;
    let end = Instant::now();
    match answered {
        Ok(Ok(_)) => tally.pass(end - sent),
        Ok(Err(error)) => tally.fail(|| format!("{error:#}")),
        Err(_) => {
            tally.more.insert(CUT.into(), 1.0);
            tally.pass(end - sent);
        }
    }
    let progress = *progress.lock().unwrap_or_else(PoisonError::into_inner);
    tally.bytes = progress.bytes();
    progress.rate(end, &mut tally.more);
    Ok(tally.outcome_of((end - sent).as_secs_f64()))
}
