//! Verify: reads the files of a log again and says whether anything in them is not as it was written.

mod evidence;
mod judge;
mod lines;
mod report;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::process::ExitCode;

use host::{Drain, Host, LogLevel, Workers};

#[cfg(test)]
use super::chain::Chain;
use super::chain::{ChainId, Head};
use super::key::Key;
use super::line::{LINE_BYTES_MAX, Line};
use super::place::Place;
use crate::flags::{self, ConfigError, Flag, Page, Section, Values};
use crate::program::{self, Command, ProcessConfig, StartError};
use evidence::Evidence;
use judge::Judge;
use report::Report;

/// The files are not as they were written.
pub const EX_NOT_VERIFIED: u8 = 1;

/// A file cannot be read, in the words of sysexits.h.
const EX_NOINPUT: u8 = 66;

const FLAGS: &[Section] = &[
    Section {
        title: "What is known from elsewhere",
        flags: &[
            Flag::value("key", "FILE", "A key that has signed checkpoints; may be given again. With one, all must be signed")
                .list(),
            Flag::value(
                "head",
                "HEAD",
                "CHAIN:SEQ:HASH as an earlier run printed it: that record must be there; may be given again",
            )
            .list(),
            Flag::value(
                "against",
                "FILE",
                "The other end's audit log: every head of these files that it has must be there; may be given again",
            )
            .list(),
        ],
    },
    Section { title: "General", flags: &[Flag::switch("help", "Print this text and exit")] },
];

/// What a run of `audit verify` is told.
#[derive(Debug)]
struct Task {
    name: &'static str,
    files: Vec<String>,
    keys: Vec<Key>,
    heads: Vec<Head>,
    against: Vec<String>,
}

/// Does `NAME audit ARGS` to the end of the process.
pub fn run(name: &'static str, args: impl IntoIterator<Item = String>) -> ExitCode {
    let quiet = ProcessConfig { log_level: LogLevel::Error, workers: Workers::Exactly(1) };
    program::main(name, read(name, args, &Host::real()), move |_| quiet, verify)
}

fn page(name: &str) -> String {
    let page = Page {
        name: "audit verify",
        about: "Finds what was changed, cut out, put in or cut off in the files of an audit log.",
        usage: "[FLAGS] FILE...",
        after: "FILE stands for the files that it was before too (FILE.SEQ beside it); they are put in their order by what
is in them. Printed are findings, each with file and line, then what cannot be known, then a summary
with the last head. Note that head elsewhere: with it the next run knows whether anything was cut off.

Exit codes: 0 all is as it was written, 1 it is not, 64 usage, 66 a file cannot be read.
",
    };
    page.help(FLAGS).replace("audit verify", &format!("{name} audit verify"))
}

fn read(name: &'static str, args: impl IntoIterator<Item = String>, host: &Host) -> Result<Command<Task>, Vec<ConfigError>> {
    let mut values = Values::parse(FLAGS, args, &|_| None);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(page(name)));
    }
    if values.next_word().as_deref() != Some("verify") {
        return Err(vec![ConfigError::new("audit", format!("the one thing to do is verify: {name} audit verify FILE..."))]);
    }
    let files: Vec<_> = std::iter::from_fn(|| values.next_word()).collect();
    if files.is_empty() {
        values.fail_all([ConfigError::new("audit verify", "needs the file of an audit log")]);
    }
    let keys = values.get("key", |paths| paths.lines().map(|path| read_key(host, path)).collect()).unwrap_or_default();
    let head = |text: &str| text.parse().map_err(|()| format!("{text:?} is no head such as CHAIN:SEQ:HASH"));
    let heads = values.get("head", |texts| texts.lines().map(head).collect()).unwrap_or_default();
    let against = values.get("against", |paths| paths.lines().map(flags::path).collect()).unwrap_or_default();
    values.finish(Command::Run { config: Box::new(Task { name, files, keys, heads, against }), warnings: Vec::new() })
}

fn read_key(host: &Host, path: &str) -> Result<Key, String> {
    let bytes = host.read_file(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    Key::new(&bytes).map_err(|problem| format!("{path} {problem}"))
}

/// What `NAME audit ARGS` prints of the files of `host`, and how many findings are in it.
///
/// # Errors
/// Mistakes in `args`, or the file that cannot be read.
pub fn told(name: &'static str, args: impl IntoIterator<Item = String>, host: &Host) -> Result<(String, usize), StartError> {
    match read(name, args, host).map_err(StartError::Config)? {
        Command::Run { config, .. } => report(&config, host).map(|report| (report.to_string(), report.n_findings())),
        Command::Print(text) => Ok((text, 0)),
    }
}

fn report(task: &Task, host: &Host) -> Result<Report, StartError> {
    judge(task, host)
        .map_err(|(path, error)| StartError::Failed { why: format!("{path} cannot be read: {error}"), exit_code: EX_NOINPUT })
}

async fn verify(task: Task, host: Host, _: Drain) -> Result<(), StartError> {
    let name = task.name;
    let report = report(&task, &host)?;
    // A reader that went away wants no more of it.
    let _ = write!(io::stdout(), "{report}");
    match report.n_findings() {
        0 => Ok(()),
        n => Err(StartError::Failed {
            why: format!("not verified, {n} findings ({name} audit verify)"),
            exit_code: EX_NOT_VERIFIED,
        }),
    }
}

/// Reads all files once, in their order.
fn judge(task: &Task, host: &Host) -> Result<Report, (String, io::Error)> {
    let files = in_order(host, &task.files)?;
    let mut evidence = Evidence::new(&task.heads, files.iter().filter_map(|file| file.chain).collect());
    for file in in_order(host, &task.against)? {
        evidence.read(host, &file.path).map_err(|error| (file.path, error))?;
    }
    let mut judge = Judge::new(&task.keys, evidence);
    for file in files {
        judge.file(&file.path);
        lines::read(host, &file.path, |line| judge.line(&line)).map_err(|error| (file.path, error))?;
    }
    Ok(judge.done())
}

/// A file, and what sorts it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sorted {
    /// Of its first record; by its name where there is none.
    seq: u64,
    /// What is torn stands before what was begun behind it.
    has_record: bool,
    time: Option<jiff::Timestamp>,
    path: String,
    chain: Option<ChainId>,
}

/// The files and those that they were before, in the order of their first records.
fn in_order(host: &Host, given: &[String]) -> Result<Vec<Sorted>, (String, io::Error)> {
    let mut sorted = Vec::new();
    for path in given {
        let place = Place { path: path.clone() };
        let rotated = place.rotated(host).map_err(|error| (path.clone(), error))?;
        for rotated in &rotated {
            sorted.push(Sorted::look(host, &rotated.path, rotated.seq).map_err(|error| (rotated.path.clone(), error))?);
        }
        match Sorted::look(host, path, u64::MAX) {
            Ok(file) => sorted.push(file),
            // Between two files there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !rotated.is_empty() => {}
            Err(error) => return Err((path.clone(), error)),
        }
    }
    sorted.sort_unstable();
    sorted.dedup_by(|one, other| one.path == other.path);
    Ok(sorted)
}

impl Sorted {
    fn look(host: &Host, path: &str, seq_by_name: u64) -> io::Result<Self> {
        let begin = host.read_file_at(path, 0, LINE_BYTES_MAX + 1)?;
        let first = begin.split(|byte| *byte == b'\n').next().and_then(|line| Line::parse(line).ok());
        let chain = first.as_ref().and_then(|line| line.kind.named_chain());
        let (seq, time) = first.as_ref().map_or((seq_by_name, None), |line| (line.seq, Some(line.time)));
        Ok(Self { seq, has_record: first.is_some(), time, path: path.to_owned(), chain })
    }
}
