//! Writer: the one task that owns a log's chain and its file.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use host::{Append, Host, Watched};
use tokio::time::{Instant, sleep, sleep_until};

use super::chain::Chain;
use super::key::Key;
use super::log::Log;
use super::place::{Found, Left, Place};
use super::record::{Body, PeerHead, Program};
use super::{CHECKPOINT_INTERVAL, PEERS_MAX, Peers};

/// How long a first record waits for others, so that a busy log needs a hundred writes a second and not one for each record.
/// A process that is killed loses what has come meanwhile.
const LINGER: Duration = Duration::from_millis(10);

/// How often a log that cannot be written is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What one write takes at most.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Where lines go.
enum Target {
    /// Standard output.
    Output(Box<dyn Append>),
    File {
        place: Place,
        /// None between two files.
        file: Option<Box<dyn Append>>,
        /// Of the file's first record.
        first_seq: u64,
        bytes_max: u64,
        /// Rotated files that are kept; 0 = all.
        n_kept: usize,
    },
}

/// Writes what a log takes, until the log is closed.
pub struct Writer {
    host: Host,
    log: Arc<Log>,
    target: Target,
    chain: Chain,
    key: Option<Arc<Watched<Key>>>,
    peers: Option<Arc<dyn Peers>>,
    /// Taken, and not written yet.
    pending: VecDeque<Body>,
    /// Files that may go once it is written that they do.
    leaving: Vec<String>,
    is_synced: bool,
    clock: Clock,
    /// The heads of others as the last checkpoints told them, by cluster and chain.
    told: BTreeMap<String, String>,
}

/// When the next checkpoint is due.
#[derive(Clone, Copy, Default)]
struct Clock {
    /// The time of the first record behind the last checkpoint.
    since: Option<SystemTime>,
    due: Option<Instant>,
    /// Whether that checkpoint is written for the heads of others alone: they come a while after the records that they prove.
    is_second: bool,
}

impl Writer {
    /// The writer of a log in files, behind what the last process left.
    ///
    /// # Errors
    /// Why the files cannot be used; that a disk is full is none.
    pub(super) async fn open(
        (host, log): (&Host, &Arc<Log>),
        place: Place,
        (bytes_max, n_kept): (u64, usize),
        program: &Program,
        key: Option<Arc<Watched<Key>>>,
    ) -> io::Result<Self> {
        let current = key.as_ref().map(|key| key.get());
        let Left { file, found } = place.open(host, current.as_deref()).await?;
        let (id, now) = (host.chance(), host.wall_clock());
        let new = |recovered: Option<&_>, seq| {
            let chain = Chain::new(id, seq);
            let body = Body::chain(now, chain.head.chain.to_string(), program, recovered);
            (chain, body)
        };
        let (mut file, mut first_seq) = (Some(file), 1);
        let (chain, body) = match found {
            Found::Nothing => new(None, 0),
            Found::Ended { chain, first_seq: first } => {
                first_seq = first;
                let body = Body::start(now, chain.head.chain.to_string(), program);
                (chain, body)
            }
            Found::Broken { recovered, rename } => {
                if let Some(seq) = rename {
                    host.rename_file(&place.path, &place.free_path(host, seq)?).await?;
                    file = Some(host.append_to(&place.path).await?);
                }
                let seq = recovered.as_ref().map_or(0, |recovered| recovered.seq);
                tracing::warn!(
                    file = place.path,
                    ?recovered,
                    "the audit log has no end that counts: a new chain begins that names its last record"
                );
                first_seq = seq + 1;
                new(recovered.as_ref(), seq)
            }
        };
        let target = Target::File { place, file, first_seq, bytes_max, n_kept };
        Ok(Self::new(host, log, target, chain, body, key))
    }

    /// The writer of a log on standard output: a new chain each time.
    pub(super) fn to_output(host: &Host, log: &Arc<Log>, program: &Program, key: Option<Arc<Watched<Key>>>) -> io::Result<Self> {
        let chain = Chain::new(host.chance(), 0);
        let body = Body::chain(host.wall_clock(), chain.head.chain.to_string(), program, None);
        Ok(Self::new(host, log, Target::Output(host.append_to_output()?), chain, body, key))
    }

    fn new(host: &Host, log: &Arc<Log>, target: Target, chain: Chain, body: Body, key: Option<Arc<Watched<Key>>>) -> Self {
        log.add(body.json.len());
        Self {
            host: host.clone(),
            log: log.clone(),
            target,
            chain,
            key,
            peers: None,
            pending: VecDeque::from([body]),
            leaving: Vec::new(),
            is_synced: false,
            clock: Clock::default(),
            told: BTreeMap::new(),
        }
    }

    /// Has checkpoints carry the heads of `peers`, and tells them ours.
    pub fn with_peers(mut self, peers: Arc<dyn Peers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Writes until the log is closed, and then its end.
    pub async fn run(mut self) {
        loop {
            let result = self.write().await;
            let is_failing = result.is_err();
            if is_failing != self.log.set_failing(is_failing) {
                match &result {
                    Err(error) => tracing::error!(%error, "the audit log cannot be written"),
                    Ok(()) => tracing::info!("the audit log can be written again"),
                }
            }
            let is_due = if is_failing {
                self.retry().await;
                false
            } else {
                self.next().await
            };
            let is_closed = self.log.take(&mut self.pending);
            if is_closed {
                self.end().await;
                return;
            }
            if is_due {
                self.checkpoint();
            }
        }
    }

    /// Waits for records, or until a checkpoint is due; says whether it is.
    async fn next(&self) -> bool {
        tokio::select! {
            biased;
            () = due(self.clock.due) => true,
            () = self.log.ready.notified() => {
                sleep(LINGER).await;
                false
            }
        }
    }

    /// Waits until it is time to try again; a log that is closed is tried once more at once.
    async fn retry(&self) {
        let closed = async {
            loop {
                self.log.ready.notified().await;
                if self.log.is_closed() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = sleep(RETRY_INTERVAL) => {}
            () = closed => {}
        }
    }

    async fn end(mut self) {
        if self.clock.since.is_some() || !self.pending.is_empty() {
            self.checkpoint();
        }
        let (now, n_running) = (self.host.wall_clock(), self.log.n_running());
        let key = self.key.as_ref().map(|key| key.get());
        self.push(Body::end(now, self.chain.head.chain.to_string(), n_running, key));
        self.is_synced = false;
        if let Err(error) = self.write().await {
            tracing::error!(%error, n_records = self.pending.len(), "the audit log cannot be written: its last records are lost");
        }
        self.log.set_ended();
    }

    /// Adds a checkpoint, unless it would be the second and say nothing new.
    fn checkpoint(&mut self) {
        let news = self.news();
        if self.clock.is_second {
            self.clock = Clock::default();
            if news.is_empty() {
                return;
            }
        }
        let key = self.key.as_ref().map(|key| key.get());
        let (now, chain) = (self.host.wall_clock(), self.chain.head.chain.to_string());
        // At least one, and as many as the heads need.
        let mut parts: Vec<_> = news.chunks(PEERS_MAX).collect();
        parts.resize(parts.len().max(1), &[]);
        for part in parts {
            self.push(Body::checkpoint(now, chain.clone(), part, key.clone()));
        }
        self.is_synced = false;
    }

    /// The heads of others that no checkpoint has told.
    fn news(&mut self) -> Vec<PeerHead> {
        let heads = self.peers.as_ref().map(|peers| peers.heads()).unwrap_or_default();
        let place = |peer: &PeerHead| peer.head().map(|head| format!("{} {}", peer.cluster, head.chain));
        // Chains that nobody is connected with any longer are forgotten.
        let mut told = std::mem::take(&mut self.told);
        let (mut news, mut seen) = (Vec::new(), BTreeMap::new());
        for (place, peer) in heads.into_iter().filter_map(|peer| Some((place(&peer)?, peer))) {
            if told.remove(&place).as_ref() != Some(&peer.note) && seen.get(&place) != Some(&peer.note) {
                news.push(peer.clone());
            }
            seen.insert(place, peer.note);
        }
        self.told = seen;
        news
    }

    fn push(&mut self, body: Body) {
        self.log.add(body.json.len());
        self.pending.push_back(body);
    }

    /// Writes all that is pending, and has it on the disk where a checkpoint says so.
    async fn write(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            self.open_file().await?;
            self.write_chunk().await?;
            if !self.leaving.is_empty() {
                // That they go is on the disk before they do.
                self.file()?.sync().await?;
            }
            for path in std::mem::take(&mut self.leaving) {
                if let Err(error) = self.host.discard_file(&path).await {
                    tracing::warn!(%error, path, "an old file of the audit log cannot be removed");
                }
            }
        }
        if !self.is_synced {
            self.file()?.sync().await?;
            self.is_synced = true;
            let head = self.chain.head.to_string();
            self.log.set_head(head.clone());
            if let Some(peers) = &self.peers {
                peers.tell(&head);
            }
        }
        Ok(())
    }

    async fn write_chunk(&mut self) -> io::Result<()> {
        let chunk_max = match &self.target {
            Target::File { bytes_max, .. } => usize::try_from(*bytes_max).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX),
            Target::Output(_) => CHUNK_BYTES_MAX,
        };
        let (mut chain, mut clock, mut bytes) = (self.chain.clone(), self.clock, Vec::new());
        let (mut n, mut n_bytes) = (0, 0);
        while let Some(body) = self.pending.get(n).filter(|_| bytes.len() < chunk_max) {
            if clock.is_overdue(body) {
                // Records that waited for room, or a clock that was set: no record is far from a checkpoint.
                let late = Body::checkpoint(body.time, chain.head.chain.to_string(), &[], self.key.as_ref().map(|key| key.get()));
                self.is_synced = false;
                self.log.add(late.json.len());
                self.pending.insert(n, late);
                continue;
            }
            clock.saw(body);
            chain.seal(body.time, &body.json, |line| body.key.as_ref().map(|key| key.sign(line)), &mut bytes);
            (n, n_bytes) = (n + 1, n_bytes + body.json.len());
        }
        self.file()?.append(bytes).await?;
        (self.chain, self.clock) = (chain, clock);
        self.pending.drain(..n);
        self.log.wrote(n as u64, n_bytes);
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut dyn Append> {
        match &mut self.target {
            Target::Output(output) => Ok(&mut **output),
            Target::File { file, .. } => match file {
                Some(file) => Ok(&mut **file),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "no file is open")),
            },
        }
    }

    /// Has a file open that has room, and the files before it as many as there may be.
    async fn open_file(&mut self) -> io::Result<()> {
        let Target::File { place, file, first_seq, bytes_max, .. } = &mut self.target else { return Ok(()) };
        if let Some(open) = file.as_mut() {
            let is_in_place = open.is_in_place().await?;
            if is_in_place && open.n_bytes() < *bytes_max {
                return Ok(());
            }
            let synced = open.sync().await;
            if is_in_place {
                synced?;
                place.put_aside(&self.host, *first_seq).await?;
            } else {
                // Where it went is for whoever took it; what follows names its last record all the same.
                tracing::warn!(
                    file = place.path,
                    ?synced,
                    "the audit log's file was moved, removed or emptied: a new one begins"
                );
            }
            *file = None;
        }
        let mut opened = self.host.append_to(&place.path).await?;
        if opened.n_bytes() > 0 {
            // A copy of ours, or somebody else's file: no record is put behind what we did not write.
            drop(opened);
            place.put_aside(&self.host, *first_seq).await?;
            opened = self.host.append_to(&place.path).await?;
        }
        let before = place.rotated(&self.host)?;
        *file = Some(opened);
        let last = before.last().filter(|last| last.seq == *first_seq);
        let after = last.map(|last| Place { path: last.path.clone() }.name().to_owned()).unwrap_or_default();
        *first_seq = self.chain.head.seq + 1;
        self.begin_file(&after, before);
        Ok(())
    }

    /// The first line of a file, and a record for each file that goes.
    fn begin_file(&mut self, after: &str, before: Vec<super::place::Rotated>) {
        let (now, chain) = (self.host.wall_clock(), self.chain.head.chain.to_string());
        let Target::File { n_kept, first_seq, .. } = &self.target else { return };
        let n_too_many = if *n_kept == 0 { 0 } else { before.len().saturating_sub(*n_kept) };
        let mut bodies = vec![Body::file(now, chain, after)];
        for (n, rotated) in before.iter().take(n_too_many).enumerate() {
            let next = before.get(n + 1).map_or(*first_seq, |next| next.seq);
            bodies.push(Body::removed(now, Place { path: rotated.path.clone() }.name(), next.saturating_sub(1)));
        }
        self.leaving.extend(before.into_iter().take(n_too_many).map(|rotated| rotated.path));
        for body in bodies.into_iter().rev() {
            self.log.add(body.json.len());
            self.pending.push_front(body);
        }
    }
}

impl Clock {
    /// A record is written.
    fn saw(&mut self, body: &Body) {
        let due = Some(Instant::now() + CHECKPOINT_INTERVAL);
        *self = match (self.since, body.is_checkpoint) {
            (Some(_), true) => Self { since: None, due, is_second: true },
            (None, false) => Self { since: Some(body.time), due, is_second: false },
            (Some(_), false) | (None, true) => *self,
        };
    }

    /// Whether a record is so far from the first one behind the last checkpoint that one has to stand before it: after it, or
    /// before it where the clock was set back. What begins a file comes first in it whatever its time.
    fn is_overdue(&self, body: &Body) -> bool {
        let far = |since| body.time.duration_since(since).unwrap_or_else(|error| error.duration()) > CHECKPOINT_INTERVAL;
        !body.is_checkpoint && !body.begins_file && self.since.is_some_and(far)
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
