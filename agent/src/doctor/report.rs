//! What the doctor says: a verdict for each step as it ends, and a fix for what is wrong.

use std::fmt;
use std::io::Write;

/// What is looked at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Configuration,
    Dns,
    Proxy,
    Tcp,
    Tls,
    Clock,
    Token,
    WebSocket,
    Speed,
    ApiServer,
    Rights,
    Guard,
    Idle,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Configuration => "configuration",
            Self::Dns => "DNS",
            Self::Proxy => "proxy",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Clock => "clock",
            Self::Token => "token",
            Self::WebSocket => "WebSocket",
            Self::Speed => "round trip",
            Self::ApiServer => "API server",
            Self::Rights => "RBAC",
            Self::Guard => "guard",
            Self::Idle => "idle time",
        })
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was seen.
    Fine(String),
    /// It works, and somebody should know this and do that.
    Warning { seen: String, fix: String },
    /// What was seen; its cause and what to do, in a sentence.
    Failed { seen: String, fix: String },
    /// Why it was not looked at.
    Skipped(String),
}

impl Verdict {
    pub(super) fn fine(seen: impl Into<String>) -> Self {
        Self::Fine(seen.into())
    }

    pub(super) fn warning(seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Warning { seen: seen.into(), fix: fix.into() }
    }

    pub(super) fn failed(seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Failed { seen: seen.into(), fix: fix.into() }
    }

    pub(super) fn needs(step: Step) -> Self {
        Self::Skipped(format!("needs {step}"))
    }
}

/// How an examination went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Steps that failed.
    pub n_failed: usize,
    /// Steps with a warning.
    pub n_warnings: usize,
    /// Steps that could not be looked at.
    pub n_skipped: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed, {} warned, {} skipped", self.n_failed, self.n_warnings, self.n_skipped)
    }
}

/// Writes verdicts as they come. What was read from the network is printable by the time it is here.
pub(super) struct Report<'a> {
    out: &'a mut (dyn Write + Send),
    pub(super) summary: Summary,
}

/// Where the text of a verdict begins: behind its word and the longest step.
const INDENT: &str = "                     ";

impl<'a> Report<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out, summary: Summary::default() }
    }

    pub(super) fn tell(&mut self, step: Step, verdict: &Verdict) {
        let (word, seen, fix) = match verdict {
            Verdict::Fine(seen) => ("ok", seen, None),
            Verdict::Warning { seen, fix } => ("warn", seen, Some(fix)),
            Verdict::Failed { seen, fix } => ("FAIL", seen, Some(fix)),
            Verdict::Skipped(why) => ("skip", why, None),
        };
        match verdict {
            Verdict::Fine(_) => {}
            Verdict::Warning { .. } => self.summary.n_warnings += 1,
            Verdict::Failed { .. } => self.summary.n_failed += 1,
            Verdict::Skipped(_) => self.summary.n_skipped += 1,
        }
        self.line(&format!("{word:<5} {step:<14} {}", seen.replace('\n', &format!("\n{INDENT}"))));
        if let Some(fix) = fix {
            self.line(&format!("{INDENT}> {}", fix.replace('\n', &format!("\n{INDENT}"))));
        }
    }

    /// What is going on while a step takes long.
    pub(super) fn progress(&mut self, text: &str) {
        self.line(&format!("{INDENT}{text}"));
    }

    pub(super) fn line(&mut self, text: &str) {
        // A reader that went away wants no more of it.
        let _ = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
    }
}
