//! `postern-sim`: the fake Kubernetes API server and the caller as processes of their own, and certificates to try a pair with.

mod cli;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use host::{Host, LogLevel};
use sim::apiserver::{ApiServer, Options, Tls};
use sim::argocd::Outside;
use sim::certs::Authority;
use tokio::signal::unix::{SignalKind, signal};

use cli::{ApiServerArgs, CallerArgs, Command};

/// EX_USAGE of sysexits.h: the command line, or a file that it names, is wrong.
const USAGE: u8 = 64;

/// The names under which a pair on one machine is reached.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

fn main() -> ExitCode {
    // An error means that a provider is installed already; there is only one in this program.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // Nobody reads a message that cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    host::init_logging(LogLevel::Info);
    let result = match command {
        Command::Certs { out, names } => write_certs(Path::new(&out), &names),
        Command::ApiServer(args) => serve(args),
        Command::Caller(args) => call(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "postern-sim ends");
            ExitCode::from(USAGE)
        }
    }
}

fn write_certs(dir: &Path, more_names: &[String]) -> anyhow::Result<()> {
    let authority = Authority::new(Host::real().wall_clock())?;
    let names: Vec<_> = LOCAL_NAMES.into_iter().chain(more_names.iter().map(String::as_str)).collect();
    let files = [
        ("ca", authority.pem()),
        ("server", authority.server("postern-server", &names)?),
        ("agent", authority.client("dev agent")?),
        ("apiserver", authority.server("kube-apiserver", &names)?),
    ];
    fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    for (name, pem) in files {
        write_private(&dir.join(format!("{name}.key")), &pem.key)?;
        let path = dir.join(format!("{name}.pem"));
        fs::write(&path, pem.certificate).with_context(|| format!("failed to write {}", path.display()))?;
    }
    tracing::info!(dir = %dir.display(), "certificates written");
    Ok(())
}

#[tokio::main]
async fn serve(args: ApiServerArgs) -> anyhow::Result<()> {
    let host = Host::real();
    let tls = match (args.cert, args.key) {
        (Some(cert), Some(key)) => {
            let cert = host.read_file(&cert).with_context(|| format!("--cert {cert}"))?;
            let key = host.read_file(&key).with_context(|| format!("--key {key}"))?;
            Some(Tls::new(&cert, &key).context("--cert, --key")?)
        }
        _ => None,
    };
    let listener = host.listen(args.addr).await.with_context(|| format!("failed to listen on {}", args.addr))?;
    let addr = listener.local_addr();
    let token = args.token_file.as_deref().map(|path| token(&host, path)).transpose()?;
    let options = Options { token, pods: args.pods, history_len: args.history_len, ..Options::default() };
    let server = ApiServer::new(host.clone(), options);
    let mut terminated = signal(SignalKind::terminate())?;
    tracing::info!(%addr, tls = tls.is_some(), "listening");
    tokio::select! {
        biased;
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        () = server.listen_and_serve(listener, tls) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

#[tokio::main]
async fn call(args: CallerArgs) -> anyhow::Result<()> {
    let caller = Outside::new(Host::real(), &args.hub, &args.cluster, &args.namespace)?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        () = caller.play(Duration::from_secs(1) / args.requests_per_second) => {}
    }
    Ok(())
}

/// The token in a file, which is written with a fresh one if there is none.
fn token(host: &Host, path: &str) -> anyhow::Result<String> {
    match host.read_file(path) {
        Ok(bytes) => Ok(String::from_utf8(bytes).with_context(|| format!("--token-file {path}"))?.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = format!("{:016x}{:016x}", host.chance(), host.chance());
            // Whoever waits for the file must find it whole.
            let partial = format!("{path}.partial");
            write_private(Path::new(&partial), &token)?;
            fs::rename(&partial, path).with_context(|| format!("failed to write {path}"))?;
            Ok(token)
        }
        Err(error) => Err(error).with_context(|| format!("failed to read --token-file {path}")),
    }
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // An older file would keep its own mode.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("failed to replace {}", path.display()));
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("failed to write {}", path.display()))?;
    file.write_all(content.as_bytes()).with_context(|| format!("failed to write {}", path.display()))
}
