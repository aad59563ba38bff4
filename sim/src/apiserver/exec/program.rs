//! The programs of every container: `cat`, `sha256sum`, and a shell that knows `echo`, `exit`, `sleep`, `true`, `false`.

use std::collections::VecDeque;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::probes::hex;

/// A program that runs, fed with input and woken after its sleeps.
pub(crate) enum Program {
    /// Writes what it reads, until the input ends.
    Cat,
    /// Writes the digest of its input when that ends, as `sha256sum` does.
    Digest(Sha256),
    /// Runs lines.
    Shell(Shell),
}

/// What a program did about one piece of input.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// It sleeps that long and wants to be woken then.
    pub(crate) sleep: Option<Duration>,
    /// It has ended.
    pub(crate) exit: Option<u8>,
}

/// A shell that reads lines, or runs the ones that it was given.
#[derive(Default)]
pub(crate) struct Shell {
    lines: VecDeque<String>,
    partial: Vec<u8>,
    /// Exit when the lines are done: the input has ended, or it was a script.
    last_input: bool,
    prompt: bool,
    asleep: bool,
    code: u8,
}

impl Output {
    pub(crate) fn append(&mut self, mut later: Self) {
        if self.exit.is_some() {
            return;
        }
        self.stdout.append(&mut later.stdout);
        self.stderr.append(&mut later.stderr);
        self.sleep = later.sleep.or(self.sleep);
        self.exit = later.exit;
    }

    fn exit(code: u8) -> Self {
        Self { exit: Some(code), ..Self::default() }
    }
}

impl Program {
    /// Starts `command`, which has at least one word; a shell on a terminal prompts.
    pub(crate) fn start(command: &[String], tty: bool) -> (Self, Output) {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let mut shell = match words.as_slice() {
            ["cat" | "/bin/cat", ..] => return (Self::Cat, Output::default()),
            ["sha256sum" | "/usr/bin/sha256sum", ..] => return (Self::Digest(Sha256::new()), Output::default()),
            ["sh" | "/bin/sh" | "bash" | "/bin/bash"] => Shell { prompt: tty, ..Shell::default() },
            ["sh" | "/bin/sh" | "bash" | "/bin/bash", "-c", script, ..] => Shell::of_script(script.split([';', '\n'])),
            words => Shell::of_script([words.join(" ").as_str()]),
        };
        let output = if shell.prompt { Output { stdout: PROMPT.to_vec(), ..Output::default() } } else { shell.run() };
        (Self::Shell(shell), output)
    }

    pub(crate) fn input(&mut self, bytes: &[u8]) -> Output {
        match self {
            Self::Cat => Output { stdout: bytes.to_vec(), ..Output::default() },
            Self::Digest(digest) => {
                digest.update(bytes);
                Output::default()
            }
            Self::Shell(shell) if shell.n_held() + bytes.len() > SHELL_INPUT_MAX => {
                Output { stderr: b"sh: too much input at once\n".to_vec(), ..Output::exit(2) }
            }
            Self::Shell(shell) => {
                shell.read(bytes);
                shell.run()
            }
        }
    }

    pub(crate) fn end_of_input(&mut self) -> Output {
        match self {
            Self::Cat => Output::exit(0),
            Self::Digest(digest) => {
                let line = format!("{}  -\n", hex(&digest.finalize_reset()));
                Output { stdout: line.into_bytes(), ..Output::exit(0) }
            }
            Self::Shell(shell) => {
                shell.last_input = true;
                shell.run()
            }
        }
    }

    /// The sleep that an [`Output`] asked for is over.
    pub(crate) fn wake(&mut self) -> Output {
        match self {
            Self::Cat | Self::Digest(_) => Output::default(),
            Self::Shell(shell) => {
                shell.asleep = false;
                shell.run()
            }
        }
    }

    /// Ctrl-C: ends every program but a shell that waits for a line.
    pub(crate) fn interrupt(&mut self) -> Output {
        match self {
            Self::Shell(shell) if shell.prompt && !shell.asleep => Output { stdout: PROMPT.to_vec(), ..Output::default() },
            // 128 + SIGINT, as a shell reports it.
            Self::Cat | Self::Digest(_) | Self::Shell(_) => Output::exit(130),
        }
    }
}

const PROMPT: &[u8] = b"$ ";

/// Input that a shell holds while it sleeps or waits for the end of a line: more than anybody types or scripts.
const SHELL_INPUT_MAX: usize = 1024 * 1024;

impl Shell {
    fn of_script<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self { lines: lines.into_iter().map(str::to_owned).collect(), last_input: true, ..Self::default() }
    }

    fn n_held(&self) -> usize {
        self.partial.len() + self.lines.iter().map(String::len).sum::<usize>()
    }

    fn read(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = self.partial.drain(..=end).collect();
            self.lines.push_back(String::from_utf8_lossy(&line).trim().to_owned());
        }
    }

    /// Runs lines until one sleeps or none is left.
    fn run(&mut self) -> Output {
        let mut output = Output::default();
        while !self.asleep && output.exit.is_none() {
            let Some(line) = self.lines.pop_front() else {
                if self.last_input {
                    output.exit = Some(self.code);
                }
                break;
            };
            output.append(self.line(line.trim()));
            if self.prompt && !self.asleep && output.exit.is_none() {
                output.stdout.extend_from_slice(PROMPT);
            }
        }
        output
    }

    fn line(&mut self, line: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
        let mut output = Output::default();
        self.code = match words.as_slice() {
            [] => self.code,
            ["echo", words @ ..] => {
                output.stdout = format!("{}\n", words.join(" ")).into_bytes();
                0
            }
            ["true"] => 0,
            ["false"] => 1,
            ["exit"] => {
                output.exit = Some(self.code);
                self.code
            }
            ["exit", code] => {
                let code = code.parse().unwrap_or(2);
                output.exit = Some(code);
                code
            }
            ["sleep", seconds] if seconds.parse::<u32>().is_ok() => {
                self.asleep = true;
                output.sleep = seconds.parse().ok().map(Duration::from_secs);
                0
            }
            [unknown, ..] => {
                output.stderr = format!("sh: {unknown}: not found (this container is a simulation)\n").into_bytes();
                127
            }
        };
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_and_exits_with_its_code() {
        for (command, stdout, code) in
            [("echo a b", "a b\n", 0), ("false", "", 1), ("true", "", 0), ("no-such-program", "", 127), ("exit 3", "", 3)]
        {
            let (_, output) = start(command, false);
            assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.exit), (stdout, Some(code)), "{command}");
        }
        let (_, script) = Program::start(&["sh", "-c", "echo one; false\necho two; exit 7"].map(str::to_owned), false);
        assert_eq!((script.stdout.as_slice(), script.exit), (b"one\ntwo\n".as_slice(), Some(7)));
    }

    #[test]
    fn a_shell_runs_lines_as_they_come_and_ends_with_its_input() {
        let (mut shell, first) = start("sh", false);
        assert_eq!(first, Output::default());
        assert_eq!(shell.input(b"echo he"), Output::default());
        assert_eq!(shell.input(b"llo\nfalse\n").stdout, b"hello\n");
        assert_eq!(shell.end_of_input().exit, Some(1));
    }

    #[test]
    fn a_shell_on_a_terminal_prompts() {
        let (mut shell, first) = start("sh", true);
        assert_eq!(first.stdout, b"$ ");
        assert_eq!(shell.input(b"echo hi\n").stdout, b"hi\n$ ");
        assert_eq!(shell.input(b"exit 4\n").exit, Some(4));
    }

    #[test]
    fn a_sleep_holds_the_lines_after_it_back() {
        let (mut shell, first) = Program::start(&["sh", "-c", "sleep 5; echo awake"].map(str::to_owned), false);
        assert_eq!((first.sleep, first.exit), (Some(Duration::from_secs(5)), None));
        assert_eq!(shell.wake(), Output { stdout: b"awake\n".to_vec(), ..Output::exit(0) });
    }

    #[test]
    fn a_digest_is_that_of_the_whole_input() {
        let (mut digest, _) = start("sha256sum", false);
        digest.input(b"ab");
        digest.input(b"c");
        let line = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n";
        assert_eq!(digest.end_of_input(), Output { stdout: line.into(), ..Output::exit(0) });
    }

    fn start(command: &str, tty: bool) -> (Program, Output) {
        let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
        Program::start(&words, tty)
    }
}
