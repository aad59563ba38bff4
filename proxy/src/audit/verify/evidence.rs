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
    n_foreign: usize,
    n_dropped: usize,
    n_flawed: usize,
    sources: Vec<String>,
    /// Of a chain that should be ours and is not here.
    missing: Vec<(Head, Spot)>,
}

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
            n_foreign: 0,
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

    /// Takes the heads of our chains from a file of the other end.
    pub(super) fn read(&mut self, host: &Host, path: &str) -> io::Result<()> {
        let file = self.sources.len();
        self.sources.push(path.to_owned());
        let mut knows_us = false;
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
                let is_ours = self.ours.contains(&head.chain);
                knows_us |= is_ours;
                if is_ours {
                    self.keep(head, Source { file: Some(file), line: raw.number });
                } else if cluster.is_empty() && knows_us {
                    // An agent has one hub: a chain that it knew after one of ours was the hub's too.
                    self.missing.push((head, Spot { file: path.to_owned(), line: raw.number }));
                } else {
                    self.n_foreign += 1;
                }
            }
        })
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
        for (n, words) in [
            (n_before, "known heads lie before the first record that is there"),
            (self.n_foreign, "heads of other chains in --against were not looked at"),
            (self.n_dropped, "heads in --against were too many to be kept, and were not looked at"),
            (self.n_flawed, "lines in --against are no records: verify those files too"),
        ] {
            if n > 0 {
                report.fact(format!("{n} {words}"));
            }
        }
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
