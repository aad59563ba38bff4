//! `postern-bench`: the benchmark, and every process that it needs: load, upstream, links with distance, many agents.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal: it starts processes, opens sockets and measures real time"
)]

mod agents;
mod hot;
mod load;
mod relay;
mod run;
mod task;
mod upstream;

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

fn main() -> ExitCode {
    host::tls::use_provider();
    let matches = command().get_matches();
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    Command::new("postern-bench")
        .about("The benchmark of Postern; `cargo xtask bench` builds everything and runs it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run::command())
        .subcommand(upstream::command())
        .subcommand(hot::command())
        .subcommands([
            part("load", "Asks as a task in JSON says, and prints what came of it as JSON"),
            part("relay", "Carries TCP over a link with distance, as a task in JSON says"),
            part("agents", "Runs many agents in one process, as a task in JSON says"),
        ])
}

/// A process that `run` starts; people rarely do.
fn part(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(Arg::new("task").value_name("JSON").required(true).help("The task, see bench/src/task.rs"))
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some((verb, args)) = matches.subcommand() else { unreachable!("clap asks for a verb") };
    let task = || args.get_one::<String>("task").map(String::as_str).unwrap_or_default();
    match verb {
        "run" => run::run_verb(args),
        "upstream" => upstream::run_verb(args),
        "hot" => hot::run_verb(args),
        "load" => load::run_verb(serde_json::from_str(task())?),
        "relay" => relay::run_verb(serde_json::from_str(task())?),
        "agents" => agents::run_verb(serde_json::from_str(task())?),
        other => unreachable!("clap knows no verb {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
