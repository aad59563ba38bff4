//! Running other programs, and saying what ran and how long it took.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs `command` with the terminal's streams; anything but success is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| line(command))?;
    if !status.success() {
        bail!("{}: {status}", line(command));
    }
    Ok(())
}

/// Runs `command`, shows its output as it comes and hands each line to `see` too.
pub(crate) fn run_seen(command: &mut Command, see: &(dyn Fn(&str) + Sync)) -> Result<()> {
    if std::io::stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| line(command))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(out, std::io::stdout(), see));
        scope.spawn(|| pass_on(err, std::io::stderr(), see));
    });
    let status = child.wait()?;
    if !status.success() {
        bail!("{}: {status}", line(command));
    }
    Ok(())
}

fn pass_on(from: Option<impl Read>, mut to: impl Write, see: &dyn Fn(&str)) {
    for line in from.map(BufReader::new).into_iter().flat_map(|reader| reader.split(b'\n')).map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        see(&line);
        // Whoever closed our output still wants the verdict, which is the exit code.
        let _ = writeln!(to, "{line}");
    }
}

/// What `command` prints; anything but success is an error with its complaint.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| line(command))?;
    if !output.status.success() {
        bail!("{}: {}: {}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| line(command))
}

/// Whether `program args` can be started and succeeds.
pub(crate) fn works(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Does one named step and says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let started = Instant::now();
    let result = work();
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("== {name}: {word}, {}", seconds(started.elapsed()));
    result.with_context(|| name.to_owned())
}

/// A duration as people say it.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The command line as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
