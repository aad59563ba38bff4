//! Evidence: heads that are known from elsewhere, which the files must have.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use host::Host;

use super::lines;
use super::report::{Report, Sign, Spot};
use crate::audit::chain::{ChainId, Hash, Head};
use crate::audit::line::{Kind, Line};

/// Heads that are kept: a year of checkpoints of one chain, in less than 100 MB.
const HEADS_MAX: usize = 1 << 19;

/// Heads by where they belong, and who told them.
pub(super) struct Evidence {
    ours: BTreeSet<ChainId>,
    heads: BTreeMap<(ChainId, u64), Vec<(Hash, Source)>>,
    n_heads: usize,
    /// What is told of chains that are not here, by the cluster that it is told under, which is empty for a hub.
    foreign: BTreeMap<String, Foreign>,
    /// The clusters under which one of ours is told.
    our_clusters: BTreeSet<String>,
    /// Foreign heads for which there was no room.
    n_unlooked: usize,
    n_dropped: usize,
    n_flawed: usize,
    sources: Vec<String>,
    /// Of the command line, and not here.
    missing: Vec<(Head, Spot)>,
}

/// Chains of one place that are not here: the furthest head of each, and where it is told.
type Foreign = BTreeMap<ChainId, (Head, Source)>;

/// A file that has the head, or the command line, and the line.
#[derive(Clone, Copy)]
struct Source {
    file: Option<usize>,
    line: u64,
}

impl Evidence {
    /// The heads of the command line, for the chains `ours`.
    pub(super) fn new(heads: &[Head], ours: BTreeSet<ChainId>) -> Self {
        let mut evidence = Self {
            ours,
            heads: BTreeMap::new(),
            n_heads: 0,
            foreign: BTreeMap::new(),
            our_clusters: BTreeSet::new(),
            n_unlooked: 0,
            n_dropped: 0,
            n_flawed: 0,
            sources: Vec::new(),
            missing: Vec::new(),
        };
        for head in heads {
            match evidence.ours.contains(&head.chain) {
                true => evidence.keep(*head, Source { file: None, line: 0 }),
                false => evidence.missing.push((*head, Spot { file: "--head".to_owned(), line: 0 })),
            }
        }
        evidence
    }

    /// Takes the heads from a file of the other end.
    pub(super) fn read(&mut self, host: &Host, path: &str) -> io::Result<()> {
        let file = self.sources.len();
        self.sources.push(path.to_owned());
        lines::read(host, path, |raw| {
            let heads = match Line::parse(raw.bytes) {
                Ok(Line { kind: Kind::Checkpoint { heads, .. }, .. }) => heads,
                Ok(_) => return,
                Err(_) => {
                    self.n_flawed += usize::from(raw.is_whole);
                    return;
                }
            };
            for (head, cluster) in heads {
                let source = Source { file: Some(file), line: raw.number };
                if self.ours.contains(&head.chain) {
                    self.our_clusters.insert(cluster);
                    self.keep(head, source);
                } else {
                    self.keep_foreign(head, cluster, source);
                }
            }
        })
    }

    fn keep_foreign(&mut self, head: Head, cluster: String, source: Source) {
        let chains = self.foreign.entry(cluster).or_default();
        match chains.get_mut(&head.chain) {
            Some(known) if known.0.seq < head.seq => *known = (head, source),
            Some(_) => {}
            None if self.n_heads == HEADS_MAX => self.n_unlooked += 1,
            None => {
                self.n_heads += 1;
                chains.insert(head.chain, (head, source));
            }
        }
    }

    fn keep(&mut self, head: Head, source: Source) {
        let known = self.heads.entry((head.chain, head.seq)).or_default();
        if known.iter().any(|(hash, _)| *hash == head.hash) {
            return;
        }
        if self.n_heads == HEADS_MAX {
            self.n_dropped += 1;
            return;
        }
        self.n_heads += 1;
        known.push((head.hash, source));
    }

    /// Whether a record of ours is named as it is there.
    pub(super) fn names(&self, head: Head) -> bool {
        let known = self.heads.get(&(head.chain, head.seq));
        known.is_some_and(|known| known.iter().any(|(hash, _)| *hash == head.hash))
    }

    /// A record of ours is there: what is known of it must be so.
    pub(super) fn compare(&mut self, head: Head, spot: &Spot, report: &mut Report) {
        for (hash, source) in self.heads.remove(&(head.chain, head.seq)).unwrap_or_default() {
            if hash != head.hash {
                let told = self.told_by(source);
                let words = format!("record {} is not the one that {told} names", head.seq);
                report.find(spot.clone(), Sign::Edited, words);
            }
        }
    }

    /// What is known and was not there. `chains` has the first and last record of each chain.
    pub(super) fn judge_absent(mut self, chains: &BTreeMap<ChainId, (u64, u64, Spot)>, report: &mut Report) {
        let heads = std::mem::take(&mut self.heads);
        let mut n_before = 0;
        let mut told = BTreeSet::new();
        for ((chain, seq), sources) in heads.into_iter().rev() {
            let Some((first, last, spot)) = chains.get(&chain) else { continue };
            let Some((_, source)) = sources.first() else { continue };
            if seq < *first {
                n_before += 1;
            } else if seq > *last {
                // The furthest says all.
                if told.insert(chain) {
                    let words =
                        format!("chain {chain} ends with record {last}, and {} names record {seq}", self.told_by(*source));
                    report.find(spot.clone(), Sign::Truncated, words);
                }
            } else {
                let words = format!("record {seq} of chain {chain} is not there, and {} names it", self.told_by(*source));
                report.find(spot.clone(), Sign::Gap, words);
            }
        }
        let mut missing = BTreeSet::new();
        for (head, spot) in &self.missing {
            if missing.insert(head.chain) {
                report.find(
                    spot.clone(),
                    Sign::Truncated,
                    format!("names chain {}, of which nothing is in these files", head.chain),
                );
            }
        }
        self.judge_foreign(chains.values().map(|(first, ..)| *first).min().unwrap_or_default(), report);
        for (n, words) in [
            (n_before, "known heads lie before the first record that is there"),
            (self.n_unlooked, "heads of other chains in --against were too many to be kept, and were not looked at"),
            (self.n_dropped, "heads in --against were too many to be kept, and were not looked at"),
            (self.n_flawed, "lines in --against are no records: verify those files too"),
        ] {
            if n > 0 {
                report.fact(format!("{n} {words}"));
            }
        }
    }

    /// Chains that are told and not here. `first` is our first record: what was before it may have been removed.
    fn judge_foreign(&self, first: u64, report: &mut Report) {
        // An agent has one hub, and numbers run through all of its chains.
        let of_hub = self.foreign.get("").into_iter().flat_map(BTreeMap::values);
        for (head, source) in of_hub.filter(|(head, _)| head.seq >= first) {
            let words = format!("names record {} of chain {}, of which nothing is in these files", head.seq, head.chain);
            report.find(self.spot(*source), Sign::Truncated, words);
        }
        let clusters = || self.foreign.iter().filter(|(cluster, _)| !cluster.is_empty());
        for (cluster, chains) in clusters().filter(|(cluster, _)| self.our_clusters.contains(*cluster)) {
            // A cluster may have several agents, each with a log of its own.
            for (head, source) in chains.values().filter(|(head, _)| head.seq >= first) {
                report.fact(format!(
                    "{} names record {} of chain {} of cluster {cluster:?}, of which nothing is in these files: it is of \
                     another agent, or of a log that was deleted",
                    self.spot(*source),
                    head.seq,
                    head.chain
                ));
            }
        }
        // Of the hub's files all clusters but one are somebody else's; that none is ours is no such thing.
        if let Some((cluster, (_, source))) = clusters().find_map(|(cluster, chains)| Some((cluster, chains.values().next()?)))
            && self.our_clusters.is_empty()
        {
            let words = format!(
                "names chains of {} clusters, {cluster:?} among them, and none of these files: they are of another \
                 cluster, newer than all that was told, or begun anew after a log was deleted",
                clusters().count()
            );
            report.find(self.spot(*source), Sign::Truncated, words);
        }
    }

    fn spot(&self, source: Source) -> Spot {
        let file = source.file.and_then(|file| self.sources.get(file)).cloned();
        Spot { file: file.unwrap_or_else(|| "--head".to_owned()), line: source.line }
    }

    /// Whether anything is known of a chain, and up to where.
    pub(super) fn furthest(&self, chain: ChainId) -> Option<u64> {
        self.heads.range((chain, 0)..=(chain, u64::MAX)).next_back().map(|((_, seq), _)| *seq)
    }

    fn told_by(&self, source: Source) -> String {
        match source.file.and_then(|file| self.sources.get(file)) {
            Some(file) => format!("{file}:{}", source.line),
            None => "--head".to_owned(),
        }
    }
}
