//! `postern-server check`: whether a server would start with this configuration, and what else is odd about it.
//!
//! It reads what a start reads, with the code of the start, and binds and dials nothing.

mod argocd;
mod callers;
mod certificates;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use host::{Drain, Host, LogLevel, Workers};
use proxy::audit::AuditConfig;
use proxy::flags::{ConfigError, Env};
use proxy::impersonation::Impersonation;
use proxy::program::{self, ProcessConfig, StartError};

use crate::argocd as registration;
use crate::cli::{self, Reading};
use crate::config::{InternalTls, ServerConfig};
use crate::roster::Roster;
use crate::{internal_tls, public_tls, revoked, tracer, trust};

/// The word that asks for the check.
const WORD: &str = "check";

/// As a start with the same mistakes ends, in the words of sysexits.h.
const EX_USAGE: u8 = 64;

/// Whether the first word of a command line asks for the check.
pub fn is_asked_for(word: &str) -> bool {
    word == WORD
}

/// Checks what `args` and `env` configure, and is the end of the process.
pub fn main(args: impl Iterator<Item = String>, env: Env<'_>) -> ExitCode {
    let quiet = ProcessConfig { log_level: LogLevel::Error, workers: Workers::Exactly(1) };
    program::main("postern-server", cli::parse_check(args, env, &Host::real()), move |_| quiet, run)
}

async fn run(reading: Reading, host: Host, _: Drain) -> Result<(), StartError> {
    let mut out = io::stdout();
    match check(&reading, &host, &mut out).await.n_failed {
        0 => Ok(()),
        n => Err(StartError::Failed { why: format!("a server would not start: {n} mistakes"), exit_code: EX_USAGE }),
    }
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// What would keep a server from starting, or everybody from using it.
    pub n_failed: usize,
    /// What is odd.
    pub n_warnings: usize,
}

/// Checks all and tells it to `out`.
pub async fn check(reading: &Reading, host: &Host, out: &mut dyn Write) -> Summary {
    let log = match &reading.config.audit {
        Some(audit) => Some((audit, audit.try_place(host).await)),
        None => None,
    };
    let mut report = Report { out, summary: Summary::default() };
    reading.mistakes.iter().for_each(|mistake| report.fail(&mistake.to_string()));
    reading.warnings.iter().for_each(|warning| report.warn(warning));
    let config = &reading.config;
    if !config.clusters.is_empty() {
        report.ok(&format!("clusters: {}", config.clusters.len()));
    }
    files(config, host, &mut report, &reading.mistakes);
    if let Some((audit, tried)) = log {
        audit_log(audit, tried, &mut report);
    }
    certificates::check(config, host, &mut report);
    callers::check(config, host, &mut report);
    argocd::check(config, host, &mut report);
    exposure(config, &mut report);
    let Summary { n_failed, n_warnings } = report.summary;
    report.line(&format!("\n{n_failed} failed, {n_warnings} warned"));
    report.summary
}

/// What a start makes of files beyond their own mistakes, such as whether a key fits its certificate.
fn files(config: &ServerConfig, host: &Host, report: &mut Report<'_>, known: &[ConfigError]) {
    let roster = Arc::new(Roster::new(&config.clusters));
    let failures = [
        public_tls(host, config).err(),
        internal_tls(host, config).err(),
        tracer(host, config).err(),
        revoked(host, config).err(),
        trust(host, config, roster, None, None).err(),
        config.argocd.as_ref().and_then(|argocd| registration::material(argocd, host).err()),
        config.argocd.as_ref().and_then(|argocd| registration::api_tls(argocd, host).err()),
    ];
    let mut told = Vec::new();
    for failure in failures.into_iter().flatten() {
        match failure {
            StartError::Config(errors) => {
                errors.iter().filter(|error| !known.contains(error)).for_each(|error| report.fail(&error.to_string()));
            }
            other @ (StartError::Material { .. } | StartError::Bind { .. } | StartError::Failed { .. }) => {
                let text = program::chain(&other);
                // Both listeners may have the same files.
                if !told.contains(&text) {
                    report.fail(&text);
                    told.push(text);
                }
            }
        }
    }
}

/// Whether the audit log can be written by who runs the check.
fn audit_log(audit: &AuditConfig, tried: io::Result<()>, report: &mut Report<'_>) {
    let file = &audit.file;
    match tried {
        Ok(()) => report.ok(&format!("audit log: {file} can be written")),
        // A check beside the server that it is for.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            report.warn(&format!("--audit {file} is written by another process: one at a time may; give each server its own"));
        }
        Err(error) => report.fail(&format!("--audit {file} cannot be written by this user: {error}")),
    }
}

/// What a start says in its log of what stands open.
fn exposure(config: &ServerConfig, report: &mut Report<'_>) {
    if config.tls.is_none() {
        report.warn("--tls-cert is not given: the public listener is plain, so something in front of it must end TLS");
    }
    if config.callers_file.is_none() {
        report
            .warn("--callers is not given: whoever reaches the internal listener reaches every cluster with its agent's rights");
    } else if config.ops_addr.is_none() {
        report.warn(
            "--ops-addr is not given: whoever reaches the internal listener reads the names of clusters and callers in /metrics",
        );
    }
    if config.callers_file.is_some() && config.internal_tls == InternalTls::Off {
        report.warn(
            "the internal listener is plain: callers' tokens cross the network in clear text; --internal-tls-cert, or --tls-cert",
        );
    }
    for cluster in config.clusters.iter().filter(|_| config.callers_file.is_none()) {
        if cluster.impersonate != Impersonation::default() {
            report.warn(&format!(
                "cluster {}: anybody on the internal listener may impersonate whom its list names; --callers",
                cluster.id
            ));
        }
    }
}

/// Lines of a check.
struct Report<'a> {
    out: &'a mut dyn Write,
    summary: Summary,
}

impl Report<'_> {
    fn ok(&mut self, text: &str) {
        self.line(&format!("ok    {text}"));
    }

    fn warn(&mut self, text: &str) {
        self.summary.n_warnings += 1;
        self.line(&format!("warn  {text}"));
    }

    fn fail(&mut self, text: &str) {
        self.summary.n_failed += 1;
        self.line(&format!("FAIL  {text}"));
    }

    fn line(&mut self, text: &str) {
        // A reader that went away wants no more of it.
        let _ = writeln!(self.out, "{text}");
    }
}

#[cfg(test)]
mod tests;
