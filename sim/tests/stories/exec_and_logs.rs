//! Streams that people sit in front of.

use anyhow::Context;
use sim::fabric::Wan;
use sim::story::{Story, Within, millis, secs};
use sim::world::World;

#[test]
fn an_exec_half_closes_both_ways() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN.with_round_trip(millis(100)))).tell(async |s: Story| {
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
    });
}

#[test]
fn an_exec_that_is_left_ends_in_the_pod() {
    World::new().cluster("edge-1", |c| c).tell(async |s: Story| {
        let exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
        anyhow::ensure!(s.api("edge-1").n_execs() == 1);
        drop(exec);
        s.until("no command runs in the pod", || s.api("edge-1").n_execs() == 0).within(secs(1)).await
    });
}
