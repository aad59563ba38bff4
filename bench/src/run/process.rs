//! A child process: started in a group of its own, followed by its log and by `/proc`, and never left behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::stop::{LOOK_EVERY, Stop};
use super::usage::{self, Usage};

/// From a start to the first sign of life: milliseconds in a release build, seconds on a loaded machine.
const READY_MAX: Duration = Duration::from_secs(20);

/// How long a child may take to end after SIGTERM: nothing of value is in it, and every turn of a column waits here.
const GRACE: Duration = Duration::from_millis(500);

/// How often an end is looked for: every turn of a column waits for its processes, and nothing is measured meanwhile.
const END_LOOK_EVERY: Duration = Duration::from_millis(5);

/// The log lines shown when a child dies: its error, and what led to it.
const N_LAST_LINES: usize = 12;

/// A running child, and all that it started.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
    stop: Stop,
    /// Whether it has been waited for; from then on its number may be somebody else's.
    waited: bool,
}

impl Process {
    /// Starts `command`; what it writes goes to a file of its own in `logs`.
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Path, stop: &Stop) -> Result<Self> {
        // A number, for the same name starts again with each turn, and two loads may run at once.
        static N_STARTED: AtomicUsize = AtomicUsize::new(0);
        let log = logs.join(format!("{name}-{}.log", N_STARTED.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        // A group of its own: the terminal's Ctrl-C reaches us alone, and nginx's workers are counted and ended with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        let program = command.get_program().display().to_string();
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {program}; is it built and installed?"))?;
        let (tell, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut file = file;
                for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                    // A full disk loses the log, not the result.
                    let _ = writeln!(file, "{line}");
                    if tell.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { name: name.to_owned(), child, log, lines, stop: stop.clone(), waited: false })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line on its standard output.
    pub(crate) fn line(&mut self, max: Duration) -> Result<String> {
        let until = Instant::now() + max;
        loop {
            match self.poll_line()? {
                Some(line) => return Ok(line),
                None if Instant::now() > until => bail!("{} said nothing within {max:?}; {}", self.name, self.last_words()),
                None => {}
            }
        }
    }

    /// The next line if it comes soon; an error when no line will come.
    fn poll_line(&mut self) -> Result<Option<String>> {
        self.stop.check()?;
        match self.lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("{} ended without an answer; {}", self.name, self.last_words()),
        }
    }

    /// Its first line, as a sign that it is ready.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        self.line(READY_MAX)
    }

    /// Waits until it has closed its output, calling `meanwhile` at each look, and gives the last line.
    pub(crate) fn last_line(&mut self, max: Duration, mut meanwhile: impl FnMut(&Self)) -> Result<String> {
        let until = Instant::now() + max;
        let mut last = None;
        loop {
            self.stop.check()?;
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => last = Some(line),
                Err(RecvTimeoutError::Timeout) => meanwhile(self),
                Err(RecvTimeoutError::Disconnected) => {
                    return last.with_context(|| format!("{} ended without an answer; {}", self.name, self.last_words()));
                }
            }
            if Instant::now() > until {
                bail!("{} did not end within {max:?}; {}", self.name, self.last_words());
            }
        }
    }

    /// Asks `happened` until it says yes, while the child lives.
    pub(crate) fn until(&mut self, what: &str, mut happened: impl FnMut() -> bool) -> Result<()> {
        let until = Instant::now() + READY_MAX;
        while !happened() {
            self.stop.check()?;
            self.alive()?;
            if Instant::now() > until {
                bail!("{what} did not come within {READY_MAX:?}; {}", self.last_words());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until somebody listens on `address`.
    pub(crate) fn until_listening(&mut self, address: SocketAddr) -> Result<()> {
        let what = format!("{} on {address}", self.name);
        self.until(&what, || TcpStream::connect(address).is_ok())
    }

    /// An error with its last words, if it has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        if self.waited || !usage::has_ended(self.child.id()) {
            return Ok(());
        }
        self.end(&[Signal::KILL]);
        let status = self.child.wait()?;
        bail!("{} ended by itself: {status}; {}", self.name, self.last_words());
    }

    /// What it and all that it started use.
    pub(crate) fn usage(&self) -> Usage {
        usage::of_group(self.child.id())
    }

    /// Forgets the peak of memory so far.
    pub(crate) fn reset_peak(&self) {
        usage::reset_peak(self.child.id());
    }

    /// Asks it to end, and gives what it said last.
    pub(crate) fn end_and_tell(mut self) -> Result<String> {
        self.end(&[Signal::TERM, Signal::KILL]);
        self.last_line(READY_MAX, |_| ())
    }

    /// Ends it at once, without a word.
    pub(crate) fn kill(mut self) {
        self.end(&[Signal::KILL]);
    }

    /// The end of its log, for an error's text.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(N_LAST_LINES).collect();
        lines.reverse();
        format!("its last lines:\n{}", lines.join("\n"))
    }

    /// Ends it and all that it started, by one signal after the other.
    fn end(&mut self, signals: &[Signal]) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| !self.waited);
        let Some(group) = group else { return };
        // Not waited for before the end: as long as it is a zombie, the number of its group is nobody else's.
        for signal in signals {
            // It fails when all of them have ended.
            let _ = kill_process_group(group, *signal);
            let until = Instant::now() + GRACE;
            while usage::has_living(self.child.id()) && Instant::now() < until {
                std::thread::sleep(END_LOOK_EVERY);
            }
        }
        self.waited = self.child.wait().is_ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(&[Signal::TERM, Signal::KILL]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Result<Process>) {
        let logs = tempfile::tempdir().unwrap();
        let process = Process::start("shell", Command::new("sh").args(["-c", script]), logs.path(), &Stop::on_signals().unwrap());
        (logs, process)
    }

    #[test]
    fn the_last_line_of_a_child_is_its_answer() {
        let (_logs, process) = shell("echo first; echo second");
        assert_eq!(process.unwrap().last_line(READY_MAX, |_| ()).unwrap(), "second");
    }

    #[test]
    fn a_child_that_dies_without_an_answer_is_quoted() {
        let (_logs, process) = shell("echo broken >&2; exit 3");
        let error = process.unwrap().last_line(READY_MAX, |_| ()).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }

    #[test]
    fn what_a_child_started_ends_with_it() {
        let (_logs, process) = shell("sleep 100 & echo $!; wait");
        let mut process = process.unwrap();
        let grandchild: u32 = process.first_line().unwrap().parse().unwrap();
        assert_eq!(usage::of_group(process.child.id()).processes, 2);

        drop(process);
        assert!(!Path::new("/proc").join(grandchild.to_string()).join("exe").exists(), "the sleep lives on");
    }
}
