//! Child processes: started with their output in a file, waited for with deadlines, never left behind.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Fault, wait_for};

/// A running program; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs in `DIR/NAME.log`, or `NAME-2.log` when there has been such a one before.
    pub fn start(dir: &Path, name: &str, mut command: Command) -> Result<Self> {
        let mut logs = (1..).map(|n| dir.join(if n == 1 { format!("{name}.log") } else { format!("{name}-{n}.log") }));
        let log = logs.find(|log| !log.exists()).context("no name left for a log")?;
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, log })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said, on both outputs.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log under a heading, for a report.
    pub fn log_tail(&self, n_lines: usize) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!("--- {} ---\n{}\n", self.name, lines[lines.len().saturating_sub(n_lines)..].join("\n"))
    }

    /// Writes to its standard input.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(bytes).and_then(|()| stdin.flush()).with_context(|| format!("write to {}", self.name))
    }

    /// Waits until a line of its log contains `needle`, and gives that line.
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        self.wait_until(&format!("{needle:?}"), limit, |log| log.lines().find(|line| line.contains(needle)).map(str::to_owned))
    }

    /// Waits until `probe` finds what it wants in the log; fails at once when the process has ended.
    pub fn wait_until<T>(&mut self, what: &str, limit: Duration, mut probe: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let found = wait_for(&format!("{what} from {}", self.name), limit, || {
            // The state is read before the log: what a process said last must be seen.
            let ended = self.child.try_wait()?;
            match (probe(&self.log()), ended) {
                (Some(found), _) => Ok(Some(found)),
                (None, Some(status)) => bail!("{} ended ({status}) before {what}", self.name),
                (None, None) => Ok(None),
            }
        });
        found.map_err(|error| self.with_log(&error))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        // What cannot be asked any more has ended.
        self.child.try_wait().map_or(true, |status| status.is_some())
    }

    /// Waits until it ends by itself.
    pub fn wait_for_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for(&format!("the end of {}", self.name), limit, || Ok(self.child.try_wait()?))
            .map_err(|error| self.with_log(&error))
    }

    fn with_log(&self, error: &Error) -> Error {
        anyhow!("{error:#}\n{}", self.log_tail(20))
    }

    /// Asks it to end (SIGTERM) and does not wait.
    pub fn terminate(&self) -> Result<()> {
        signal(self.child.id(), Signal::TERM).with_context(|| self.name.clone())
    }

    /// Stops it where it is (SIGSTOP): its sockets stay, nobody is told. It goes on when the fault is dropped.
    pub fn pause(&self) -> Result<Fault> {
        let pid = self.child.id();
        signal(pid, Signal::STOP).with_context(|| self.name.clone())?;
        // A process that was killed meanwhile has nothing to go on with.
        Ok(Fault::new(move || drop(signal(pid, Signal::CONT))))
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        // An error means that it has ended already, which is what was asked for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The standard library can only kill, and a small machine has no program that does more.
fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process has an id")?;
    kill_process(pid, signal).with_context(|| format!("{signal:?}"))
}

/// A loopback address that is free at this moment.
pub fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
