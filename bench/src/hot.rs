//! `postern-bench hot`: one hot path, so many times, in one thread, for callgrind to count the instructions of.
//!
//! Start-up and end cost the same however often the path is taken, so that two runs of different counts tell what one
//! iteration costs. Nothing here measures time.

mod cables;
mod codec;
mod headers;
mod request;
mod session;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// One hot path.
struct HotPath {
    name: &'static str,
    what: &'static str,
    /// How many iterations make a count that one more or less does not change, in seconds under callgrind.
    iterations: u64,
    run: fn(u64) -> Result<()>,
}

const PATHS: [HotPath; 5] = [
    HotPath { name: "codec", what: "encodes and decodes Data frames, an Open and a Credit", iterations: 2000, run: codec::run },
    HotPath { name: "session", what: "carries 64 KiB each way on one stream of a pair", iterations: 500, run: session::run },
    HotPath {
        name: "headers",
        what: "reads and cleans the heads of one LIST and its answer",
        iterations: 2000,
        run: headers::run,
    },
    HotPath { name: "request", what: "sends one GET through a server and an agent", iterations: 1000, run: request::run },
    HotPath {
        name: "audited",
        what: "sends one GET with an audit log at both ends, on disks that cost nothing",
        iterations: 1000,
        run: request::run_audited,
    },
];

pub(crate) fn command() -> Command {
    Command::new("hot")
        .about("Takes one hot path so many times, for callgrind to count; `cargo xtask bench hot` does")
        .arg(Arg::new("path").value_name("PATH").help("Which, see --list").required_unless_present("list"))
        .arg(
            Arg::new("count")
                .value_name("COUNT")
                .help("How many times")
                .required_unless_present("list")
                .value_parser(value_parser!(u64)),
        )
        .arg(
            Arg::new("list")
                .long("list")
                .help("Print each path: its name, how many iterations make a good count, and what it does")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["path", "count"]),
        )
}

pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    if args.get_flag("list") {
        for HotPath { name, what, iterations, .. } in &PATHS {
            println!("{name} {iterations} {what}");
        }
        return Ok(());
    }
    let name = args.get_one::<String>("path").context("no path was named")?;
    let count = *args.get_one::<u64>("count").context("no count was given")?;
    ensure!(count > 0, "nothing is to be done 0 times");
    let path = PATHS.iter().find(|path| path.name == name);
    let path = path.with_context(|| format!("no hot path is called {name}; `postern-bench hot --list` prints them"))?;
    // As the programs log: a line for each request is part of what it costs.
    host::init_logging(host::LogLevel::Info);
    (path.run)(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_can_be_taken_once_and_again() {
        for path in &PATHS {
            for count in [1, 3] {
                (path.run)(count).unwrap_or_else(|error| panic!("{} {count}: {error:#}", path.name));
            }
        }
    }
}
