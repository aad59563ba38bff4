//! Separate hosts: what the network, the power and the scheduler of real machines do to sessions, and that they come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Call, Fleet, HUB, Suite, wait_for};

/// The clusters of the fleet; each suffers on its own.
pub(crate) const CLUSTERS: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

/// Routable 5 s and six round trips after healing is the goal; the rest is for a busy machine, whose clocks nobody checks here.
const BACK_MAX: Duration = Duration::from_secs(15);

/// Whatever happens to a cluster is told within this.
const SHOWN_MAX: Duration = Duration::from_secs(15);

/// The silence limit (45 s), after which either end replaces a session, and what a busy machine adds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A cut that sessions outlive. TCP repeats itself 12 s after its beginning, and 25 s: sooner it cannot be known that it is healed.
const SHORT_CUT: Duration = Duration::from_secs(8);

/// A download that is cut in its middle: 32 KiB every 100 ms, four seconds without a cut.
const BULK: &str = "/bulk?bytes=1300000&pause_ms=100";
const BULK_BYTES: usize = 1_300_000;

/// The period of the bytes of `/bulk`.
const PERIOD: usize = 251;

const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, fleet: &mut Fleet) {
    suite.step("a request reaches each cluster", || reach_all(fleet));
    suite.step("a wedged agent and a cut link show within 15 s, and so does their end", || shown(fleet));
    suite.step("a short cut is outlived, by a download too, and harms no other cluster", || short_cut(fleet));
    suite.step("an agent or a server that was killed is back, and leaves nothing open", || crashes(fleet));
    suite.step("a silence too long ends in aborts that callers see, and in a new session", || long_silence(fleet));
}

fn reach_all(fleet: &mut Fleet) -> Result<()> {
    for cluster in CLUSTERS {
        let answer = fleet.get(cluster, "/version")?;
        ensure!(answer.status == 200, "{cluster}: {}: {}", answer.status, answer.text());
    }
    Ok(())
}

fn shown(fleet: &mut Fleet) -> Result<()> {
    let [wedged, cut_off, witness] = CLUSTERS;
    CLUSTERS.iter().try_for_each(|cluster| fleet.stands(cluster, "healthy", SHOWN_MAX))?;
    let faults = [fleet.pause(wedged)?, fleet.cut(cut_off, HUB)?];
    let since = Instant::now();
    for cluster in [wedged, cut_off] {
        fleet.stands(cluster, "unhealthy", SHOWN_MAX.saturating_sub(since.elapsed()))?;
    }
    ensure!(fleet.state(witness)? == "healthy", "{witness} suffers from the faults of others");
    drop(faults);
    let since = Instant::now();
    for cluster in [wedged, cut_off] {
        fleet.stands(cluster, "healthy", SHOWN_MAX.saturating_sub(since.elapsed()))?;
    }
    Ok(())
}

fn short_cut(fleet: &mut Fleet) -> Result<()> {
    let [busy, idle, witness] = CLUSTERS;
    let watch = start(fleet, idle, WATCH)?;
    let download = start(fleet, busy, BULK)?;
    let cuts = [fleet.cut(busy, HUB)?, fleet.cut(idle, HUB)?];
    let since = Instant::now();
    ensure!(fleet.get(busy, "/version").is_err(), "{busy} answers in spite of the cut");
    while since.elapsed() < SHORT_CUT {
        let answer = fleet.get(witness, "/version")?;
        ensure!(answer.status == 200, "{witness} suffers from the cut of others: {}", answer.status);
        download.goes_on()?;
        watch.goes_on()?;
    }
    drop(cuts);
    fleet.routable(busy, BACK_MAX)?;
    fleet.routable(idle, BACK_MAX)?;
    whole(download)?;
    watch.goes_on()?;
    Ok(())
}

fn crashes(fleet: &mut Fleet) -> Result<()> {
    let [cluster, ..] = CLUSTERS;
    for host in [cluster, HUB] {
        let watch = start(fleet, cluster, WATCH)?;
        fleet.crash(host)?;
        aborted(watch, BACK_MAX)?;
        fleet.restart(host)?;
        fleet.all_connected(BACK_MAX)?;
        fleet.routable(cluster, BACK_MAX)?;
        fleet.nothing_open(cluster, BACK_MAX)?;
    }
    Ok(())
}

/// Three clusters at once, since each takes as long as the silence limit.
fn long_silence(fleet: &mut Fleet) -> Result<()> {
    let [cut_off, stopped, powerless] = CLUSTERS;
    let watches = CLUSTERS.map(|cluster| start(fleet, cluster, WATCH));
    let faults = [fleet.cut(cut_off, HUB)?, fleet.pause(stopped)?];
    fleet.vanish(powerless)?;
    let unanswered = [cut_off, stopped].map(|cluster| fleet.start_get(cluster, "/version"));
    fleet.move_agent(powerless, "edge-3-elsewhere")?;
    fleet.routable(powerless, BACK_MAX).context("the newer session of two")?;
    for watch in watches {
        aborted(watch?, SILENCE_MAX)?;
    }
    drop(faults);
    for call in unanswered {
        let answer = call.end(BACK_MAX)?.context("no answer at all")?;
        ensure!(matches!(answer.status, 200 | 502..=504), "{}: {}", answer.status, answer.text());
    }
    for cluster in CLUSTERS {
        fleet.routable(cluster, BACK_MAX)?;
    }
    // One each: the older session is gone, and has not taken the newer one with it.
    fleet.all_connected(BACK_MAX)?;
    reach_all(fleet)?;
    for cluster in [cut_off, stopped] {
        fleet.nothing_open(cluster, BACK_MAX)?;
    }
    Ok(())
}

/// Starts a call and waits until it has reached the API server.
fn start(fleet: &Fleet, cluster: &str, path: &str) -> Result<Call> {
    // Twice, since the hub's own question may be open for a moment, and not for two.
    let before = fleet.n_open(cluster)?.min(fleet.n_open(cluster)?);
    let call = fleet.start_get(cluster, path);
    let started = || Ok((fleet.n_open(cluster)? > before).then_some(()));
    wait_for(&format!("{path} at {cluster}"), BACK_MAX, started)?;
    Ok(call)
}

/// What begins with a 200 and does not end whole must be seen to break off.
fn aborted(call: Call, limit: Duration) -> Result<()> {
    let end = call.end(limit)?;
    ensure!(end.is_err(), "an end that looks whole: {end:?}");
    Ok(())
}

fn whole(download: Call) -> Result<()> {
    let answer = download.end(SILENCE_MAX)?.context("the download")?;
    ensure!(answer.status == 200 && answer.body.len() == BULK_BYTES, "{}: {} bytes", answer.status, answer.body.len());
    let wrong = answer.body.iter().enumerate().position(|(place, byte)| usize::from(*byte) != place % PERIOD);
    ensure!(wrong.is_none(), "byte {wrong:?} is another");
    Ok(())
}
