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

/// What is said where a process has found what another left, and nobody knows what that was.
const UNSEEN: &str = "what was cut off there by hand looks the same without --head or --against";

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
    /// Of the last checkpoint or end whose signature is good.
    signed: Option<u64>,
    has_signatures: bool,
    /// Whether a process has ended well, or a file was full: either comes behind a checkpoint.
    has_ended: bool,
}

/// The last record that stood in its place.
struct At {
    chain: Option<ChainId>,
    seq: u64,
    hash: Hash,
    /// Of another record with the same number: which one was put in is told by the next.
    other: Option<Hash>,
    spot: Spot,
    /// Whether a head from elsewhere names it.
    is_named: bool,
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
            has_ended: false,
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
            let is_named = self.evidence.names(head);
            if let Some(at) = &mut self.at {
                at.is_named = is_named;
            }
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
        if line.kind == Kind::Start {
            self.tell_start(spot);
        }
        self.move_to(spot, line, None);
        true
    }

    /// A process has gone on behind a record that nobody else names: it may have found less than the one before it has left.
    fn tell_start(&mut self, spot: &Spot) {
        let Some(at) = self.at.as_ref().filter(|at| !at.is_named) else { return };
        let (seq, unsigned) = (at.seq, self.unsigned(at));
        self.report.fact(format!("{spot}: a process goes on behind record {seq}{unsigned}; {UNSEEN}"));
    }

    /// Which records up to this one no signature proves, whatever is signed later: it was signed as it was found.
    fn unsigned(&self, at: &At) -> String {
        let from = self.signed.map_or(1, |signed| signed.saturating_add(1));
        match at.seq {
            _ if self.keys.is_empty() => String::new(),
            to if from > to => String::new(),
            to if from == to => format!("; record {to} is signed by nobody"),
            to => format!("; records {from} to {to} are signed by nobody"),
        }
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
        self.at = Some(At { chain, seq: line.seq, hash: line.hash, other: None, spot: spot.clone(), is_named: false });
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
            (None, Some(recovered)) if Some(line.seq) == recovered.seq.checked_add(1) => {
                self.missing = Some((recovered.seq, spot.clone()))
            }
            (Some(at), Some(recovered)) if self.fits(at, line, recovered) => {
                let torn = match recovered.torn_bytes {
                    0 => String::new(),
                    n => format!(" and {n} bytes of a record that was being written"),
                };
                let proved = at.chain.and_then(|chain| self.furthest.get(&chain)).is_some_and(|known| *known >= at.seq);
                let unproved = if proved { String::new() } else { format!("{}; {UNSEEN}", self.unsigned(at)) };
                self.report.fact(format!(
                    "{spot}: chain {chain} begins behind a crash, which left chain {} with record {}{torn}{unproved}",
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
            && Some(line.seq) == recovered.seq.checked_add(1)
            && recovered.torn_bytes == self.trailing_bytes
    }

    fn judge_kind(&mut self, spot: &Spot, line: &Line, bytes: &[u8]) {
        match &line.kind {
            Kind::Checkpoint { key, .. } => {
                self.since = None;
                self.judge_signature(spot, ("checkpoint", line.seq), key.as_deref(), bytes);
                return;
            }
            Kind::End { key, .. } => {
                self.judge_age(spot, line);
                // How long nothing runs is no matter of checkpoints.
                self.since = None;
                self.has_ended = true;
                self.judge_signature(spot, ("end", line.seq), key.as_deref(), bytes);
                return;
            }
            Kind::Lost { n } => {
                self.n_lost = self.n_lost.saturating_add(*n);
                self.report.fact(format!("{spot}: {n} records were lost while the log could not be written"));
            }
            // These come first in a file; a checkpoint that was due comes behind them.
            Kind::Removed { .. } | Kind::File { .. } => {
                if let Kind::Removed { through } = line.kind {
                    self.removed_through = self.removed_through.max(through);
                }
                self.since.get_or_insert(line.time);
                self.has_ended = true;
                return;
            }
            Kind::Start => self.has_ended = true,
            Kind::Chain { .. } | Kind::Request | Kind::Open | Kind::Close => {}
        }
        self.judge_age(spot, line);
        self.since.get_or_insert(line.time);
    }

    /// Whether a record is near the checkpoint before it. A clock that was set back is as far as one that was set forward:
    /// the writer has a checkpoint there too, and without one times could be invented that never come to be late.
    fn judge_age(&mut self, spot: &Spot, line: &Line) {
        let is_far = |since| line.time.duration_since(since).abs() > CHECKPOINT_AGE_MAX;
        if self.since.is_some_and(is_far) {
            let words = format!("record {} is more than two minutes away from others, with no checkpoint in between", line.seq);
            self.report.find(spot.clone(), Sign::NoCheckpoint, words);
            self.since = None;
        }
    }

    fn judge_signature(&mut self, spot: &Spot, (what, seq): (&str, u64), key: Option<&str>, bytes: &[u8]) {
        self.has_signatures |= key.is_some();
        if self.keys.is_empty() {
            return;
        }
        let judged = match key {
            None => Err((Sign::Unsigned, format!("{what} {seq} is not signed, and --key says that all are"))),
            Some(id) => match self.keys.iter().find(|key| key.id == id) {
                None => Err((Sign::UnknownKey, format!("{what} {seq} is signed with key {id:.16}, which is none of --key"))),
                Some(key) if key.has_signed(bytes) => Ok(()),
                Some(_) => Err((Sign::Forged, format!("the signature of {what} {seq} is not its key's"))),
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
        if self.n_flawed == 0 && !self.trailing.is_empty() {
            // It is being written at this moment, or a crash was the last that happened, or one in a first record behind another.
            self.trailing.clear();
            self.report.fact(format!(
                "the last {} bytes are no whole record: it is being written, or a crash cut it short",
                self.trailing_bytes
            ));
        }
        self.tell_trailing();
        if self.report.n_records == 0 {
            let words = "holds no record, and every log has the one that begins its chain".to_owned();
            self.report.find(Spot { file: self.file.clone(), line: 0 }, Sign::Beginning, words);
        }
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

    /// Whether so much is there that a checkpoint must be among it.
    fn must_be_signed(&self) -> bool {
        self.has_ended || self.report.span.is_some_and(|(from, to)| to.duration_since(from) > CHECKPOINT_AGE_MAX)
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
                self.report.fact(format!("what stands behind record {signed}, the last that is signed, {words}"));
            }
            (false, Some(_)) => {}
            (false, None) if self.must_be_signed() => {
                let spot = self.at.as_ref().map_or(Spot { file: self.file.clone(), line: 0 }, |at| at.spot.clone());
                let words =
                    "no record up to here is signed, and a log that has come so far has checkpoints with --key".to_owned();
                self.report.find(spot, Sign::NoCheckpoint, words);
            }
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
