//! From a failing walk to the shortest that still fails alike, and the report of it.

use std::fmt;

use super::{Told, go};
use crate::model::Beliefs;
use crate::moves::{Move, Walk, Way};

/// How often a walk is gone again in search of a shorter one.
const REPLAYS_MAX: usize = 400;

/// How much of the transcript is shown.
const LINES_SHOWN: usize = 40;

/// A walk that failed, shrunk.
pub struct Failed {
    /// What was left of it.
    pub walk: Walk,
    /// How many moves it had.
    pub n_moves: usize,
    /// What became of what was left.
    pub told: Told,
}

/// Goes a walk; if a claim is false, looks for the shortest part of it for which it is false too.
pub fn find(walk: Walk, beliefs: Beliefs) -> Option<Failed> {
    let told = go(&walk, beliefs);
    let (kind, _) = told.false_claim.clone()?;
    let n_moves = walk.moves.len();
    let mut search = Search { kind, beliefs, best: walk, told, n_replays: 0 };
    search.drop_moves();
    search.simplify();
    search.drop_moves();
    Some(Failed { walk: search.best, n_moves, told: search.told })
}

struct Search {
    kind: String,
    beliefs: Beliefs,
    best: Walk,
    told: Told,
    n_replays: usize,
}

impl Search {
    /// Keeps `walk` if it fails as the first did.
    fn keeps(&mut self, walk: Walk) -> bool {
        if self.n_replays == REPLAYS_MAX || walk == self.best {
            return false;
        }
        self.n_replays += 1;
        let told = go(&walk, self.beliefs);
        let is_alike = told.false_claim.as_ref().is_some_and(|(kind, _)| *kind == self.kind);
        if is_alike {
            (self.best, self.told) = (walk, told);
        }
        is_alike
    }

    /// Without a half, a quarter, …, one of the moves.
    fn drop_moves(&mut self) {
        let mut size = self.best.moves.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.moves.len() {
                let mut walk = self.best.clone();
                walk.moves.drain(at..(at + size).min(walk.moves.len()));
                if !self.keeps(walk) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    /// With a plainer world and rounder numbers.
    fn simplify(&mut self) {
        for change in [
            |walk: &mut Walk| walk.places.truncate(1),
            |walk: &mut Walk| walk.places.truncate(2),
            |walk: &mut Walk| walk.places.iter_mut().for_each(|place| place.n_agents = 1),
            |walk: &mut Walk| walk.places.iter_mut().for_each(|place| place.way = Way::Lan),
            |walk: &mut Walk| walk.budget = None,
            |walk: &mut Walk| walk.streams_max = None,
            |walk: &mut Walk| walk.age_max = None,
        ] {
            let mut walk = self.best.clone();
            change(&mut walk);
            walk.fit();
            self.keeps(walk);
        }
        for n in 0..self.best.moves.len() {
            for ms in [100_000, 10_000, 1_000, 100, 10] {
                let Some(Move::Pass { ms: now }) = self.best.moves.get(n).copied() else { continue };
                let mut walk = self.best.clone();
                walk.moves[n] = Move::Pass { ms: now / ms * ms };
                if now > ms && self.keeps(walk) {
                    break;
                }
            }
        }
    }
}

impl Walk {
    /// Leaves out the moves that befall what is not there.
    fn fit(&mut self) {
        let places = self.places.clone();
        self.moves.retain(|one| one.fits(&places));
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.walk.seed;
        let claim = self.told.false_claim.as_ref().map(|(_, words)| words.as_str()).unwrap_or_default();
        writeln!(f, "walk {seed}: {claim}\n")?;
        writeln!(f, "  SIM_SEED={seed} cargo xtask sim --walks 1\n")?;
        let n_left = self.walk.moves.len();
        writeln!(f, "The same in {n_left} moves of {}, as a story for sim/tests/stories/walked.rs:\n", self.n_moves)?;
        writeln!(f, "#[test]\nfn walk_{seed}() {{\n{}}}\n", self.told.body)?;
        write!(f, "{}", self.told.trace.render(LINES_SHOWN))
    }
}
