//! Every command a person types here: `cargo xtask <verb>`, a verb per file.
//!
//! Drives the product by command line and links none of it, so that it compiles in seconds.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal: it starts processes, reads files and measures real time"
)]

mod ci;
mod dev;
mod e2e;
mod machine;
mod run;
mod sim;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

fn main() -> ExitCode {
    let matches = command().get_matches();
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let text = |name: &'static str, help: &'static str| Arg::new(name).help(help);
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    Command::new("xtask")
        .about("What people and CI do with this workspace")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("dev")
                .about("Starts a fake cluster, an agent and a server on loopback, and follows their logs until Ctrl-C")
                .arg(flag("once", "Stop as soon as a first request has gone all the way round")),
        )
        .subcommand(
            Command::new("test")
                .about("Runs every test: unit, properties, stories, doctests, and e2e with what the machine has")
                .arg(text("filter", "Only tests whose name contains this")),
        )
        .subcommand(
            Command::new("sim")
                .about("Runs the stories")
                .arg(text("name", "Only stories whose name contains this"))
                .arg(text("seed", "Replay this seed").long("seed").value_name("N").value_parser(value_parser!(u64)))
                .arg(flag("trace", "Print the transcript, also of stories that pass")),
        )
        .subcommand(
            Command::new("e2e")
                .about("Runs the end-to-end tests against real processes and, when asked, real clusters")
                .arg(flag("kind", "Create a kind cluster for them"))
                .arg(text("edge", "Use the cluster of this kubeconfig").long("edge").value_name("KUBECONFIG"))
                .arg(flag("keep", "Leave what they created for a look afterwards")),
        )
        .subcommand(
            Command::new("tidy")
                .about("Checks the house rules that a machine can check")
                .arg(flag("fix", "Mend what can be mended")),
        )
        .subcommand(
            Command::new("ci")
                .about("Runs what CI runs, in its order")
                .arg(text("lane", "Which lane").value_parser(["fast", "full", "nightly"]).default_value("fast"))
                .arg(flag("no-tests", "Leave out what `cargo xtask test` runs")),
        )
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some((verb, args)) = matches.subcommand() else { unreachable!("clap asks for a verb") };
    let word = |name: &str| args.get_one::<String>(name).map(String::as_str);
    match verb {
        "dev" => dev::run_verb(args.get_flag("once")),
        "test" => test::run_verb(word("filter")),
        "sim" => sim::run_verb(word("name"), args.get_one::<u64>("seed").copied(), args.get_flag("trace")),
        "e2e" => e2e::run_verb(args.get_flag("kind"), word("edge"), args.get_flag("keep")),
        "tidy" => tidy::run_verb(args.get_flag("fix")),
        "ci" => ci::run_verb(word("lane").unwrap_or("fast"), !args.get_flag("no-tests")),
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
