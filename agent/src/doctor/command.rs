//! The doctor's command line: the agent's own flags, and what else may be tried.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use host::{Drain, Host, LogLevel, Workers};
use proxy::flags::{self, ConfigError, Env, Flag, Page, Section, Values};
use proxy::program::{self, Command, ProcessConfig, StartError};
use tunnel::trial;

use super::{Plan, examine};
use crate::cli;

/// The word that asks for the doctor.
const WORD: &str = "doctor";

/// The exit code when something is wrong that is not the doctor.
const FAILED: u8 = 1;

/// The shortest silence that is worth trying.
const IDLE_MIN: Duration = Duration::from_secs(10);

const SECTION: Section = Section {
    title: "Doctor",
    flags: &[Flag::value(
        "idle-up-to",
        "TIME",
        "Also find the silence after which something on the way that counts bytes, as proxies do, forgets a connection, from 10s up to this, 1h at most; takes as long",
    )],
};

const PAGE: Page = Page {
    name: "postern-agent doctor",
    about: "Finds what stands between this agent, its hub and its API server. Takes the agent's own flags and environment.",
    usage: "[FLAGS OF THE AGENT] [--idle-up-to TIME]",
    after: "Looks in order at configuration, DNS, proxy, TCP, TLS, clock, token, WebSocket upgrade, round-trip time and
bandwidth, API server, RBAC, guard, and, if asked, the idle time after which connections are forgotten. What works on
TCP alone (NAT, firewalls) is not found by that from 30s on: the kernel's own keepalive keeps it awake, in trials as in sessions.
Each step is ok, warn, FAIL or skip (what it needs has failed); behind > stands what to do.

An agent that runs is not disturbed, and no credential is printed. In a pod of the agent:
  kubectl exec deploy/postern-agent -- postern-agent doctor --server wss://hub.example/connect --token-file ...

Exit codes: 0 nothing failed, 1 something did.
",
};

/// What the reference says of the doctor.
pub(crate) fn chapter() -> String {
    let after = PAGE.after.split("\n\n").next().unwrap_or_default().replace('>', "`>`");
    format!(
        "## postern-agent doctor\n\n{} Exit codes: 0 nothing failed, 1 something did, 64 its own flags have mistakes.\n\n{after}\n\n{}",
        PAGE.about,
        flags::markdown(&[SECTION]),
    )
}

/// Whether the first word of a command line asks for the doctor.
pub fn is_asked_for(word: &str) -> bool {
    word == WORD
}

/// Examines what `args` and `env` configure, and is the end of the process.
pub fn main(args: impl IntoIterator<Item = String>, env: Env<'_>) -> ExitCode {
    let quiet = ProcessConfig { log_level: LogLevel::Error, workers: Workers::Exactly(1) };
    program::main("postern-agent", parse(args, env, &Host::real()), move |_| quiet, run)
}

/// Reads a command line. A mistake in the agent's flags is the doctor's first finding and none of this.
///
/// # Errors
/// Mistakes in the doctor's own flag.
pub fn parse(args: impl IntoIterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command<Plan>, Vec<ConfigError>> {
    let sections: Vec<Section> = cli::FLAGS.iter().copied().chain([SECTION]).collect();
    let env = cli::environment(env);
    let mut values = Values::parse(&sections, args, &env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(PAGE.help(&sections)));
    }
    let idle_up_to = match values.get("idle-up-to", |text| Ok(idle_up_to(text))) {
        Some(Ok(time)) => Some(time),
        Some(Err(problem)) => return Err(vec![ConfigError::new("--idle-up-to", problem)]),
        None => None,
    };
    let config = cli::read(values, host);
    Ok(Command::Run { config: Box::new(Plan { config, idle_up_to }), warnings: Vec::new() })
}

fn idle_up_to(text: &str) -> Result<Duration, String> {
    let time = flags::duration(text)?;
    let is_good = (IDLE_MIN..=trial::IDLE_MAX).contains(&time);
    if is_good { Ok(time) } else { Err(format!("{text:?} is not between 10s and 1h")) }
}

async fn run(plan: Plan, host: Host, mut drain: Drain) -> Result<(), StartError> {
    let mut out = io::stdout();
    let summary = tokio::select! {
        biased;
        () = drain.started() => return Err(StartError::Failed { why: "the examination was broken off".to_owned(), exit_code: FAILED }),
        summary = examine(plan, &host, &mut out) => summary,
    };
    match summary.n_failed {
        0 => Ok(()),
        n => Err(StartError::Failed { why: format!("{n} of the doctor's steps failed"), exit_code: FAILED }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "-token=hush";

    fn parsed(args: &[&str]) -> Result<Command<Plan>, Vec<ConfigError>> {
        parse(args.iter().map(|arg| (*arg).to_owned()), &|_| None, &Host::real())
    }

    async fn said(args: &[&str]) -> (String, usize) {
        let Ok(Command::Run { config, .. }) = parsed(args) else { panic!("{args:?} asks for no examination") };
        let mut out = Vec::new();
        let summary = examine(*config, &Host::real(), &mut out).await;
        (String::from_utf8(out).expect("text"), summary.n_failed)
    }

    #[tokio::test]
    async fn mistakes_in_the_agents_flags_are_the_first_finding_and_all_else_needs_them_mended() {
        let (text, n_failed) = said(&["-server=https://hub.example", TOKEN, "-target=nonsense"]).await;
        assert_eq!(n_failed, 1, "{text}");
        let first = "FAIL  configuration  3 configuration errors:\n";
        assert!(text.starts_with(first) && text.contains("--server: ") && text.contains("--target: "), "{text}");
        assert_eq!(text.matches("needs configuration").count(), 6, "{text}");
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn its_own_flag_is_bounded() {
        for (text, expected) in [("10s", true), ("1h", true), ("9s", false), ("61m", false), ("soon", false)] {
            assert_eq!(parsed(&["-idle-up-to", text]).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn its_help_is_worth_reading() {
        let Ok(Command::Print(text)) = parsed(&["--help"]) else { panic!("no help") };
        insta::assert_snapshot!("help", text);
    }
}
