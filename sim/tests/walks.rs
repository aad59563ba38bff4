//! Walks: random rows of moves from a seed, against the model of what must be reachable.
//!
//! `WALKS` says how many (100 unless told), `WALKS_SEED` from which seed on (1 unless told, so that pull requests repeat).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sim::errands::{By, Errand, Work};
use sim::model::Beliefs;
use sim::moves::{Blow, Fault, Move, Place, Walk, Way};
use sim::walk;

/// Walks of one run unless told: a few seconds.
const WALKS: u64 = 100;

/// The walks are dealt out to as many tests, so that they run side by side.
const N_PARTS: u64 = 4;

/// A part that has found so much may stop.
const FINDINGS_MAX: usize = 5;

/// How often a long run says how far it is.
const TELL_EVERY: u64 = 100;

/// Walks that all parts together have gone, and what they found; each alone under nextest, where a part is a process.
static GONE: AtomicU64 = AtomicU64::new(0);
static FOUND: AtomicU64 = AtomicU64::new(0);

#[test]
fn random_walks_end_where_the_model_says_part_1() {
    go_part(0);
}

#[test]
fn random_walks_end_where_the_model_says_part_2() {
    go_part(1);
}

#[test]
fn random_walks_end_where_the_model_says_part_3() {
    go_part(2);
}

#[test]
fn random_walks_end_where_the_model_says_part_4() {
    go_part(3);
}

#[test]
fn old_findings_stay_fixed() {
    let lines = include_str!("../../ci/seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds = lines.filter(|line| line.contains(" walks::")).filter_map(|line| line.split_whitespace().next()?.parse().ok());
    let found: Vec<_> = seeds.filter_map(|seed| walk::find(Walk::draw(seed), Beliefs::default())).collect();
    assert!(found.is_empty(), "{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

#[test]
fn one_seed_is_one_walk_and_one_transcript() {
    for seed in [3, 14, 15, 92, 65] {
        let told = || walk::go(&Walk::draw(seed), Beliefs::default());
        let (first, again) = (told(), told());
        assert_eq!(first.body, again.body, "seed {seed}");
        let (first, again) = (first.trace.lines(), again.trace.lines());
        let differ = first.iter().zip(&again).find(|(first, again)| first != again);
        assert!(differ.is_none() && first.len() == again.len(), "seed {seed}: {differ:#?}");
    }
}

#[test]
fn a_failing_walk_is_told_as_a_short_story_to_paste() {
    // Who believes that a cluster is reachable at the very moment of healing is wrong after a long cut.
    let hasty = Beliefs { heal: Duration::ZERO, round_trips: 0, ..Beliefs::default() };
    let place = |name, way| Place { name, way, n_agents: 2 };
    let work = |work| Move::Start(Errand { cluster: "edge-1", by: By::Argocd, work });
    let cut = Fault::Cut { place: 0 };
    let moves = vec![
        work(Work::Create),
        Move::Pass { ms: 1234 },
        Move::Strike(Blow::Beat { place: 1 }),
        Move::Begin(cut),
        work(Work::Download { n_bytes: 4096, speed: None }),
        Move::Pass { ms: 155_432 },
        Move::Strike(Blow::Reset { place: 1 }),
        Move::End(cut),
        Move::Look,
        Move::Cancel { nth: 1 },
        Move::Pass { ms: 77 },
    ];
    let places = vec![place("edge-1", Way::Satellite), place("ship-7", Way::Ocean)];
    let walk = Walk { seed: 8, places, budget: Some(1 << 20), streams_max: None, age_max: None, moves };
    let told = walk::find(walk, hasty).expect("a false claim").to_string();

    assert!(told.contains("SIM_SEED=8 cargo xtask sim --walks 1"), "{told}");
    assert!(told.contains("edge-1 must be reachable: expected 200 OK, got 503"), "{told}");
    assert!(told.contains("story            cut hub edge-1"), "{told}");
    let (begin, end) = (told.find("fn walk_8()").expect("a story"), told.find("      time  who").expect("a transcript"));
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let pasted = include_str!("stories/walked.rs");
    assert!(squeezed(pasted).contains(&squeezed(&told[begin..end])), "paste this into stories/walked.rs:\n{}", &told[begin..end]);
}

fn go_part(part: u64) {
    let (n_walks, base) = (number("WALKS").unwrap_or(WALKS), number("WALKS_SEED").unwrap_or(1));
    let mut found = Vec::new();
    for i in (part..n_walks).step_by(N_PARTS as usize) {
        if let Some(failed) = walk::find(Walk::draw(base.wrapping_add(i)), Beliefs::default()) {
            FOUND.fetch_add(1, Ordering::Relaxed);
            tell(&failed.to_string());
            found.push(failed.walk.seed);
        }
        let gone = GONE.fetch_add(1, Ordering::Relaxed) + 1;
        if n_walks > WALKS && gone.is_multiple_of(TELL_EVERY) {
            tell(&format!("walk {gone} of {n_walks}, {} findings", FOUND.load(Ordering::Relaxed)));
        }
        if found.len() == FINDINGS_MAX {
            break;
        }
    }
    assert!(found.is_empty(), "walks from the seeds {found:?} are told above");
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[expect(clippy::print_stderr, reason = "a long run is watched by people at a terminal")]
fn tell(what: &str) {
    eprintln!("{what}");
}
