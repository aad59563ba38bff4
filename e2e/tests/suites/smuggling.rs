//! The corpus of hostile requests and answers against the programs as they ship, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Plain;
use e2e::corpus::{self, Arrived, Case, FarEnd, Protocol, Then, say};
use tokio::net::TcpStream;

/// Nothing here waits: each case ends with its connection, with both of its streams, or with bytes at the far end.
const QUIET: Duration = Duration::from_secs(10);

/// What passes through a switch is listened for no longer than this: nobody ends it.
const SWITCHED: Duration = Duration::from_millis(200);

/// Plays all cases at both listeners, and all answers.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let far_end = FarEnd::lying();
        let target = far_end.listen().await?;
        let programs = tokio::task::block_in_place(|| Plain::start(target, &[], &[]))?;
        let mut wrong = play_all(&programs, &far_end, target).await?;
        wrong.extend(hear_all(&programs).await?);
        let logs = programs.log_tails(5);
        ensure!(wrong.is_empty(), "{} wrong:\n{}\n{logs}", wrong.len(), wrong.join("\n"));
        Ok(())
    })
}

async fn play_all(programs: &Plain, far_end: &FarEnd, target: SocketAddr) -> Result<Vec<String>> {
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
    let arrived = complete(far_end.take()).into_iter().map(|one| one.judged(Plain::TOKEN, &target.to_string())).collect();
    case.judge(arrived, &reply, false)
}

async fn hear_all(programs: &Plain) -> Result<Vec<String>> {
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
