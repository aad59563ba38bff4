//! Streams through what is shipped: exec, logs that go on, port-forward.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ASKED, Shipped, get};

use crate::Stage;

/// For what happens within a second or two: the next line of a log, kubectl's word that it listens.
const SOON: Duration = Duration::from_secs(30);

/// What goes through standard input and back; many times every window and buffer on the way.
const THROUGH_STDIN: usize = 20 << 20;

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage, all: bool) {
    stage.step("exec -i with 20 MiB through stdin and back", exec);
    if all {
        stage.step("logs -f", logs);
        stage.step("port-forward carries HTTP both ways", port_forward);
    }
}

fn exec(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let sent: Vec<u8> = (0..THROUGH_STDIN as u32 / 4).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let output = way.kubectl.run(&["exec", "-i", ASKED, "--", "cat"], &sent)?;
    ensure!(output.code == Some(0), "exit code {:?}: {}", output.code, output.stderr);
    ensure!(output.stdout.len() == sent.len(), "{} of {} bytes came back", output.stdout.len(), sent.len());
    ensure!(output.stdout == sent, "as many bytes came back as were sent, but others");
    let output = way.kubectl.run(&["exec", ASKED, "--", "sh", "-c", "echo out; exit 7"], b"")?;
    ensure!(output.code == Some(7) && output.text() == "out\n", "{output:?}");
    Ok(())
}

fn logs(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let mut logs = way.kubectl.start(shipped.dir(), "logs", &["logs", "-f", ASKED])?;
    logs.wait_for_line("line 1", SOON)?;
    // What is said from here on can only arrive by following.
    let so_far = logs.log().lines().count();
    logs.wait_until("two more lines", SOON, |log| (log.lines().count() >= so_far + 2).then_some(()))
}

fn port_forward(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let mut forward = way.kubectl.start(shipped.dir(), "forward", &["port-forward", &format!("pod/{ASKED}"), ":8080"])?;
    let said = forward.wait_for_line("Forwarding from 127.0.0.1:", SOON)?;
    let port: u16 = said.split(':').nth(1).and_then(|rest| rest.split(' ').next()).context("a port")?.parse()?;
    let answer = get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "/hostname")?;
    ensure!(answer.status == 200 && answer.text().trim() == ASKED, "{}: {}", answer.status, answer.text());
    Ok(())
}
