//! What both programs are from outside: a command line, warnings, a run, an exit code.

use std::error::Error;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use host::{Drain, Host, LogLevel, Workers};

use crate::flags::{self, ConfigError, Mistakes, Values};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command<C> {
    /// Serve. The warnings are for the log, once it runs.
    Run {
        /// Complete and checked.
        config: Box<C>,
        /// What is odd, but no mistake.
        warnings: Vec<String>,
    },
    /// Print this and exit with code 0.
    Print(String),
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has mistakes, all of which are here.
    #[error("{}", Mistakes(.0))]
    Config(Vec<ConfigError>),
    /// A file that the configuration names holds nothing usable.
    #[error("--{flag} {path} is not usable")]
    Material {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A listener cannot be bound.
    #[error("cannot listen on {addr} (--{flag})")]
    Bind {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What the program was started for did not come about.
    #[error("{why}")]
    Failed {
        /// Why not.
        why: String,
        /// In the words of sysexits.h.
        exit_code: u8,
    },
}

impl StartError {
    /// The exit code of the process, in the words of sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Material { .. } => 64,
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Bind { .. } => 69,
            Self::Failed { exit_code, .. } => *exit_code,
        }
    }
}

/// What the process itself is told.
#[derive(Debug, Clone, Copy)]
pub struct ProcessConfig {
    /// How much is logged.
    pub log_level: LogLevel,
    /// Threads that serve.
    pub workers: Workers,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { log_level: LogLevel::Info, workers: Workers::HalfOfCpus }
    }
}

impl ProcessConfig {
    /// Reads the flags `log-level` and `worker-threads`.
    pub fn read(&mut self, values: &mut Values) {
        values.read("log-level", flags::log_level, &mut self.log_level);
        if let Some(given) = values.get("worker-threads", flags::count).filter(|given| *given > 0) {
            self.workers = Workers::Exactly(given);
        }
    }
}

/// Does what a command line asked for, to the end of the process. `run` serves until its drain has ended.
pub fn main<C, F>(
    name: &'static str,
    asked: Result<Command<C>, Vec<ConfigError>>,
    process: impl FnOnce(&C) -> ProcessConfig,
    run: impl FnOnce(C, Host, Drain) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), StartError>>,
{
    let result = match asked {
        Ok(Command::Run { config, warnings }) => {
            let ProcessConfig { log_level, workers } = process(&config);
            host::init_logging(log_level);
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            host::run_process(name, workers, |host, drain| run(*config, host, drain))
        }
        Ok(Command::Print(text)) => {
            // A reader that went away wants no more of it.
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        Err(mistakes) => Err(StartError::Config(mistakes)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// An error with all its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // hyper repeats its cause's words.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
