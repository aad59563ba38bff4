//! Streams that people sit in front of.

use anyhow::Context;
use serde_json::json;
use sim::fabric::Wan;
use sim::kubectl::Forwarded;
use sim::promise::NO_CREDIT;
use sim::promise::Promise::{Less, Nothing, Same};
use sim::story::{Story, Within, kib, millis, minutes, secs};
use sim::world::World;

#[test]
fn an_exec_half_closes_both_ways() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN.with_round_trip(millis(100)))).version_1(Same, Same).tell(
        async |s: Story| {
            let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
            exec.write(b"before, ").await?;
            exec.write(b"and the last word").await?;
            exec.close_stdin().await?;
            let mut said = Vec::new();
            let mut ending = Vec::new();
            while let Some((channel, bytes)) = exec.read().within(secs(2)).await? {
                match channel {
                    1 => said.extend_from_slice(&bytes),
                    3 => ending.extend_from_slice(&bytes),
                    _ => anyhow::bail!("channel {channel} said {bytes:?}"),
                }
            }
            anyhow::ensure!(said == b"before, and the last word", "{}", String::from_utf8_lossy(&said));
            let ending = String::from_utf8(ending).context("an ending that is no text")?;
            anyhow::ensure!(ending.contains("Success"), "{ending}");
            Ok(())
        },
    );
}

#[test]
fn an_exec_that_is_left_ends_in_the_pod() {
    World::new().cluster("edge-1", |c| c).version_1(Less("the command ends with the session"), Same).tell(async |s: Story| {
        let exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
        anyhow::ensure!(s.api("edge-1").n_execs() == 1);
        drop(exec);
        if s.claims_less() {
            s.pass(secs(1)).await;
            s.crash("edge-1/agent");
            s.restart("edge-1/agent");
        }
        s.until("no command runs in the pod", || s.api("edge-1").n_execs() == 0).within(secs(1)).await
    });
}

#[test]
fn a_port_forward_moves_bytes_both_ways_and_ends_cleanly() {
    World::new()
        .cluster("edge-1", |c| c.over(Wan::OCEAN.with_round_trip(millis(100))))
        .version_1(Less("the far end's close is not told to the caller"), Same)
        .tell(async |s: Story| {
            let mut forward = s.kubectl().port_forward("edge-1", "web-0", &[7, 80]).within(secs(2)).await?;
            // Two conversations over one connection, each on its own channels.
            let piece = vec![b'p'; 10_000];
            for _ in 0..20 {
                forward.write(7, &piece).await?;
            }
            forward.write(80, b"GET / HTTP/1.1\r\nhost: pod\r\n\r\n").await?;
            let (mut n_echoed, mut page) = (0, Vec::new());
            while n_echoed < 200_000 || !page.ends_with(b"a page from inside\n") {
                match forward.read().within(secs(2)).await?.context("the forward has ended")? {
                    Forwarded::Data(7, bytes) => n_echoed += bytes.iter().filter(|byte| **byte == b'p').count(),
                    Forwarded::Data(_, bytes) => page.extend_from_slice(&bytes),
                    Forwarded::Error(port, why) => anyhow::bail!("port {port}: {why}"),
                }
            }
            anyhow::ensure!(n_echoed == 200_000 && page.starts_with(b"HTTP/1.1 200 OK\r\n"), "{n_echoed} bytes came back");
            let closed = forward.close().within(secs(2)).await;
            if !s.claims_less() {
                closed?;
            }
            s.until("nothing is forwarded in the pod", || s.api("edge-1").n_execs() == 0).within(secs(1)).await
        });
}

#[test]
fn a_port_that_ends_or_refuses_says_so_and_nothing_is_lost_before() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        let mut forward = s.kubectl().port_forward("edge-1", "web-0", &[81, 80]).within(secs(2)).await?;
        let refused = forward.read().within(secs(1)).await?;
        let says_so = |why: &str| why.contains("connection refused");
        anyhow::ensure!(matches!(&refused, Some(Forwarded::Error(81, why)) if says_so(why)), "{refused:?}");
        forward.write(80, b"GET / HTTP/1.1\r\nhost: pod\r\n\r\n").await?;
        let page = forward.read().within(secs(1)).await?;
        let is_whole = |bytes: &[u8]| bytes.ends_with(b"a page from inside\n");
        anyhow::ensure!(matches!(&page, Some(Forwarded::Data(80, bytes)) if is_whole(bytes)), "{page:?}");
        // Both ports are done, so the far end closes, and the close arrives as one.
        anyhow::ensure!(forward.read().within(secs(1)).await?.is_none());
        Ok(())
    });
}

#[test]
fn a_port_forward_ends_visibly_when_its_agent_dies() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let mut forward = s.kubectl().port_forward("edge-1", "web-0", &[7]).within(secs(2)).await?;
        forward.write(7, b"are you there?").await?;
        forward.read().within(secs(1)).await?.context("no echo")?;
        s.crash("edge-1/agent");
        let broken = forward.read().within(secs(1)).await;
        anyhow::ensure!(broken.is_err(), "a forward that lost its agent ended cleanly: {broken:?}");
        s.restart("edge-1/agent");
        Ok(())
    });
}

#[test]
fn a_log_goes_on_after_a_short_cut_without_loss() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Same).tell(async |s: Story| {
        let log = s.kubectl().logs_follow("edge-1", "web-0").start().within(secs(2)).await?;
        s.pass(secs(3)).await;
        let cut = s.cut("hub", "edge-1");
        s.pass(secs(1)).await;
        let n_before = log.n_lines();
        s.pass(secs(4)).await;
        anyhow::ensure!(log.n_lines() == n_before, "lines came through a cut");
        drop(cut);
        // Ten lines were there, and one was added each second, cut or not.
        s.until("no line is missing", || log.n_lines() >= 17).within(secs(3)).await?;
        log.expect_still_open()
    });
}

#[test]
fn a_log_ends_visibly_when_its_agent_dies() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let log = s.kubectl().logs_follow("edge-1", "web-0").start().within(secs(2)).await?;
        s.until("a line was followed", || log.n_lines() > 10).within(secs(3)).await?;
        s.crash("edge-1/agent");
        s.until("the log has ended", || log.end().is_some()).within(secs(1)).await?;
        let end = log.end().unwrap_or_default();
        anyhow::ensure!(end.contains("aborted"), "the log ended {end}");
        s.restart("edge-1/agent");
        Ok(())
    });
}

#[test]
fn a_log_tail_does_not_starve_a_list() {
    let world = World::new().cluster("ship-7", |c| c.over(Wan::SATELLITE.with_bytes_per_second(250_000)).pods(1000));
    world.version_1(Nothing(NO_CREDIT), Nothing(NO_CREDIT)).tell(async |s: Story| {
        let (argo, kubectl) = (s.argocd(), s.kubectl());
        let list = async || anyhow::Ok(argo.get("ship-7", "/api/v1/pods").open().await?.read_out(None).await?.took);
        let alone = list().within(minutes(1)).await?;
        // More than the link carries, for somebody who reads a hundredth of it.
        let annotations = json!({ "sim.example.com/lines-per-second": "100", "sim.example.com/line-bytes": "4000" });
        let spec = json!({ "containers": [{ "name": "engine", "image": "example.com/engine:1" }] });
        s.api("ship-7").put("pods", "default", "engine", json!({ "metadata": { "annotations": annotations }, "spec": spec }));
        let tail = kubectl.logs_follow("ship-7", "engine").slow_reader(kib(8)).start().within(secs(5)).await?;
        s.pass(secs(30)).await;
        let beside = list().within(minutes(1)).await?;
        anyhow::ensure!(beside < alone * 3 / 2, "a list took {beside:?} beside a log, and {alone:?} alone");
        let n_bytes = tail.n_bytes() as u64;
        anyhow::ensure!((kib(100)..kib(600)).contains(&n_bytes), "the slow reader has read {n_bytes} bytes");
        tail.expect_still_open()
    });
}
