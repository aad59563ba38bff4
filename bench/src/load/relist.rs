//! Lists in pages, as a cache that warms up asks for all kinds of a cluster.
//!
//! Answers are not decompressed: that would be most of this process's work, and no part of what is measured. Bytes are
//! those on the wire; that all pages came is known from their number.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use http::header::ACCEPT_ENCODING;
use tokio::time::Instant;

use super::connection::{Caller, Dialer};
use super::tally::{SharedTally, Tally};
use crate::task::{Outcome, Way};

/// What tells where the next page begins, without parsing the list.
const CONTINUE: &str = "x-continue";

/// How much there is to list, for each kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) objects: usize,
    pub(super) page: usize,
}

pub(super) async fn relist(way: &Way, kinds: usize, size: Size, parallel: usize) -> Result<Outcome> {
    ensure!(size.page > 0 && parallel > 0, "a list needs pages, and someone who asks");
    let dialer = Dialer::new(way)?;
    let first = dialer.dial().await?;
    let tally = Tally::shared();
    let left: Arc<Mutex<VecDeque<usize>>> = Arc::new(Mutex::new((0..kinds).collect()));
    let mut callers = Vec::new();
    for _ in 1..parallel {
        // A caller of HTTP/2 has one connection for all it asks at once; one of HTTP/1.1 has a connection for each.
        let sender = if let Some(shared) = first.share() { shared } else { dialer.dial().await? };
        callers.push(Caller::on(dialer.clone(), sender));
    }
    callers.push(Caller::on(dialer.clone(), first));
    let began = Instant::now();
    let lister = |caller| Lister { dialer: dialer.clone(), caller, size, tally: tally.clone() };
    let listing = callers.into_iter().map(|caller| tokio::spawn(list_all(lister(caller), Arc::clone(&left))));
    join_all(listing).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    let mut tally = tally.lock();
    let pages = tally.ok;
    tally.more.insert("pages".into(), pages as f64);
    Ok(tally.outcome(began))
}

async fn list_all(mut lister: Lister, left: Arc<Mutex<VecDeque<usize>>>) {
    loop {
        let kind = left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(kind) = kind else { return };
        if let Err(error) = lister.list(kind).await {
            lister.tally.lock().fail(|| format!("{error:#}"));
        }
    }
}

struct Lister {
    dialer: Dialer,
    caller: Caller,
    size: Size,
    tally: SharedTally,
}

impl Lister {
    /// Asks for all pages of a kind; each counts, and is timed.
    async fn list(&mut self, kind: usize) -> Result<()> {
        let Size { objects, page } = self.size;
        // An empty list is a page, too.
        let expected = objects.div_ceil(page).max(1);
        let (mut next, mut pages) = (String::new(), 0);
        loop {
            let mut path = format!("/apis/bench.postern/v1/kind{kind}?limit={page}&total={objects}");
            if !next.is_empty() {
                path = format!("{path}&continue={next}");
            }
            let ask = self.dialer.get(&path, "")?.with(ACCEPT_ENCODING, "gzip");
            let asked = Instant::now();
            let (head, bytes) = self.caller.exchange(&ask).await?;
            ensure!(head.status.is_success(), "{} answered {}", ask.uri().path(), head.status);
            self.tally.lock().settle(asked, Ok(bytes));
            pages += 1;
            next = head.headers.get(CONTINUE).map_or(Ok(""), |next| next.to_str())?.to_owned();
            // More pages than there should be are enough to know.
            if next.is_empty() || pages > expected {
                break;
            }
        }
        ensure!(pages == expected, "kind {kind} came in {pages} pages, not {expected}");
        Ok(())
    }
}
