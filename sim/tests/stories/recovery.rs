//! How soon a fleet is whole again after a cut, and what a caller sees meanwhile. The tables are part of README.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use sim::caller::Caller;
use sim::fabric::Wan;
use sim::promise::NO_PARKING;
use sim::promise::Promise::Nothing;
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;
use tokio::time::Instant;

const LINKS: [(&str, Wan); 5] = [
    ("LAN", Wan::LAN),
    ("OCEAN", Wan::OCEAN),
    ("SATELLITE", Wan::SATELLITE),
    ("COFFEE_SHOP", Wan::COFFEE_SHOP),
    ("METERED", Wan::METERED),
];

/// Clusters of the fleet: enough that the unluckiest draws a long wait.
const N_CLUSTERS: usize = 10;

/// How often each cluster is asked during a long cut; once a second during a short one.
const ASKED_MIN: u32 = 60;

#[test]
fn a_fleet_is_whole_again_soon_after_a_cut_of_5_s() {
    measure("5 s", secs(5));
}

#[test]
fn a_fleet_is_whole_again_soon_after_a_cut_of_60_s() {
    measure("60 s", secs(60));
}

#[test]
fn a_fleet_is_whole_again_soon_after_a_cut_of_10_min() {
    measure("10 min", minutes(10));
}

fn measure(words: &str, cut: Duration) {
    let mut table = String::from(
        "| link | whole again after | goal | what GETs saw that were asked during the cut, in turn |\n|---|---|---|---|\n",
    );
    for (name, wan) in LINKS {
        let whole = std::sync::Mutex::new(None);
        let mut world = World::new();
        for n in 0..N_CLUSTERS {
            world = world.cluster(&format!("edge-{n}"), |c| c.over(wan));
        }
        world.version_1(Nothing("how a Go agent waits is its own business"), Nothing(NO_PARKING)).tell(async |s: Story| {
            *whole.lock().expect("nobody panics while holding it") = Some(cut_and_heal(&s, cut, goal(wan)).await?);
            Ok(())
        });
        let (after, seen) = whole.into_inner().expect("nobody panics while holding it").expect("the story ended well");
        let _ = writeln!(table, "| {name} | {} | {} | {seen} |", seconds(after), seconds(goal(wan)));
    }
    is_in_readme(words, &table);
}

/// What is promised: the longest wait between two dials and six round trips of connecting.
fn goal(wan: Wan) -> Duration {
    secs(5) + (wan.round_trip() + 2 * wan.jitter) * 6
}

/// How long after healing the last cluster answered, and what callers saw of the cut.
async fn cut_and_heal(s: &Story, cut: Duration, goal: Duration) -> anyhow::Result<(Duration, String)> {
    let clusters: Vec<String> = (0..N_CLUSTERS).map(|n| format!("edge-{n}")).collect();
    for cluster in &clusters {
        s.until_reachable(cluster).within(secs(10)).await?;
    }
    let cuts: Vec<_> = clusters.iter().map(|cluster| s.cut("hub", cluster)).collect();
    let cut_at = Instant::now();
    let caller = Caller::clone(&s.kubectl()).quiet();
    let ask_every = secs(1).max(cut / ASKED_MIN);
    let mut asked = Vec::new();
    while cut_at.elapsed() < cut {
        asked.extend(clusters.iter().map(|cluster| s.start(caller.get(cluster, "/version").into_future())));
        s.pass(ask_every.min(cut - cut_at.elapsed())).await;
    }
    drop(cuts);
    let healed_at = Instant::now();
    let back: Vec<_> = clusters
        .into_iter()
        .map(|cluster| {
            let story = s.clone();
            s.start(async move { story.until_reachable(&cluster).await })
        })
        .collect();
    for cluster in back {
        cluster.within(goal.saturating_sub(healed_at.elapsed())).await??;
    }
    let whole_after = healed_at.elapsed();
    let mut seen = BTreeMap::<String, (usize, Duration)>::new();
    for answer in asked {
        // The ping interval may lie before the limit of silence, and parking behind it.
        let (words, took) = match answer.within(minutes(2)).await? {
            Ok(reply) if reply.status == StatusCode::OK => ("answered late".to_owned(), reply.took),
            Ok(reply) => {
                let again = if reply.headers.contains_key("retry-after") { " with Retry-After" } else { "" };
                (format!("{}{again}", reply.status.as_u16()), reply.took)
            }
            Err(error) => (format!("{error:#}"), Duration::ZERO),
        };
        let (n, longest) = seen.entry(words).or_default();
        *n += 1;
        *longest = took.max(*longest);
    }
    let n_asked: usize = seen.values().map(|(n, _)| n).sum();
    let seen =
        seen.into_iter().map(|(words, (n, longest))| format!("{} % {words} (at most {})", percent(n, n_asked), seconds(longest)));
    Ok((whole_after, seen.collect::<Vec<_>>().join(", ")))
}

fn percent(n: usize, of: usize) -> usize {
    (n * 100 + of / 2) / of.max(1)
}

/// A tenth of a second is what people care for.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", (time + millis(50)).as_millis() as f64 / 1000.0 - 0.05)
}

/// The table stands in README.md under its mark; `INSTA_UPDATE=always`, which renews the snapshots, puts it there.
#[expect(clippy::disallowed_methods, reason = "the table is kept in the repository, not on a simulated machine")]
fn is_in_readme(words: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let mark = format!("After a cut of {words}:\n\n");
    let begin = readme.find(&mark).unwrap_or_else(|| panic!("README.md has no line {mark:?}")) + mark.len();
    let end = readme[begin..].find("\n\n").map_or(readme.len(), |end| begin + end + 1);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, format!("{}{table}{}", &readme[..begin], &readme[end..])).expect("README.md");
    } else {
        assert_eq!(&readme[begin..end], table, "sim/README.md is not what was measured: see it with INSTA_UPDATE=always");
    }
}
