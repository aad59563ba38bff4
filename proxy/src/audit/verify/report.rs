//! Report: what was found, what cannot be known, and a summary.

use std::fmt;

use jiff::Timestamp;

use crate::audit::chain::Head;

/// Findings that are told one by one: who changed more has changed all.
const FINDINGS_MAX: usize = 100;

/// Facts that are told; of crashes and losses that many tell enough.
const FACTS_MAX: usize = 100;

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Gap,
    Edited,
    Inserted,
    Duplicate,
    Reordered,
    Garbage,
    Truncated,
    Unsigned,
    Forged,
    UnknownKey,
    NoCheckpoint,
    Recovery,
    Beginning,
}

impl Sign {
    fn label(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Edited => "edited",
            Self::Inserted => "inserted",
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::Garbage => "garbage",
            Self::Truncated => "truncated",
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::UnknownKey => "unknown key",
            Self::NoCheckpoint => "no checkpoint",
            Self::Recovery => "recovery",
            Self::Beginning => "beginning",
        }
    }
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) file: String,
    /// From 1; 0 = no line in particular.
    pub(super) line: u64,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) spot: Spot,
    pub(super) sign: Sign,
    pub(super) words: String,
}

/// What came of reading all.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    n_more: usize,
    pub(super) facts: Vec<String>,
    pub(super) n_files: usize,
    pub(super) n_chains: usize,
    pub(super) n_records: u64,
    pub(super) span: Option<(Timestamp, Timestamp)>,
    pub(super) head: Option<Head>,
}

impl Report {
    pub(super) fn find(&mut self, spot: Spot, sign: Sign, words: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { spot, sign, words });
        } else {
            self.n_more += 1;
        }
    }

    pub(super) fn fact(&mut self, words: String) {
        if self.facts.len() < FACTS_MAX {
            self.facts.push(words);
        }
    }

    pub(super) fn n_findings(&self) -> usize {
        self.findings.len() + self.n_more
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { spot, sign, words } in &self.findings {
            writeln!(f, "{spot}: {}: {words}", sign.label())?;
        }
        if self.n_more > 0 {
            writeln!(f, "and {} more", self.n_more)?;
        }
        for fact in &self.facts {
            writeln!(f, "note: {fact}")?;
        }
        let verdict = if self.n_findings() == 0 { "verified" } else { "NOT verified" };
        let Self { n_records, n_chains, n_files, .. } = self;
        write!(f, "{verdict}: records {n_records}, chains {n_chains}, files {n_files}")?;
        if let Some((from, to)) = self.span {
            write!(f, ", from {from:.3} to {to:.3}")?;
        }
        writeln!(f)?;
        match self.head {
            Some(head) => writeln!(f, "head: {head}"),
            None => writeln!(f, "head: none"),
        }
    }
}
