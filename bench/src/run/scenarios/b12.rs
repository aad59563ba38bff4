//! B12: one upload of 256 MiB, on loopback and over links with distance; B3 the other way.

use anyhow::{Context, Result};

use super::b3::{BYTES, MEBIBYTE, SHARE_OF_NGINX, links, share, share_bar};
use super::share_of;
use crate::run::column::{Link, Setup};
use crate::run::report::{Bar, Better, Row};
use crate::run::stage::{Stage, Turn};
use crate::task::Load;

const PATH: &str = "/api/v1/namespaces/bench/configmaps";

/// The longest that an upload over a link is meant to take: what is sent is cut to it.
const FAR_SECONDS: u64 = 3;

/// What the first second may carry less than the link could, before the rest is judged.
const FIRST_SECONDS: f64 = 1.0;

pub(crate) fn play(stage: &mut Stage) -> Result<Vec<Row>> {
    let plan = stage.plan;
    let near = stage.turns(plan.runs(3, 1), Setup::default(), |turn| {
        let (bytes, seconds) = upload(turn, "loopback", BYTES)?;
        turn.note("loopback", bytes / seconds / MEBIBYTE);
        Ok(())
    })?;
    let bar = Bar::ratio_at_least("nginx", SHARE_OF_NGINX);
    let mut rows = vec![near.row("B12", "loopback", "MiB/s", Better::Higher, Some(bar))];
    for link in links(stage) {
        let far = stage.turns(plan.runs(1, 1), Setup { link: Some(link), ..Setup::default() }, |turn| {
            let rate = rate_after_first(turn, link)?;
            turn.note(&share_of(link), share(link, rate));
            Ok(())
        })?;
        rows.push(far.row("B12", &share_of(link), "", Better::Higher, Some(share_bar())));
    }
    Ok(rows)
}

/// Bytes per second from the end of the first second on. The caller sees only its own socket's buffer; when all has arrived
/// it is told. So one upload of a second and one of more are compared: what the longer one took longer, the rest took.
fn rate_after_first(turn: &mut Turn<'_>, link: Link) -> Result<f64> {
    let bits = link.mbit.context("a link without a rate has no share")? * 1_000_000;
    let short = (bits as f64 / 8.0 * FIRST_SECONDS) as u64;
    let long = (bits / 8 * FAR_SECONDS).min(BYTES + short);
    let (short_bytes, short_seconds) = upload(turn, &link.to_string(), short)?;
    let (long_bytes, long_seconds) = upload(turn, &link.to_string(), long)?;
    Ok((long_bytes - short_bytes) / (long_seconds - short_seconds))
}

fn upload(turn: &mut Turn<'_>, label: &str, bytes: u64) -> Result<(f64, f64)> {
    let load = Load::Upload { way: turn.way(), path: PATH.to_owned(), bytes, max_ms: 30_000 };
    let outcome = turn.load(label, &load)?;
    Ok((outcome.bytes as f64, outcome.seconds))
}
