//! `cargo xtask bench`: builds what is measured as it ships, and has `postern-bench` measure it.
//!
//! `postern-bench` knows the scenarios and prints the tables; here are only the builds, also those of another revision.

mod against;
mod hot;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};

use crate::machine::Skips;
use crate::run::{run, step};
use crate::workspace::{cargo, target_dir};

pub(crate) use against::merge_base;
pub(crate) use hot::{compare, is_there};

/// The program that measures.
const PROGRAM: &str = "postern-bench";

/// What ships. Built apart from what measures it: cargo unites the features of the packages that it is asked for at once, and
/// the simulation asks for more than what ships.
const PRODUCT: [&str; 4] = ["-p", "server", "-p", "agent"];

/// What measures.
const BENCH: [&str; 4] = ["-p", BENCH_PACKAGE, "-p", "sim"];
const BENCH_PACKAGE: &str = "bench";

/// The verb's command line.
pub(crate) fn command() -> clap::Command {
    clap::Command::new("bench")
        .about("Measures the programs as they ship, beside a direct way, an nginx chain and whatever you name")
        .long_about(
            "Measures the programs as they ship: server, agents, load and upstream as separate processes on loopback, with TLS.\n\n\
             Every scenario runs in turn against the direct way, Postern, a chain of two nginx (when nginx is installed) and each \
             --peer; what is printed are ratios, then absolute numbers. Nothing else should run on the machine meanwhile. \
             BENCHMARKS.md holds the last full table and says how to read it.\n\n\
             `hot` counts instructions instead, which no other load disturbs, and `upstream` starts the upstream alone, for a --peer.",
        )
        .args_conflicts_with_subcommands(true)
        .args([
            Arg::new("scenario").value_name("SCENARIO").num_args(0..).help("Only these: B1, B2, …; all of them without any"),
            Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("Shorter runs of what fits into three minutes"),
            option("runs", "N", "How often each scenario runs; the tables show least, median and most"),
            option("soak-minutes", "N", "How long B11 lasts, 30 by default; never part of --quick unless it is named"),
            option("json", "FILE", "Write every number there, as JSON"),
            option("markdown", "FILE", "Write the tables there rather than to standard output"),
            option("svg", "DIR", "Write the plots there"),
            option("readme", "FILE", "Write the capacity into this README.md, between its marks; needs B5 and B6"),
            option("peer", "NAME=URL", "Measure this way too: a URL that leads to the upstream; may be repeated")
                .action(ArgAction::Append),
            option("peer-ca", "FILE", "The CA of peers with https, in PEM"),
            option("without", "COLUMN", "Leave a column out, while looking into another; may be repeated").action(ArgAction::Append),
            option("against", "REV", "Build server and agent of this revision too, and measure them as one more column"),
        ])
        .subcommand(
            clap::Command::new("hot")
                .about("Counts the instructions of hot paths under callgrind (of valgrind); more than 3 % worse than --against fails")
                .args([
                    Arg::new("path").value_name("PATH").num_args(0..).help("Only these: codec, session, headers, request"),
                    option("against", "REV", "Count at this revision too, and compare"),
                ]),
        )
        .subcommand(
            clap::Command::new("upstream")
                .about("Starts the upstream alone, on a fixed port and with its own CA, until Ctrl-C; --help says how")
                // `postern-bench upstream` knows its own.
                .disable_help_flag(true)
                .arg(Arg::new("args").value_name("ARGS").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true)),
        )
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// The verb.
pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    match args.subcommand() {
        Some(("hot", args)) => {
            let paths: Vec<_> = args.get_many::<String>("path").into_iter().flatten().map(String::as_str).collect();
            let skips = Skips::default();
            let result = compare(&paths, args.get_one::<String>("against").map(String::as_str), &skips);
            skips.tell();
            result
        }
        Some((_, args)) => {
            release(&BENCH)?;
            run(Command::new(release_dir()?.join(PROGRAM))
                .arg("upstream")
                .args(args.get_many::<String>("args").into_iter().flatten()))
        }
        None => scenarios(args),
    }
}

/// The short table, as the nightly lane prints it. It asserts no time.
pub(crate) fn quick() -> Result<()> {
    run_verb(&command().get_matches_from(["bench", "--quick"]))
}

/// Options that `postern-bench run` takes as they are.
const PASSED_ON: [&str; 9] = ["runs", "soak-minutes", "json", "markdown", "svg", "readme", "peer", "peer-ca", "without"];

fn scenarios(args: &ArgMatches) -> Result<()> {
    release(&PRODUCT)?;
    release(&BENCH)?;
    let dir = release_dir()?;
    let all = |name| args.get_many::<String>(name).into_iter().flatten();
    let mut command = Command::new(dir.join(PROGRAM));
    command.arg("run").arg("--bin-dir").arg(&dir).args(all("scenario"));
    if args.get_flag("quick") {
        command.arg("--quick");
    }
    for name in PASSED_ON {
        for value in all(name) {
            command.args([format!("--{name}"), value.clone()]);
        }
    }
    for rev in all("against") {
        // The name of a column may become one of a file.
        command.arg("--also").arg(format!("{}={}", rev.replace('/', "-"), product_of(rev)?.display()));
    }
    run(&mut command)
}

/// Server and agent of another revision, built as they ship; gives their folder.
fn product_of(rev: &str) -> Result<PathBuf> {
    let tree = against::Tree::of(rev)?;
    step(&format!("release build of {rev}"), || run(tree.cargo(&["build", "--release", "--bins"]).args(PRODUCT)))?;
    Ok(tree.built.join("release"))
}

fn release(packages: &[&str]) -> Result<()> {
    step("release build", || run(cargo(&["build", "--release", "--bins"]).args(packages)))
}

fn release_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("release"))
}
