//! `postern-bench run`: plays the scenarios, each for every column in turn, and writes what came of it.

mod ask;
mod capacity;
mod column;
mod fleet;
mod machine;
mod markdown;
mod nginx;
mod place;
mod plot;
mod process;
mod report;
mod scenarios;
mod slope;
mod stage;
mod stop;
mod tally;
mod usage;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use column::Kind;
use machine::Machine;
use place::Place;
use report::{POSTERN, Report, Verdict};
use scenarios::{ALL, Scenario};
use stage::{Plan, Stage};
use stop::Stop;

/// Where the upstream listens when a peer has to find it: what `postern-bench upstream` takes, too.
const PEERS_UPSTREAM: &str = "127.0.0.1:16443";

pub(crate) fn command() -> Command {
    let list = ALL.iter().map(|scenario| format!("  {:<4} {}\n", scenario.id, scenario.about)).collect::<String>();
    Command::new("run")
        .about("Plays scenarios for every column in turn; all of them, if none is named")
        .after_help(format!("Scenarios:\n{list}"))
        .arg(Arg::new("scenario").num_args(0..).help("Which ones, such as B1 B3"))
        .arg(flag("quick").action(ArgAction::SetTrue).help("Shorter runs of the scenarios that fit into three minutes"))
        .arg(flag("runs").value_name("N").value_parser(value_parser!(u64)).help("Runs of each scenario"))
        .arg(
            flag("soak-minutes")
                .value_name("N")
                .value_parser(value_parser!(u64).range(5..))
                .help("How long B11 lasts [default: 30]"),
        )
        .arg(file("json").value_name("FILE").help("Write everything that was measured"))
        .arg(file("markdown").value_name("FILE").help("Write the tables, which otherwise go to standard output"))
        .arg(file("svg").value_name("DIR").help("Write plots"))
        .arg(file("readme").value_name("FILE").help("Write the capacity into this README.md, between its marks; needs B5 and B6"))
        .arg(file("bin-dir").value_name("DIR").help("The release binaries that are measured [default: where this one lies]"))
        .arg(pair("also").value_name("NAME=DIR").help("Another build of Postern as one more column"))
        .arg(pair("peer").value_name("NAME=URL").help("A URL that leads to the upstream as one more column"))
        .arg(file("peer-ca").value_name("FILE").help("The CA of peers with https, in PEM"))
        .arg(pair("without").value_name("COLUMN").help("Leave a column out, while looking into another"))
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

fn file(name: &'static str) -> Arg {
    flag(name).value_parser(value_parser!(PathBuf))
}

fn pair(name: &'static str) -> Arg {
    flag(name).action(ArgAction::Append)
}

pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    let [runs, soak_minutes] = ["runs", "soak-minutes"].map(|name| args.get_one::<u64>(name).copied());
    let plan = Plan { quick: args.get_flag("quick"), runs: runs.map(|n| n as usize), soak_minutes };
    let scenarios = chosen(args, plan.quick)?;
    let nginx = nginx::version();
    let kinds = columns(args, nginx.is_some())?;
    if nginx.is_none() {
        eprintln!("!!! nginx is not installed. Without its column the table is NO RESULT: apt-get install nginx-light");
    }
    if cfg!(debug_assertions) {
        eprintln!("!!! A debug build: the numbers mean nothing. `cargo xtask bench` builds for release.");
    }
    let place = Place::prepare(&bin_dir(args)?, Stop::on_signals()?)?;
    let address = upstream_address(&kinds)?;
    let mut stage = Stage::set(place, plan, kinds, address)?;

    let mut report = Report {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        machine: Machine::here(),
        commit: machine::commit(),
        nginx,
        debug_build: cfg!(debug_assertions),
        quick: plan.quick,
        command: repeat(std::env::args().skip(2)),
        columns: stage.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        rows: Vec::new(),
        costs: Vec::new(),
        troubles: Vec::new(),
    };
    for scenario in scenarios {
        stage.scenario = scenario.id;
        match (scenario.play)(&mut stage) {
            Ok(rows) => report.rows.extend(rows),
            Err(error) => {
                stage.place.stop.check()?;
                stage.trouble(format!("{}: {error:#}", scenario.id));
            }
        }
    }
    report.costs = std::mem::take(&mut stage.costs);
    report.troubles = std::mem::take(&mut stage.troubles);
    // The processes end before anything can go wrong with the files.
    drop(stage);
    write(args, &report)
}

/// The scenarios that are named, or all that the plan has time for.
fn chosen(args: &ArgMatches, quick: bool) -> Result<Vec<&'static Scenario>> {
    let Some(names) = args.get_many::<String>("scenario") else {
        return Ok(ALL.iter().filter(|scenario| scenario.quick || !quick).collect());
    };
    let find = |name: &String| {
        let found = ALL.iter().find(|scenario| scenario.id.eq_ignore_ascii_case(name));
        found.with_context(|| format!("no scenario {name}; there are {}", ALL.map(|scenario| scenario.id).join(", ")))
    };
    names.map(find).collect()
}

/// All columns; the build that is measured first.
fn columns(args: &ArgMatches, has_nginx: bool) -> Result<Vec<Kind>> {
    let pairs = |name| {
        let given = args.get_many::<String>(name).into_iter().flatten();
        given.map(move |pair| pair.split_once('=').with_context(|| format!("--{name} {pair}: NAME=… is meant")))
    };
    let mut kinds = vec![Kind::Postern { name: POSTERN.to_owned(), bins: bin_dir(args)? }];
    if has_nginx {
        kinds.push(Kind::Nginx);
    }
    kinds.push(Kind::Direct);
    for pair in pairs("also") {
        let (name, dir) = pair?;
        kinds.push(Kind::Postern { name: name.to_owned(), bins: dir.into() });
    }
    let ca = args.get_one::<PathBuf>("peer-ca");
    let ca = ca.map(|file| file.display().to_string());
    for pair in pairs("peer") {
        let (name, url) = pair?;
        kinds.push(Kind::Peer { name: name.to_owned(), url: url.to_owned(), ca: ca.clone() });
    }
    let without: Vec<&String> = args.get_many("without").into_iter().flatten().collect();
    kinds.retain(|kind| !without.iter().any(|name| *name == kind.name()));
    let mut names: Vec<&str> = kinds.iter().map(Kind::name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two columns are named {}", twice[0]);
    }
    Ok(kinds)
}

/// Where our upstream listens, if that matters: where peers look for it, unless somebody started one for them there.
fn upstream_address(kinds: &[Kind]) -> Result<Option<SocketAddr>> {
    if !kinds.iter().any(|kind| matches!(kind, Kind::Peer { .. })) {
        return Ok(None);
    }
    let address = PEERS_UPSTREAM.parse()?;
    if TcpStream::connect(address).is_ok() {
        eprintln!("Peers lead to the upstream that is on {address} already; its CPU time is not counted.");
        return Ok(None);
    }
    Ok(Some(address))
}

fn bin_dir(args: &ArgMatches) -> Result<PathBuf> {
    if let Some(dir) = args.get_one::<PathBuf>("bin-dir") {
        return Ok(std::path::absolute(dir)?);
    }
    let program = std::env::current_exe()?;
    Ok(program.parent().context("a program lies in a folder")?.to_owned())
}

/// The command line that people type, without where its files went.
fn repeat(args: impl IntoIterator<Item = String>) -> String {
    let mut kept = vec!["cargo xtask bench".to_owned()];
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bin-dir" | "--json" | "--svg" | "--markdown" | "--readme" => drop(args.next()),
            // People name a revision, and xtask builds it.
            "--also" => {
                let pair = args.next().unwrap_or_default();
                kept.push(format!("--against {}", pair.split('=').next().unwrap_or_default()));
            }
            _ => kept.push(arg),
        }
    }
    kept.join(" ")
}

fn write(args: &ArgMatches, report: &Report) -> Result<()> {
    let file = |name| args.get_one::<PathBuf>(name);
    let save = |path: &Path, text: String| fs::write(path, text).with_context(|| path.display().to_string());
    if let Some(path) = file("json") {
        save(path, serde_json::to_string_pretty(report)? + "\n")?;
    }
    if let Some(dir) = file("svg") {
        plot::write(report, dir)?;
    }
    if let Some(path) = file("readme") {
        let readme = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        save(path, capacity::rewrite(&readme, &capacity::section(report)?)?)?;
    }
    let text = markdown::report(report);
    match file("markdown") {
        Some(path) => save(path, text)?,
        None => println!("{text}"),
    }
    let count = |verdict| report.rows.iter().filter(|row| row.verdict == verdict).count();
    let [met, missed, unknown] = [Verdict::Met, Verdict::Missed, Verdict::NoResult].map(count);
    eprintln!("{met} bars met, {missed} missed, {unknown} without a result; {} troubles", report.troubles.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(args: &[&str]) -> ArgMatches {
        let fixed = ["run", "--bin-dir", "/bins"];
        command().get_matches_from(fixed.iter().chain(args))
    }

    #[test]
    fn a_run_is_repeated_without_the_files_that_it_wrote() {
        let args = ["B1", "--json", "x.json", "--quick", "--bin-dir", "/bins", "--also", "v1=/old"].map(str::to_owned);
        assert_eq!(repeat(args), "cargo xtask bench B1 --quick --against v1");
    }

    #[test]
    fn scenarios_are_found_whatever_their_case_and_a_wrong_one_is_told_what_there_is() {
        let ids = |args: &[&str]| chosen(&matches(args), false).map(|found| found.iter().map(|one| one.id).collect::<Vec<_>>());
        assert_eq!(ids(&["b3", "B1"]).unwrap(), ["B3", "B1"]);
        assert_eq!(ids(&[]).unwrap().len(), ALL.len());
        assert!(ids(&["b99"]).unwrap_err().to_string().contains("B1, B2"));
    }

    #[test]
    fn columns_are_those_at_hand_and_those_that_are_brought() {
        let names = |args: &[&str], has_nginx| {
            let kinds = columns(&matches(args), has_nginx)?;
            Ok::<_, anyhow::Error>(kinds.iter().map(|kind| kind.name().to_owned()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&[], false).unwrap(), "postern direct");
        let brought = ["--also", "old=/old", "--peer", "tunnel=http://localhost:1", "--without", "direct"];
        assert_eq!(names(&brought, true).unwrap(), "postern nginx old tunnel");
        assert!(names(&["--also", "nginx=/old"], true).is_err());
    }
}
