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

mod bench;
mod charts;
mod ci;
mod dev;
mod e2e;
mod fuzz;
mod honesty;
mod image;
mod machine;
mod mutations;
mod release;
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
    Command::new("xtask")
        .about("What people and CI do with this workspace")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(everyday())
        .subcommand(image::command())
        .subcommands(searches())
        .subcommand(release::command())
}

/// Verbs of every day.
fn everyday() -> Vec<Command> {
    vec![
        dev::command(),
        Command::new("test")
            .about("Runs every test: unit, properties, stories, doctests, and e2e with what the machine has")
            .arg(text("filter", "Only tests whose name contains this")),
        Command::new("sim")
            .about("Runs the stories, or walks at random")
            .arg(text("name", "Only stories whose name contains this"))
            .arg(text("seed", "Replay this seed").long("seed").value_name("N").value_parser(value_parser!(u64)))
            .arg(
                text("walks", "Go this many random walks instead, from --seed or $SIM_SEED or a fresh seed on")
                    .long("walks")
                    .value_name("N")
                    .value_parser(value_parser!(u64)),
            )
            .arg(flag("trace", "Print the transcript, also of stories that pass")),
        e2e::command(),
        Command::new("tidy").about("Checks the house rules that a machine can check").arg(flag("fix", "Mend what can be mended")),
        Command::new("ci")
            .about("Runs what CI runs, in its order")
            .arg(text("lane", "Which lane").value_parser(["fast", "full", "nightly"]).default_value("fast"))
            .arg(flag("no-tests", "Leave out what `cargo xtask test` runs")),
    ]
}

/// Verbs that look for what the tests do not notice.
fn searches() -> Vec<Command> {
    vec![
        bench::command(),
        charts::command(),
        Command::new("mutations")
            .about("Breaks the product on purpose, patch by patch, and sees the story that claims otherwise fail")
            .arg(text("name", "Only patches whose name contains this")),
        Command::new("fuzz")
            .about("Searches for inputs that break what parsers, sessions and the way of a request promise")
            .arg(text("target", "Only this target"))
            .arg(text("seconds", "How long each").long("seconds").value_name("N").value_parser(value_parser!(u32))),
        Command::new("honesty")
            .about("Checks the fake API server against a real one")
            .arg(text("kubeconfig", "The cluster of this kubeconfig").long("kubeconfig").value_name("FILE")),
    ]
}

fn text(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    text(name, help).long(name).action(ArgAction::SetTrue)
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some((verb, args)) = matches.subcommand() else { unreachable!("clap asks for a verb") };
    let word = |name: &str| args.get_one::<String>(name).map(String::as_str);
    match verb {
        "dev" => dev::run_verb(args),
        "test" => test::run_verb(word("filter")),
        "sim" => {
            let seed = args.get_one::<u64>("seed").copied();
            match args.get_one::<u64>("walks") {
                Some(n) => sim::walk(*n, seed),
                None => sim::run_verb(word("name"), seed, args.get_flag("trace")),
            }
        }
        "bench" => bench::run_verb(args),
        "charts" => charts::run_verb(args.get_flag("bless")),
        "mutations" => mutations::run_verb(word("name")),
        "e2e" => e2e::run_verb(args),
        "fuzz" => fuzz::run_verb(word("target"), args.get_one::<u32>("seconds").copied()),
        "image" => image::run_verb(args),
        "honesty" => honesty::run_verb(word("kubeconfig")),
        "release" => release::run_verb(args),
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
