//! One answer per request: what a caller saw is what the API server said or a refusal of ours, no write runs twice, and
//! nobody waits for something that nobody works on.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::apiserver::Arrival;
use crate::caller::{Asked, Book, End, Ending, Entry};
use crate::machine::Machine;
use crate::stage::{Stage, StagedCluster};
use crate::story::Story;
use crate::world::Player;

/// A request that waits longer, though no API server works on it, hangs: it may wait 10 s for an agent, and 45 s of
/// silence and a ping's interval until its session is known to be lost.
const HANGS_AFTER: Duration = Duration::from_secs(90);

/// With which hyper answers a head that is too large, without a word.
const HYPERS: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;

/// The statuses of refusals: ours, and hyper's.
const REFUSALS: [u16; 9] = [400, 403, 413, 414, 429, 431, 502, 503, 504];

/// Looked at before the callers are sent away.
pub(super) fn check_hangs(story: &Story) -> anyhow::Result<()> {
    let stage = story.stage();
    // A hub that is paused keeps no promise, and of a mute API server nobody can tell that it will not answer.
    let mute_of = |place: &String| {
        let api = format!("{place}/api");
        let machines = stage.machines.values().filter(|one| one.name() == "hub/server" || one.name().starts_with(&api));
        let times: Vec<_> = machines.flat_map(Machine::all_pauses).map(|pause| (pause.at, pause.until)).collect();
        (place.clone(), times)
    };
    let mute: BTreeMap<_, _> = stage.clusters.keys().map(mute_of).collect();
    stage.ledger.look(|book| {
        for (id, asked) in &book.asked {
            let Some((place, cluster)) = cluster_of(stage, asked) else { continue };
            let work = cluster.arrivals.of(*id).into_iter().map(|one| (one.at, one.until));
            let idle = idle_for(asked, work.chain(mute[place].iter().copied()).collect());
            anyhow::ensure!(idle <= HANGS_AFTER, "{} waits for {idle:?}, and nobody works on it", told(asked));
        }
        Ok(())
    })
}

/// The longest time for which it waited, outside of `excused` times (from, until).
fn idle_for(asked: &Asked, mut excused: Vec<(Instant, Option<Instant>)>) -> Duration {
    excused.sort_unstable_by_key(|(at, _)| *at);
    let until = asked.ended_at.unwrap_or_else(Instant::now);
    let (mut idle_from, mut longest) = (asked.at, Duration::ZERO);
    for (at, ended_at) in excused {
        longest = longest.max(at.min(until).saturating_duration_since(idle_from));
        idle_from = idle_from.max(ended_at.unwrap_or(until));
    }
    longest.max(until.saturating_duration_since(idle_from))
}

/// Looked at after the callers are gone.
pub(super) fn check(story: &Story) -> anyhow::Result<()> {
    let stage = story.stage();
    stage.ledger.look(|book| {
        let documents = book.answers.iter().map(|entry| (entry.id, entry)).collect();
        for (id, asked) in &book.asked {
            let end = asked.end.ok_or_else(|| anyhow::anyhow!("{} has no end", told(asked)))?;
            for (name, cluster) in &stage.clusters {
                let is_its_own = cluster_of(stage, asked).is_some_and(|(own, _)| own == name);
                anyhow::ensure!(is_its_own || cluster.arrivals.of(*id).is_empty(), "{} arrived at {name}", told(asked));
            }
            let Some((_, cluster)) = cluster_of(stage, asked) else { continue };
            check_one(stage, cluster, (*id, asked, end), &documents)
                .map_err(|wrong| anyhow::anyhow!("{}: {wrong}", told(asked)))?;
        }
        check_writes(stage, book)
    })
}

type Documents<'a> = BTreeMap<u64, &'a Entry>;

fn check_one(stage: &Stage, cluster: &StagedCluster, one: (u64, &Asked, End), documents: &Documents<'_>) -> Result<(), String> {
    let (id, asked, end) = one;
    let arrivals = cluster.arrivals.of(id);
    if !is_repeatable(&asked.method) && arrivals.len() > 1 {
        return Err(format!("arrived {} times: {arrivals:?}", arrivals.len()));
    }
    // A hostile agent answers what it likes.
    let End::Answered(status) = end else { return Ok(()) };
    if cluster.played_by == Player::Hostile || arrivals.iter().any(|arrival| arrival.status == Some(status)) {
        return Ok(());
    }
    if !REFUSALS.contains(&status.as_u16()) {
        return Err(format!("was answered {status}, which the API server did not say: {arrivals:?}"));
    }
    let Some(entry) = documents.get(&id) else { return Ok(()) };
    // client-go repeats any method then, also one that was executed.
    if entry.has_retry_after && !is_repeatable(&asked.method) && arrivals.iter().any(may_have_run) {
        return Err(format!("was answered {status} with Retry-After, and the API server has it: {arrivals:?}"));
    }
    // A version 1 server has words of its own, and hyper has none.
    let has_our_words = !stage.has_version_1_server && asked.method != Method::HEAD && status != HYPERS;
    if has_our_words && entry.ending == Ending::Whole && !entry.is_ours() {
        let words = String::from_utf8_lossy(&entry.kept);
        return Err(format!("was answered {status}, which neither the API server nor we said: {words:?}"));
    }
    Ok(())
}

/// All attempts at one write together: one at most may have been taken.
fn check_writes(stage: &Stage, book: &Book) -> anyhow::Result<()> {
    let mut taken = BTreeMap::<u64, usize>::new();
    for (id, asked) in book.asked.iter().filter(|(_, asked)| !is_repeatable(&asked.method)) {
        let (Some(write), Some((_, cluster))) = (asked.write, cluster_of(stage, asked)) else { continue };
        let n_taken = taken.entry(write).or_default();
        *n_taken += cluster.arrivals.of(*id).iter().filter(|arrival| may_have_run(arrival)).count();
        anyhow::ensure!(*n_taken <= 1, "{} was sent again after the API server had taken it", told(asked));
    }
    Ok(())
}

impl Entry {
    /// Whether the body says that server or agent wrote it.
    fn is_ours(&self) -> bool {
        let status = serde_json::from_slice::<serde_json::Value>(&self.kept).unwrap_or_default();
        status["kind"] == "Status" && status["message"].as_str().is_some_and(|message| message.starts_with("postern"))
    }
}

fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A throttled or unauthenticated request was not looked at any further.
fn may_have_run(arrival: &Arrival) -> bool {
    !matches!(arrival.status, Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED))
}

/// The cluster that a request was for, if there is one.
fn cluster_of<'a>(stage: &'a Stage, asked: &Asked) -> Option<(&'a String, &'a StagedCluster)> {
    let rest = asked.target.strip_prefix("/tunnel/")?;
    let name = rest.split(['/', '?']).next()?;
    stage.clusters.get_key_value(name)
}

fn told(asked: &Asked) -> String {
    format!("{} {}", asked.method, asked.target)
}
