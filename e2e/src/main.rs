//! `postern-pair`: two kind clusters with what is shipped, for people to look at, until Ctrl-C. `cargo xtask dev --kind` starts it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal, which drives real clusters in real time"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::{Images, Names, Shipped, Source, Way, delete_kind_cluster, requirement};

/// How often it looks whether the way still leads anywhere; who waits for kubectl does not notice.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["--down"] => {
            down();
            Ok(())
        }
        ["--once", folder] => up(Path::new(folder), true),
        [folder] if !folder.starts_with('-') => up(Path::new(folder), false),
        _ => bail_usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-pair: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bail_usage() -> Result<()> {
    bail!("usage: postern-pair [--once] FOLDER | --down")
}

/// Removes what an earlier run may have left.
fn down() {
    for name in Names::for_people().kind_clusters() {
        delete_kind_cluster(&name);
    }
}

/// Makes the pair, writes three kubeconfigs into `folder`, and stays; with `once` it leaves after the first request.
fn up(folder: &Path, once: bool) -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());
    let programs = (requirement::kubectl().context("this takes kubectl")?, requirement::helm().context("this takes helm")?);
    let source = || requirement::kind().map(|image| Source::Kind { image }).context("this takes kind and docker");
    let sources = (source()?, source()?);
    tell("making two kind clusters, which takes a minute or two");
    let names = (Names::for_people(), Images::named());
    let prepared = Shipped::prepare(&sources, (&programs.0, &programs.1), names, &tell);
    let mut shipped = prepared.context("`cargo xtask dev --kind --down` removes what an earlier one has left")?;
    shipped.upgrade_server()?;
    tell("hub: helm has installed the server");
    shipped.upgrade_agent()?;
    tell("edge: helm has installed the agent, and it has connected");
    let mut way = shipped.way()?;
    let version = way.kubectl.raw("/version")?;
    tell("a first request has gone all the way round");
    if once {
        println!("ready: {version}");
        return Ok(());
    }
    println!("{}", hints(&write(folder, &shipped, &way)?));
    // Ctrl-C ends this process where it stands, after it has deleted both clusters.
    loop {
        sleep(LOOK_EVERY);
        if !way.is_open() {
            // The server's pod was replaced, say: the next one serves at the same port.
            match shipped.way_at(way.port) {
                Ok(next) => way = next,
                Err(_) => sleep(LOOK_EVERY),
            }
        }
    }
}

fn write(folder: &Path, shipped: &Shipped, way: &Way) -> Result<[PathBuf; 3]> {
    fs::create_dir_all(folder)?;
    let ways = [("hub", &shipped.hub.admin), ("edge", &shipped.edge.admin), ("through", &way.kubectl)];
    let mut files = [const { PathBuf::new() }; 3];
    for (file, (name, kubectl)) in files.iter_mut().zip(ways) {
        *file = folder.join(format!("{name}.kubeconfig"));
        fs::copy(kubectl.kubeconfig(), &*file).with_context(|| file.display().to_string())?;
    }
    Ok(files)
}

fn hints([hub, edge, through]: &[PathBuf; 3]) -> String {
    let (hub, edge, through) = (hub.display(), edge.display(), through.display());
    format!(
        "\nready:\n  \
         export KUBECONFIG={hub}      # the hub\n  \
         export KUBECONFIG={edge}     # the edge, directly\n  \
         export KUBECONFIG={through}  # the edge, through the hub\n\n\
         kubectl --kubeconfig {through} get pods -A\n\
         kubectl --kubeconfig {hub} -n argocd get secrets -l argocd.argoproj.io/secret-type=cluster\n\
         kubectl --kubeconfig {hub} -n proxy-system logs deploy/proxy-server -f\n\
         Ctrl-C removes both clusters.\n"
    )
}
