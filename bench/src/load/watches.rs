//! Watches on many clusters, as Argo CD holds them: how long events take, and whether all come.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::{Ask, Dialer, HEAD_MAX, Sender};
use super::crowd::stand_until_killed;
use super::tally::{SharedTally, Tally};
use crate::task::{Outcome, Way, cluster};

mod events;

use events::Events;

/// Watches on one HTTP/2 connection: an API server allows 250 streams on one, and what is between may allow more.
const WATCHES_PER_CONNECTION: usize = 240;

/// How many connections and watches are being opened at a time: over a link of 40 ms there and back, 6,000 a second.
const OPENED_AT_ONCE: usize = 256;

/// How long opening may take per watch until the idle time begins, as the first event is that far ahead: ten times what it
/// takes without anything between.
const OPEN_PER_STREAM: Duration = Duration::from_micros(500);

/// As [`OPEN_PER_STREAM`], where each watch has a connection of its own: four times a TLS handshake, as there may be more on
/// the way.
const OPEN_PER_CONNECTION: Duration = Duration::from_millis(4);

/// What opening may take however few there are.
const OPEN_MIN: Duration = Duration::from_secs(2);

/// How long watches are read that are held until this process is killed: longer than anybody measures.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);

/// How many watches there are and what comes on them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) clusters: usize,
    pub(super) watches: usize,
    pub(super) idle: Duration,
    /// Events per second and cluster.
    pub(super) rate: f64,
    pub(super) length: Duration,
    /// Stay open until killed, without events.
    pub(super) hold: bool,
}

impl Plan {
    fn opening(&self, dialer: &Dialer) -> Duration {
        let per_watch = if dialer.is_http2() { OPEN_PER_STREAM } else { OPEN_PER_CONNECTION };
        OPEN_MIN + per_watch * u32::try_from(self.clusters * self.watches).unwrap_or(u32::MAX)
    }

    /// The path of a cluster's n-th watch, and how many events come on it: they fall to the cluster's watches in turn, and each
    /// cluster's come at moments of its own.
    fn watch(&self, c: usize, n: usize, from: Duration) -> (String, u64) {
        let path = "/api/v1/configmaps?watch=true";
        if self.rate <= 0.0 || self.hold {
            return (path.to_owned(), 0);
        }
        let every = (self.watches as f64 * 1_000.0 / self.rate).round().max(1.0) as u128;
        let phase = ((n as f64 + scatter(c)) * 1_000.0 / self.rate) as u128;
        let count = self.length.as_millis().saturating_sub(phase).div_ceil(every) as u64;
        if count == 0 {
            return (path.to_owned(), 0);
        }
        let from = from.as_millis() + phase;
        (format!("{path}&from={from}&every={every}&count={count}"), count)
    }
}

/// Where in the time between two events a cluster has its own: between 0 and 1, the same in every run. Clusters know nothing of
/// each other, so neither all at once nor evenly in turn.
fn scatter(c: usize) -> f64 {
    // The finishing steps of SplitMix64: every bit of the number changes about half of those that come of it.
    let mixed = (c as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}

pub(super) async fn watches(way: &Way, plan: Plan) -> Result<Outcome> {
    let dialer = Dialer::new(way)?.for_many();
    let opening = plan.opening(&dialer);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let asked = Instant::now();
    let began = asked + opening + plan.idle;
    let asks = asks(&dialer, &plan, wall + opening + plan.idle)?;
    let n_watches = asks.len();
    let tally = Tally::shared();
    let end = began + if plan.hold { HOLD_MAX } else { plan.length };
    let mut tasks = open_all(&dialer, asks, &tally, end).await?;
    {
        let mut tally = tally.lock();
        tally.more.insert("open_seconds".into(), asked.elapsed().as_secs_f64());
        let idle = began.saturating_duration_since(Instant::now());
        tally.more.insert("idle_seconds".into(), idle.as_secs_f64());
        if idle < plan.idle && !plan.hold {
            tally.tell(|| format!("opening took so long that only {idle:?} were idle"));
        }
    }
    if plan.hold {
        // Who measures what all watches cost must not measure some.
        let failed = tally.lock().outcome(began);
        ensure!(failed.failed == 0, "{} of {n_watches} watches did not open: {:?}", failed.failed, failed.errors);
        stand_until_killed().await?;
        let mut tally = tally.lock();
        // One that ended meanwhile has failed.
        tally.ok = n_watches as u64 - tally.failed;
        return Ok(tally.outcome_of(asked.elapsed().as_secs_f64()));
    }
    // For whoever measures what all cost while nothing happens.
    println!("{{}}");
    sleep_until(began).await;
    println!("{{}}");
    // All stay open until the last is done: closing some would be work beside what is measured.
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(body) = tasks.join_next().await {
        done.push(body);
    }
    let outcome = tally.lock().outcome(began);
    Ok(outcome)
}

/// What is asked for, cluster by cluster, and how many events are to come of it.
fn asks(dialer: &Dialer, plan: &Plan, from: Duration) -> Result<Vec<(Ask, u64)>> {
    let all = (0..plan.clusters).flat_map(|c| (0..plan.watches).map(move |n| (c, n)));
    let one = |(c, n)| {
        let (path, count) = plan.watch(c, n, from);
        Ok((dialer.get(&path, &cluster(c))?, count))
    };
    all.map(one).collect()
}

/// Opens all watches; each is read by a task of its own until its events have come, or `end` and what may be late is over.
///
/// A task ends with the body that it read, so that the watch stays open. Each connection has a group of watches, one at
/// least, and its first is open before the others ask.
async fn open_all(
    dialer: &Dialer,
    asks: Vec<(Ask, u64)>,
    tally: &SharedTally,
    end: Instant,
) -> Result<JoinSet<Option<Incoming>>> {
    let per_connection = if dialer.is_http2() { WATCHES_PER_CONNECTION } else { 1 };
    let groups = asks.chunks(per_connection).map(<[_]>::to_vec);
    let dialing = groups.map(|group| async { dialer.dial().await.map(|sender| on_connection(sender, group)) });
    let dialed: Vec<Vec<_>> = stream::iter(dialing).buffer_unordered(OPENED_AT_ONCE).try_collect().await?;
    let opening = dialed.into_iter().flatten().map(|(mut sender, ask, count)| async move {
        let opened = sender.fetch(&ask).await;
        (opened.map(|response| (response.into_body(), sender)), count)
    });
    let mut opening = stream::iter(opening).buffer_unordered(OPENED_AT_ONCE);
    let mut tasks = JoinSet::new();
    while let Some((opened, count)) = opening.next().await {
        match opened {
            Ok((body, sender)) => {
                tasks.spawn(read(body, sender, count, tally.clone(), end));
            }
            Err(error) => tally.lock().fail_times(count.max(1), || format!("a watch did not open: {error:#}")),
        }
    }
    Ok(tasks)
}

/// Each watch of a group with a sender on the group's connection.
fn on_connection(sender: Sender, group: Vec<(Ask, u64)>) -> Vec<(Sender, Ask, u64)> {
    let shared: Vec<_> = group.iter().skip(1).map_while(|_| sender.share()).collect();
    let senders = shared.into_iter().chain([sender]);
    senders.zip(group).map(|(sender, (ask, count))| (sender, ask, count)).collect()
}

/// Reads a watch until `count` events have come; what has not come in time is lost. Without events it only has to stay
/// open until `end`.
async fn read(mut body: Incoming, _sender: Sender, count: u64, tally: SharedTally, end: Instant) -> Option<Incoming> {
    let mut events = Events::new();
    let until = if count == 0 { end } else { end + HEAD_MAX };
    let stays = loop {
        if count > 0 && events.is_over(count) {
            break events.good() >= count;
        }
        let Ok(frame) = timeout_at(until, body.frame()).await else { break count == 0 };
        match frame {
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else { continue };
                // A clock before 1970 has been refused at the start.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                events.take(data, now, &mut tally.lock());
            }
            Some(Err(error)) => {
                tally.lock().tell(|| format!("a watch broke off: {error}"));
                break false;
            }
            None => {
                tally.lock().tell(|| "a watch ended".into());
                break false;
            }
        }
    };
    if !stays {
        let lost = count.saturating_sub(events.good()).max(1);
        tally.lock().fail_times(lost, || format!("{lost} events of a watch never came"));
        return None;
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan =
        Plan { clusters: 1, watches: 4, idle: Duration::ZERO, rate: 10.0, length: Duration::from_secs(1), hold: false };

    #[test]
    fn the_events_of_a_cluster_fall_to_its_watches_in_turn() {
        let watches: Vec<_> = (0..4).map(|n| PLAN.watch(0, n, Duration::from_millis(1_000))).collect();
        assert!(watches[1].0.ends_with("&from=1100&every=400&count=3"), "{}", watches[1].0);
        assert_eq!(watches.iter().map(|(_, count)| count).sum::<u64>(), 10);
    }

    #[test]
    fn clusters_have_their_events_at_moments_of_their_own() {
        let moments: std::collections::BTreeSet<_> = (0..100).map(|c| (scatter(c) * 100.0) as u64).collect();
        // As many as a hundred throws of a die with a hundred sides show, about.
        assert!((50..80).contains(&moments.len()) && moments.last() < Some(&100), "{moments:?}");
        assert_eq!(scatter(0), 0.0);
    }

    #[test]
    fn a_watch_whose_turn_does_not_come_asks_for_no_events() {
        let plan = Plan { length: Duration::from_millis(150), ..PLAN };
        assert_eq!(plan.watch(0, 3, Duration::ZERO), ("/api/v1/configmaps?watch=true".to_owned(), 0));
    }

    #[test]
    fn watches_that_are_only_held_ask_for_no_events() {
        assert_eq!(Plan { hold: true, ..PLAN }.watch(0, 0, Duration::ZERO).1, 0);
    }
}
