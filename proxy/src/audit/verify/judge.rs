//! Judge: looks at one line after another, and says what cannot be as it was written.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::evidence::Evidence;
use super::lines::RawLine;
use super::report::{Finding, Report, Sign, Spot};
use crate::audit::CHECKPOINT_INTERVAL;
use crate::audit::chain::{ChainId, Hash, Head};
use crate::audit::key::Key;
use crate::audit::line::{Flaw, Kind, Line};
use crate::audit::record::Recovered;

/// How far a record may be from the checkpoint before it: the writer's interval, and as much for a slow disk.
const CHECKPOINT_AGE_MAX: SignedDuration = SignedDuration::from_secs(2 * CHECKPOINT_INTERVAL.as_secs() as i64);

/// Gaps that are remembered, in case what is missing stands elsewhere.
const GAPS_MAX: usize = 100;

/// Judges the lines of all files, in their order.
pub(super) struct Judge<'a> {
    keys: &'a [Key],
    evidence: Evidence,
    report: Report,
    file: String,
    at: Option<At>,
    /// What stands behind the last record and is none: findings, unless a crash explains them.
    trailing: Vec<Finding>,
    trailing_bytes: u64,
    /// Lines among them that have their newline.
    n_flawed: u64,
    /// The numbers that are missing, and the finding that says so.
    gaps: Vec<(u64, u64, usize)>,
    /// The first record behind the last checkpoint.
    since: Option<Timestamp>,
    /// How many are missing before the first record, and where that is.
    missing: Option<(u64, Spot)>,
    removed_through: u64,
    n_lost: u64,
    chains: BTreeMap<ChainId, (u64, u64, Spot)>,
    furthest: BTreeMap<ChainId, u64>,
    /// Of the last checkpoint whose signature is good.
    signed: Option<u64>,
    has_signatures: bool,
}

/// The last record that stood in its place.
struct At {
    chain: Option<ChainId>,
    seq: u64,
    hash: Hash,
    /// Of another record with the same number: which one was put in is told by the next.
    other: Option<Hash>,
    spot: Spot,
}

impl<'a> Judge<'a> {
    pub(super) fn new(keys: &'a [Key], evidence: Evidence) -> Self {
        Self {
            keys,
            evidence,
            report: Report::default(),
            file: String::new(),
            at: None,
            trailing: Vec::new(),
            trailing_bytes: 0,
            n_flawed: 0,
            gaps: Vec::new(),
            since: None,
            missing: None,
            removed_through: 0,
            n_lost: 0,
            chains: BTreeMap::new(),
            furthest: BTreeMap::new(),
            signed: None,
            has_signatures: false,
        }
    }

    /// What follows is of this file.
    pub(super) fn file(&mut self, path: &str) {
        path.clone_into(&mut self.file);
        self.report.n_files += 1;
    }

    pub(super) fn line(&mut self, raw: &RawLine<'_>) {
        let spot = Spot { file: self.file.clone(), line: raw.number };
        let read = if raw.is_too_long { Err(Flaw::TooLong) } else { Line::parse(raw.bytes) };
        match read {
            Ok(line) if raw.is_whole => self.record(&spot, &line, raw.bytes),
            // Without its newline it may be the beginning of a longer one.
            Ok(_) => self.torn(raw),
            Err(_) if !raw.is_whole => self.torn(raw),
            Err(flaw) => {
                self.trailing_bytes += raw.n_bytes;
                self.n_flawed += 1;
                self.trailing.push(Finding { spot, sign: Sign::Garbage, words: flaw.words().to_owned() });
            }
        }
    }

    fn torn(&mut self, raw: &RawLine<'_>) {
        self.trailing_bytes += raw.n_bytes;
        let spot = Spot { file: self.file.clone(), line: raw.number };
        self.trailing.push(Finding {
            spot,
            sign: Sign::Garbage,
            words: "has no end, and records follow in the next file".to_owned(),
        });
    }

    fn record(&mut self, spot: &Spot, line: &Line, bytes: &[u8]) {
        self.report.n_records += 1;
        let (from, to) = self.report.span.unwrap_or((line.time, line.time));
        self.report.span = Some((from.min(line.time), to.max(line.time)));
        if let Kind::Chain { chain, recovered } = &line.kind {
            self.begin_chain(spot, line, *chain, recovered.as_ref());
        } else {
            self.tell_trailing();
            if !self.follows(spot, line) {
                return;
            }
        }
        self.n_flawed = 0;
        let chain = self.at.as_ref().and_then(|at| at.chain);
        if let Some(chain) = chain {
            let head = Head { chain, seq: line.seq, hash: line.hash };
            self.furthest.entry(chain).or_insert_with(|| self.evidence.furthest(chain).unwrap_or_default());
            self.evidence.compare(head, spot, &mut self.report);
            let (_, last, at) = self.chains.entry(chain).or_insert_with(|| (line.seq, line.seq, spot.clone()));
            (*last, *at) = (line.seq, spot.clone());
            self.report.head = Some(head);
        }
        self.judge_kind(spot, line, bytes);
    }

    /// Whether a line stands where it belongs; then it is what the next one must follow.
    fn follows(&mut self, spot: &Spot, line: &Line) -> bool {
        let Some(at) = &mut self.at else {
            self.begin(spot, line);
            return true;
        };
        if line.seq <= at.seq {
            let (sign, words) = if line.hash == at.hash {
                (Sign::Duplicate, format!("record {} stands there twice", line.seq))
            } else if line.seq == at.seq {
                at.other = Some(line.hash);
                (Sign::Inserted, format!("another record {} stands at {}", line.seq, at.spot))
            } else {
                let words = format!("record {} stands behind record {}", line.seq, at.seq);
                match self.gaps.iter().find(|(from, to, _)| (*from..=*to).contains(&line.seq)) {
                    Some((from, to, gap)) => {
                        if let Some(gap) = self.report.findings.get_mut(*gap).filter(|_| from == to) {
                            // It is not missing, it stands here.
                            *gap = Finding { spot: spot.clone(), sign: Sign::Reordered, words };
                            return false;
                        }
                        (Sign::Reordered, words)
                    }
                    None => (Sign::Duplicate, format!("{words}, where there was one of that number before")),
                }
            };
            self.report.find(spot.clone(), sign, words);
            return false;
        }
        if line.seq == at.seq + 1 {
            if line.prev != at.hash && Some(line.prev) != at.other {
                let words = format!("record {} is not the one that record {} ({spot}) was written behind", at.seq, line.seq);
                self.report.find(at.spot.clone(), Sign::Edited, words);
            }
        } else {
            self.tell_gap(spot, line.seq);
        }
        if let (Kind::File { chain }, Some(at)) = (&line.kind, &self.at)
            && at.chain.is_some_and(|of| of != *chain)
        {
            self.report.find(spot.clone(), Sign::Edited, format!("begins a file of chain {chain}, in the middle of another"));
        }
        self.move_to(spot, line, None);
        true
    }

    fn tell_gap(&mut self, spot: &Spot, seq: u64) {
        let Some(at) = &self.at else { return };
        let (from, to) = (at.seq + 1, seq - 1);
        // As many lines that are no records stand in their place.
        if to + 1 - from == self.n_flawed {
            return;
        }
        let words = match from == to {
            true => format!("record {from} is missing before record {seq}"),
            false => format!("records {from} to {to} are missing before record {seq}"),
        };
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push((from, to, self.report.findings.len()));
        }
        self.report.find(spot.clone(), Sign::Gap, words);
    }

    fn move_to(&mut self, spot: &Spot, line: &Line, chain: Option<ChainId>) {
        let chain = chain.or_else(|| self.at.as_ref().and_then(|at| at.chain));
        self.at = Some(At { chain, seq: line.seq, hash: line.hash, other: None, spot: spot.clone() });
    }

    /// The first record of all, which begins no chain.
    fn begin(&mut self, spot: &Spot, line: &Line) {
        let chain = line.kind.named_chain();
        if chain.is_none() {
            let words = format!("begins with record {}, and no log begins so: what was before is missing", line.seq);
            self.report.find(spot.clone(), Sign::Beginning, words);
        } else if line.seq > 1 {
            self.missing = Some((line.seq - 1, spot.clone()));
        }
        self.report.n_chains += 1;
        self.move_to(spot, line, chain);
    }

    fn begin_chain(&mut self, spot: &Spot, line: &Line, chain: ChainId, recovered: Option<&Recovered>) {
        let find = |report: &mut Report, sign, words: String| report.find(spot.clone(), sign, words);
        if line.prev != Hash::NONE {
            find(&mut self.report, Sign::Edited, format!("chain {chain} begins behind another record, which none does"));
        }
        if self.at.is_none() && self.n_flawed == 0 {
            // A crash in the middle of the first record of all, or of the first that is here.
            self.trailing.clear();
        }
        match (&self.at, recovered) {
            (None, None) if line.seq == 1 => {}
            (None, None) => {
                find(
                    &mut self.report,
                    Sign::Recovery,
                    format!("chain {chain} begins with record {} and names none before", line.seq),
                );
            }
            (None, Some(recovered)) if line.seq == recovered.seq + 1 => self.missing = Some((recovered.seq, spot.clone())),
            (Some(at), Some(recovered)) if self.fits(at, line, recovered) => {
                let torn = match recovered.torn_bytes {
                    0 => String::new(),
                    n => format!(" and {n} bytes of a record that was being written"),
                };
                let proved = at.chain.and_then(|chain| self.furthest.get(&chain)).is_some_and(|known| *known >= at.seq);
                let unseen =
                    if proved { "" } else { "; what was cut off there by hand looks the same without --head or --against" };
                self.report.fact(format!(
                    "{spot}: chain {chain} begins behind a crash, which left chain {} with record {}{torn}{unseen}",
                    recovered.chain, recovered.seq
                ));
                self.trailing.clear();
            }
            (_, Some(recovered)) => {
                let words = format!(
                    "chain {chain} says that it begins behind record {} of chain {} and {} torn bytes, which is not what is there",
                    recovered.seq, recovered.chain, recovered.torn_bytes
                );
                find(&mut self.report, Sign::Recovery, words);
            }
            (Some(at), None) => {
                let words = format!("chain {chain} begins without a word of record {} before it", at.seq);
                find(&mut self.report, Sign::Recovery, words);
            }
        }
        self.tell_trailing();
        self.since = None;
        self.report.n_chains += 1;
        self.move_to(spot, line, Some(chain));
    }

    fn fits(&self, at: &At, line: &Line, recovered: &Recovered) -> bool {
        at.chain.is_some_and(|chain| chain.to_string() == recovered.chain)
            && (at.seq, at.hash.to_string()) == (recovered.seq, recovered.hash.clone())
            && line.seq == recovered.seq + 1
            && recovered.torn_bytes == self.trailing_bytes
    }

    fn judge_kind(&mut self, spot: &Spot, line: &Line, bytes: &[u8]) {
        match &line.kind {
            Kind::Checkpoint { key, .. } => {
                self.since = None;
                self.judge_signature(spot, line.seq, key.as_deref(), bytes);
                return;
            }
            Kind::Lost { n } => {
                self.n_lost += n;
                self.report.fact(format!("{spot}: {n} records were lost while the log could not be written"));
            }
            // These come first in a file; a checkpoint that was due comes behind them.
            Kind::Removed { .. } | Kind::File { .. } => {
                if let Kind::Removed { through } = line.kind {
                    self.removed_through = self.removed_through.max(through);
                }
                self.since.get_or_insert(line.time);
                return;
            }
            Kind::Chain { .. } | Kind::Start | Kind::Request | Kind::Open | Kind::Close | Kind::End => {}
        }
        let waited = self.since.map(|since| line.time.duration_since(since));
        if waited.is_some_and(|waited| waited > CHECKPOINT_AGE_MAX) {
            let words = format!("record {} comes more than two minutes after others, with no checkpoint in between", line.seq);
            self.report.find(spot.clone(), Sign::NoCheckpoint, words);
            self.since = None;
        }
        self.since.get_or_insert(line.time);
    }

    fn judge_signature(&mut self, spot: &Spot, seq: u64, key: Option<&str>, bytes: &[u8]) {
        self.has_signatures |= key.is_some();
        if self.keys.is_empty() {
            return;
        }
        let judged = match key {
            None => Err((Sign::Unsigned, format!("checkpoint {seq} is not signed, and --key says that all are"))),
            Some(id) => match self.keys.iter().find(|key| key.id == id) {
                None => Err((Sign::UnknownKey, format!("checkpoint {seq} is signed with key {id:.16}, which is none of --key"))),
                Some(key) if key.has_signed(bytes) => Ok(()),
                Some(_) => Err((Sign::Forged, format!("the signature of checkpoint {seq} is not its key's"))),
            },
        };
        match judged {
            Ok(()) => self.signed = Some(seq),
            Err((sign, words)) => self.report.find(spot.clone(), sign, words),
        }
    }

    fn tell_trailing(&mut self) {
        for Finding { spot, sign, words } in self.trailing.drain(..) {
            self.report.find(spot, sign, words);
        }
        self.trailing_bytes = 0;
    }

    /// All lines were told.
    pub(super) fn done(mut self) -> Report {
        if self.n_flawed == 0 && self.trailing.len() == 1 {
            // It is being written at this moment, or a crash was the last that happened.
            self.trailing.clear();
            self.report.fact(format!(
                "the last {} bytes are no whole record: it is being written, or a crash cut it short",
                self.trailing_bytes
            ));
        }
        self.tell_trailing();
        match self.missing.take() {
            Some((n, spot)) if n > self.removed_through => {
                let words = format!(
                    "what is before is missing, up to record {n}, and no record says that it was removed to keep few files"
                );
                self.report.find(spot, Sign::Beginning, words);
            }
            Some((n, _)) => self.report.fact(format!("records 1 to {n} were removed to keep few files, as records say")),
            None => {}
        }
        self.tell_what_is_unknown();
        self.evidence.judge_absent(&self.chains, &mut self.report);
        self.report
    }

    fn tell_what_is_unknown(&mut self) {
        let last = self.report.head;
        let seq = last.map_or(0, |head| head.seq);
        let known = last.and_then(|head| self.furthest.get(&head.chain)).copied().unwrap_or_default();
        match (self.keys.is_empty(), self.signed) {
            (true, _) if self.has_signatures => self.report.fact("signatures were not looked at: that takes --key".to_owned()),
            (true, _) => self.report.fact("no checkpoint is signed: who can write the files can write them anew".to_owned()),
            (false, Some(signed)) if signed < seq && known < seq => {
                let words = "could be written anew by who can write the file";
                self.report.fact(format!("what stands behind checkpoint {signed}, the last that is signed, {words}"));
            }
            (false, Some(_)) => {}
            (false, None) => {
                self.report.fact("no checkpoint is signed yet: who can write the files can write them anew".to_owned())
            }
        }
        self.report.fact(match known {
            0 => format!("what was cut off behind record {seq} cannot be seen without --head or --against"),
            known if known < seq => {
                format!("record {known} is known from elsewhere; what was cut off behind record {seq} cannot be seen")
            }
            known if known == seq => format!("record {seq}, the last, is known from elsewhere"),
            _ => return,
        });
    }
}
