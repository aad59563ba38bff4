//! Drawing a walk: how likely each misfortune is, and how long it lasts.

use super::{Blow, Fault, Move, Place, Program, Walk, Way};
use crate::errands::{By, Errand, Work};
use crate::seed::{Dice, Seed};

/// What clusters are called.
const NAMES: [&str; 3] = ["edge-1", "ship-7", "train-3"];

/// A budget that a few downloads use up.
const SMALL_BUDGET: usize = 1 << 20;

/// Streams of a session that a few watches use up.
const FEW_STREAMS: usize = 4;

/// How soon misfortune strikes work that has just begun: within the longest round trip.
const AMBUSH_MS: usize = 700;

impl Walk {
    /// The walk of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Seed(seed).split("walk").dice();
        let n_places = 1 + weighed(&mut dice, &[5, 3, 2]);
        let place = |name, dice: &mut Dice| Place { name, way: one_of(dice, &Way::ALL), n_agents: 1 + weighed(dice, &[2, 1]) };
        let places: Vec<_> = NAMES[..n_places].iter().map(|name| place(*name, &mut dice)).collect();
        let budget = (below(&mut dice, 6) == 0).then_some(SMALL_BUDGET);
        let streams_max = (below(&mut dice, 8) == 0).then_some(FEW_STREAMS);
        let age_max = (below(&mut dice, 6) == 0).then(|| 40 + below(&mut dice, 100) as u64);
        let n_moves = 10 + below(&mut dice, 21);
        let mut walk = Self { seed, places, budget, streams_max, age_max, moves: Vec::new() };
        while walk.moves.len() < n_moves {
            walk.draw_moves(&mut dice);
        }
        walk
    }

    /// The next move or two: what follows a misfortune is mostly time, and after time one looks.
    fn draw_moves(&mut self, dice: &mut Dice) {
        match weighed(dice, &[30, 22, 18, 26, 4, 14]) {
            0 => {
                self.moves.push(Move::Pass { ms: time(dice) });
                if below(dice, 3) > 0 {
                    self.moves.push(Move::Look);
                }
            }
            1 => self.moves.push(Move::Begin(self.fault(dice))),
            2 => self.moves.push(Move::Strike(self.blow(dice))),
            3 => {
                // Now and then a crowd that wants the same.
                let errand = self.errand(dice);
                let n = if below(dice, 12) == 0 { 8 } else { 1 };
                self.moves.extend(std::iter::repeat_n(Move::Start(errand), n));
            }
            4 => self.moves.push(Move::Cancel { nth: below(dice, 4) }),
            _ => {
                // An ambush: a misfortune while work is on its way.
                self.moves.push(Move::Start(self.errand(dice)));
                self.moves.push(Move::Pass { ms: 1 + below(dice, AMBUSH_MS) as u64 });
                let fault = Move::Begin(self.fault(dice));
                self.moves.push(if below(dice, 3) == 0 { fault } else { Move::Strike(self.blow(dice)) });
            }
        }
        // What began is often over before the next thing happens, and as often is not.
        let standing: Vec<_> = self.standing();
        if !standing.is_empty() && below(dice, 4) == 0 {
            self.moves.push(Move::Pass { ms: time(dice) });
            self.moves.push(Move::End(one_of(dice, &standing)));
        }
        let down: Vec<_> = self.down();
        if !down.is_empty() && below(dice, 4) == 0 {
            self.moves.push(Move::Pass { ms: time(dice) });
            self.moves.push(Move::Strike(Blow::Restart(one_of(dice, &down))));
        }
    }

    /// The faults that have begun and not ended.
    fn standing(&self) -> Vec<Fault> {
        let mut standing = Vec::new();
        for one in &self.moves {
            match one {
                Move::Begin(fault) => standing.push(*fault),
                Move::End(fault) => standing.retain(|other| other != fault),
                Move::Pass { .. } | Move::Look | Move::Strike(_) | Move::Start(_) | Move::Cancel { .. } => {}
            }
        }
        standing
    }

    /// The programs that are down, or on their way.
    fn down(&self) -> Vec<Program> {
        let mut down = Vec::new();
        for one in &self.moves {
            match one {
                Move::Strike(Blow::Crash(program) | Blow::Vanish(program) | Blow::Drain(program)) => down.push(*program),
                Move::Strike(Blow::Restart(program)) => down.retain(|other| other != program),
                Move::Strike(Blow::Reset { .. } | Blow::Skew { .. } | Blow::Compact { .. } | Blow::Beat { .. }) => {}
                Move::Pass { .. } | Move::Look | Move::Begin(_) | Move::End(_) | Move::Start(_) | Move::Cancel { .. } => {}
            }
        }
        down
    }

    fn fault(&self, dice: &mut Dice) -> Fault {
        let place = below(dice, self.places.len());
        let agent = below(dice, self.places[place].n_agents);
        match weighed(dice, &[6, 4, 2, 2, 2, 2, 4, 2, 2]) {
            0 => Fault::Cut { place },
            1 => Fault::Stall { place },
            2 => Fault::Degrade { place, to: below(dice, Way::ALL.len()) },
            3 => Fault::RefuseHub,
            4 => Fault::RefuseApi { place },
            5 => Fault::PauseHub,
            6 => Fault::PauseAgent { place, agent },
            7 => Fault::PauseApi { place },
            _ => Fault::Throttle { place },
        }
    }

    fn blow(&self, dice: &mut Dice) -> Blow {
        let place = below(dice, self.places.len());
        match weighed(dice, &[4, 6, 4, 4, 2, 1, 5]) {
            0 => Blow::Reset { place },
            1 => Blow::Crash(self.program(dice, place)),
            2 => Blow::Vanish(self.program(dice, place)),
            3 => match self.program(dice, place) {
                Program::Api { place } => Blow::Crash(Program::Api { place }),
                program @ (Program::Hub | Program::Agent { .. }) => Blow::Drain(program),
            },
            4 => Blow::Skew { program: self.program(dice, place), seconds: below(dice, 7200) as i64 - 3600 },
            5 => Blow::Compact { place },
            _ => Blow::Beat { place },
        }
    }

    fn program(&self, dice: &mut Dice, place: usize) -> Program {
        match weighed(dice, &[2, 5, 2]) {
            0 => Program::Hub,
            1 => Program::Agent { place, agent: below(dice, self.places[place].n_agents) },
            _ => Program::Api { place },
        }
    }

    fn errand(&self, dice: &mut Dice) -> Errand {
        let cluster = self.places[below(dice, self.places.len())].name;
        let by = one_of(dice, &[By::Kubectl, By::Argocd]);
        // Mostly what fits into the buffers on the way, now and then what does not.
        let n_bytes = 1 << (8 + below(dice, 11) + if below(dice, 8) == 0 { 3 } else { 0 });
        let work = match weighed(dice, &[5, 3, 6, 2, 4, 3, 4, 2, 2, 2]) {
            0 => Work::Get,
            1 => Work::List,
            2 => Work::Create,
            3 => Work::Put,
            4 => Work::Watch,
            5 => Work::Upload { n_bytes },
            6 => Work::Download { n_bytes, speed: (below(dice, 3) == 0).then_some(n_bytes as u64 / 16 + 1000) },
            7 => Work::Exec { n_bytes: n_bytes.min(1 << 15) },
            8 => Work::Logs,
            _ => Work::Broken { n_bytes },
        };
        Errand { cluster, by, work }
    }
}

/// Milliseconds to minutes, each order of magnitude as likely.
fn time(dice: &mut Dice) -> u64 {
    let most = [10, 100, 1_000, 5_000, 20_000, 60_000, 180_000][weighed(dice, &[2, 3, 4, 5, 4, 3, 2])];
    1 + below(dice, most) as u64
}

fn below(dice: &mut Dice, n: usize) -> usize {
    (dice.roll() % n as u64) as usize
}

fn one_of<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[below(dice, choices.len())]
}

/// An index, as likely as its weight.
fn weighed(dice: &mut Dice, weights: &[usize]) -> usize {
    let mut roll = below(dice, weights.iter().sum());
    weights
        .iter()
        .position(|weight| {
            let here = roll < *weight;
            roll = roll.saturating_sub(*weight);
            here
        })
        .unwrap_or(0)
}
