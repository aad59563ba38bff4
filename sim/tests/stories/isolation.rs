//! Neighbours on one slow line: a terminal, a log and a small question beside bulk that never ends.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use sim::caller::Answer;
use sim::fabric::Wan;
use sim::kubectl::Exec;
use sim::promise::{NO_TURNS, Promise::Nothing};
use sim::story::{Story, Within, kib, mib, millis, secs};
use sim::world::World;
use tokio::time::Instant;

/// What may lie below the scheduler when somebody more urgent comes: the kernel's unsent bytes and one batch.
const UNSENT_MAX: u64 = kib(64);

/// The steps of a question and its answer over three ways, each rounded up to the grain of the timers.
const GRAINS: Duration = millis(20);

/// How slow each neighbour was at worst.
#[derive(Debug, Default)]
struct Worst {
    echo: Duration,
    log: Duration,
    get: Duration,
}

impl Worst {
    /// Claims that nobody waited longer than a round trip behind what may wait before them on the line.
    fn expect_bounded(&self, wan: Wan) -> anyhow::Result<()> {
        let ahead = UNSENT_MAX + wan.queue_bytes as u64;
        let bound = wan.round_trip() + Duration::from_secs_f64(ahead as f64 / wan.up as f64) + GRAINS;
        anyhow::ensure!(self.echo <= bound && self.log <= bound && self.get <= bound, "beyond {bound:?}: {self:?}");
        Ok(())
    }
}

/// A small line to a factory, an ocean, a train with a modem that queues a lot.
const WAYS: [Wan; 3] = [
    Wan::LAN.with_bytes_per_second(2_500_000).with_round_trip(millis(40)),
    Wan::LAN.with_bytes_per_second(12_500_000).with_round_trip(millis(100)),
    Wan::LAN.with_bytes_per_second(2_500_000).with_round_trip(millis(60)).with_queue(kib(256) as usize),
];

#[test]
fn neighbours_of_bulk_wait_no_longer_than_what_lies_below_the_scheduler() {
    for wan in WAYS {
        World::new()
            .cluster("edge-1", |c| c.over(wan))
            .version_1(Nothing(NO_TURNS), Nothing(NO_TURNS))
            .tell(async |s: Story| beside_bulk(&s).await?.expect_bounded(wan));
    }
}

#[test]
fn neighbours_of_bulk_wait_for_all_that_a_kernel_takes_unless_it_is_told_to_take_little() {
    let wan = WAYS[0].with_notsent_lowat(mib(4) as usize);
    let (told, _) =
        World::new().cluster("edge-1", |c| c.over(wan)).play(async |s: Story| beside_bulk(&s).await?.expect_bounded(wan));
    let told = told.err().map(|failure| failure.to_string()).unwrap_or_default();
    assert!(told.contains("beyond "), "the claim of the story before does not hang on the kernel: {told}");
}

/// Four lists that never end, beside them an exec that echoes, a log that is followed and small questions.
async fn beside_bulk(s: &Story) -> anyhow::Result<Worst> {
    let (argo, kubectl) = (s.argocd(), s.kubectl());
    let mut exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(5)).await?;
    let log = "/api/v1/namespaces/default/pods/web-0/log?follow=true&tailLines=1";
    let log = s.start(worst_line(kubectl.get("edge-1", log).open().within(secs(5)).await?));
    kubectl.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
    for _ in 0..4 {
        let bulk = argo.get("edge-1", "/bulk?bytes=1000000000").open().within(secs(5)).await?;
        drop(s.start(bulk.read_out(None)));
    }
    s.pass(secs(1)).await;
    let (began, before) = (Instant::now(), s.fabric().n_bytes("edge-1", "hub"));
    let mut worst = Worst::default();
    for _ in 0..8 {
        let typed_at = Instant::now();
        exec.write(b"x").await?;
        echoed(&mut exec).within(secs(10)).await?;
        worst.echo = worst.echo.max(typed_at.elapsed());
        worst.get = worst.get.max(kubectl.get("edge-1", "/version").within(secs(10)).await?.expect(StatusCode::OK)?.took);
        // Not in step with the bulk's frames.
        s.pass(millis(37)).await;
    }
    worst.log = log.within(secs(10)).await??;
    let rate = (s.fabric().n_bytes("edge-1", "hub") - before) as f64 / began.elapsed().as_secs_f64();
    s.note(&format!("{rate:.0} bytes per second of bulk, {worst:?}"));
    anyhow::ensure!(rate > 0.9 * s.fabric().way("hub", "edge-1").up as f64, "{rate:.0} bytes per second are no bulk");
    Ok(worst)
}

/// How late the latest of the next lines was: one comes each second.
async fn worst_line(mut log: Answer) -> anyhow::Result<Duration> {
    log.line().await?.context("a log without a line")?;
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        let before = Instant::now();
        log.line().await?.context("the log ended")?;
        worst = worst.max(before.elapsed().saturating_sub(secs(1)));
    }
    Ok(worst)
}

/// Waits for a character on stdout; the greetings of the channels are empty.
async fn echoed(exec: &mut Exec) -> anyhow::Result<()> {
    while !matches!(exec.read().await?.context("the terminal is closed")?, (1, bytes) if !bytes.is_empty()) {}
    Ok(())
}
