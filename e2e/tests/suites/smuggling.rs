//! The corpus of hostile requests and answers against the programs as they ship, over real sockets.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::corpus::{self, Arrived, Case, FarEnd, Protocol, Then, say};
use e2e::{Process, free_addr, get, product};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// What the agent presents at the far end.
const TOKEN: &str = "of-the-agent";

/// A debug build on a busy machine takes a few seconds to start.
const READY_MAX: Duration = Duration::from_secs(20);

/// Nothing here waits: each case ends with its connection, with both of its streams, or with bytes at the far end.
const QUIET: Duration = Duration::from_secs(10);

/// What passes through a switch is listened for no longer than this: nobody ends it.
const SWITCHED: Duration = Duration::from_millis(200);

/// A server and an agent, plain on all sides.
struct Programs {
    internal: SocketAddr,
    public: SocketAddr,
    processes: Vec<Process>,
    _dir: TempDir,
}

impl Programs {
    fn start(target: SocketAddr) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
        let (public, internal, health) = (free_addr()?, free_addr()?, free_addr()?);
        let (clusters, token) = (dir.path().join("clusters.json"), dir.path().join("token"));
        fs::write(&clusters, format!(r#"[{{"id": "edge-1", "token": "of-the-tunnel", "targetAddr": "{target}"}}]"#))?;
        fs::write(&token, TOKEN)?;
        let is_ready = |addr, path| move |_: &str| get(addr, path).ok().filter(|answer| answer.status == 200).map(drop);
        let mut command = Command::new(product("postern-server")?);
        command.args(["--addr", &public.to_string(), "--internal-addr", &internal.to_string(), "--clusters"]).arg(&clusters);
        let mut server = Process::start(dir.path(), "server", command)?;
        server.wait_until("health", READY_MAX, is_ready(internal, "/healthz"))?;
        let mut command = Command::new(product("postern-agent")?);
        command.args(["--server", &format!("ws://{public}/connect"), "--allow-insecure-server", "--token", "of-the-tunnel"]);
        command.args(["--target", &target.to_string(), "--plain-target", "--sa-token-path"]).arg(&token);
        command.args(["--health-addr", &health.to_string()]);
        let mut agent = Process::start(dir.path(), "agent", command)?;
        agent.wait_until("readiness", READY_MAX, is_ready(health, "/readyz"))?;
        Ok(Self { internal, public, processes: vec![server, agent], _dir: dir })
    }
}

/// Plays all cases at both listeners, and all answers.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let far_end = FarEnd::lying();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let target = listener.local_addr()?;
        let served = far_end.clone();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move { served.serve(io, Vec::new()).await });
            }
        });
        let programs = tokio::task::block_in_place(|| Programs::start(target))?;
        let mut wrong = play_all(&programs, &far_end, target).await?;
        wrong.extend(hear_all(&programs).await?);
        let logs: String = programs.processes.iter().map(|process| process.log_tail(5)).collect();
        ensure!(wrong.is_empty(), "{} wrong:\n{}\n{logs}", wrong.len(), wrong.join("\n"));
        Ok(())
    })
}

async fn play_all(programs: &Programs, far_end: &FarEnd, target: SocketAddr) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for case in corpus::requests()? {
        // Nobody would end what waits for more.
        if case.then != Then::Swallowed {
            let result = play(programs.internal, far_end, &case, target).await;
            wrong.extend(result.err().map(|error| format!("[{}] {error:#}", case.name)));
        }
        let mut io = TcpStream::connect(programs.public).await?;
        say(&mut io, &case.said_with_next(), SWITCHED, |bytes| !bytes.is_empty()).await;
        let arrived = complete(far_end.take());
        if !arrived.is_empty() {
            wrong.push(format!("[{}] by the agents' door: {arrived:?}", case.name));
        }
    }
    Ok(wrong)
}

async fn play(internal: SocketAddr, far_end: &FarEnd, case: &Case, target: SocketAddr) -> Result<()> {
    let mut io = TcpStream::connect(internal).await.context("dial")?;
    let quiet = if case.then == Then::Switched { SWITCHED } else { QUIET };
    let reply = say(&mut io, &case.said_with_next(), quiet, |bytes| case.has_all(bytes)).await;
    drop(io);
    let arrived = complete(far_end.take()).into_iter().map(|one| one.judged(TOKEN, &target.to_string())).collect();
    case.judge(arrived, &reply, false)
}

async fn hear_all(programs: &Programs) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (case, number) in corpus::answers()?.iter().zip(0..) {
        for method in ["GET", "POST"] {
            let mut io = TcpStream::connect(programs.internal).await.context("dial")?;
            let result = case.hear(&mut io, (number, method, Protocol::Http1), QUIET).await;
            wrong.extend(result.err().map(|error| format!("[{}] {method}: {error:#}", case.name)));
        }
    }
    Ok(wrong)
}

/// What came whole: when the end of what broke off is seen is a matter of luck.
fn complete(arrived: Vec<Arrived>) -> Vec<Arrived> {
    arrived.into_iter().filter(|one| !matches!(one, Arrived::Part(_))).collect()
}
