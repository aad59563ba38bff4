//! The child processes of `dev`: started in groups of their own, followed, and none left behind.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::LOOK_EVERY;
use super::log::readable;
use super::stop::Stop;

/// How long a child may take to end before it is killed: people wait here, and it drains for less.
const GRACE: Duration = Duration::from_secs(5);

/// The log lines shown again when a child dies: its error, and what led to it.
const N_LAST_LINES: usize = 12;

/// The running children, in the order of their start.
pub(crate) struct Crew {
    members: Vec<Member>,
}

struct Member {
    name: &'static str,
    child: Child,
    last: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self { members: Vec::new() }
    }

    /// Starts `command` and follows its output under `name`.
    pub(crate) fn start(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        // A group of its own: the terminal's Ctrl-C reaches us alone, and we end the children in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{name}: {}", command.get_program().display()))?;
        let last = Arc::new(Mutex::new(VecDeque::new()));
        let readers = vec![follow(name, child.stdout.take(), &last), follow(name, child.stderr.take(), &last)];
        self.members.push(Member { name, child, last, readers });
        Ok(())
    }

    /// Fails with the last words of a child that has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            if let Some(status) = self.members[index].child.try_wait()? {
                let member = self.members.remove(index);
                let name = member.name;
                bail!("{name} ended by itself: {status}; its last lines:\n{}", member.last_words());
            }
        }
        Ok(())
    }

    /// Ends the children, the last started first: agent, server, fake cluster. A second signal kills.
    pub(crate) fn drain(&mut self, stop: &Stop) {
        stop.forget();
        while let Some(mut member) = self.members.pop() {
            match end(&mut member.child, stop) {
                Ok(status) => eprintln!("{:<6} ended: {status}", member.name),
                Err(error) => eprintln!("{:<6} could not be ended: {error:#}", member.name),
            }
            member.last_words();
        }
    }
}

impl Drop for Crew {
    /// What a panic left running.
    fn drop(&mut self) {
        for member in &mut self.members {
            signal(&member.child, "KILL");
            let _ = member.child.wait();
        }
    }
}

impl Member {
    /// The last lines of a child that has ended, after all of them were shown.
    fn last_words(self) -> String {
        for reader in self.readers {
            // A reader that panicked has shown what it could.
            let _ = reader.join();
        }
        self.last.lock().map(|last| Vec::from_iter(last.iter().cloned()).join("\n")).unwrap_or_default()
    }
}

/// Runs `command` to its end, or ends it when somebody stops us.
pub(crate) fn finish(mut command: Command, stop: &Stop) -> Result<()> {
    let mut child = command.process_group(0).stdin(Stdio::null()).spawn().context(command.get_program().display().to_string())?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop.asked() {
            stop.forget();
            end(&mut child, stop)?;
            bail!("stopped before it was ready");
        }
        std::thread::sleep(LOOK_EVERY);
    };
    if !status.success() {
        bail!("{}: {status}", command.get_program().display());
    }
    Ok(())
}

/// Asks `child` to end, and kills it after the grace or at a second signal.
fn end(child: &mut Child, stop: &Stop) -> Result<ExitStatus> {
    signal(child, "TERM");
    let started = Instant::now();
    while started.elapsed() < GRACE && !stop.asked() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    signal(child, "KILL");
    Ok(child.wait()?)
}

/// Asks a child of our own group to end, and does not wait.
pub(crate) fn ask_to_end(child: &Child) {
    kill("TERM", &child.id().to_string());
}

/// Sends a signal to the child and what it has started.
fn signal(child: &Child, name: &str) {
    kill(name, &format!("-{}", child.id()));
}

/// `whom` is a process, or a group behind a minus.
fn kill(name: &str, whom: &str) {
    // The shell's own `kill` is there where no program of that name is. It fails when all of them have ended.
    let kill = format!("kill -s {name} -- {whom}");
    let _ = Command::new("sh").arg("-c").arg(kill).stderr(Stdio::null()).status();
}

/// Shows each line of `from` as it comes, and keeps the last ones.
fn follow(name: &'static str, from: Option<impl Read + Send + 'static>, last: &Arc<Mutex<VecDeque<String>>>) -> JoinHandle<()> {
    let last = last.clone();
    std::thread::spawn(move || {
        for line in from.map(BufReader::new).into_iter().flat_map(|reader| reader.split(b'\n')).map_while(std::io::Result::ok) {
            let line = readable(name, &String::from_utf8_lossy(&line));
            // Whoever closed our output still wants the children ended in order.
            let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), format!("{line}\n").as_bytes());
            if let Ok(mut last) = last.lock() {
                last.push_back(line);
                if last.len() > N_LAST_LINES {
                    last.pop_front();
                }
            }
        }
    })
}
