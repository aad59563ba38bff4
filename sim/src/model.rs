//! Model: the reference of a walk: what ought to be reachable now, and what ought to have ended.
//!
//! It knows of each program and link since when it is well, and nothing of sessions, streams or bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::fabric::Wan;
use crate::moves::{Blow, Fault, Program, Walk, Way};

/// What the model takes for promised. With other beliefs walks fail, which shows that they look.
#[derive(Debug, Clone, Copy)]
pub struct Beliefs {
    /// How soon after healing a cluster is routable, beside [`Beliefs::round_trips`] (an unanswered dial is repeated
    /// within 5 s).
    pub heal: Duration,
    /// How many round trips are added.
    pub round_trips: u32,
    /// When silence is noticed: the limit, and a ping's interval before it.
    pub silence: Duration,
    /// How long answered refusals may keep an agent waiting (`max-retry`).
    pub answered: Duration,
    /// How long a request may wait for a session (`park-max`), and a little.
    pub park: Duration,
    /// How long a drain may take, the goodbye of a session that is cut then (2 s), and a little.
    pub drain: Duration,
}

impl Default for Beliefs {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            heal: secs(5),
            round_trips: 6,
            silence: secs(45 + 15),
            answered: secs(60),
            park: secs(10 + 2),
            drain: secs(30 + 3),
        }
    }
}

/// What is to be expected of a request that begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It succeeds.
    Reachable,
    /// It may succeed or be refused: something just changed.
    MayBe,
    /// It cannot succeed before something changes.
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    Crashed,
    Vanished,
    Draining,
}

#[derive(Debug, Clone, Copy)]
struct Health {
    state: State,
    /// Whatever happened to it has no more consequences from here on, if it is up.
    well_at: Instant,
    /// While it is paused: when its peers have surely given it up.
    mute_until: Instant,
}

pub(crate) struct Model {
    beliefs: Beliefs,
    programs: BTreeMap<Program, Health>,
    faults: BTreeSet<Fault>,
    places: Vec<PlaceState>,
}

struct PlaceState {
    wan: Wan,
    n_agents: usize,
    /// The way is well from here on.
    well_at: Instant,
    /// How often anything changed that a request could notice.
    n_changes: u64,
    /// Since when no request can get through.
    lost_at: Option<Instant>,
}

impl Model {
    pub(crate) fn new(walk: &Walk, beliefs: Beliefs) -> Self {
        let now = Instant::now();
        let up = Health { state: State::Up, well_at: now, mute_until: now };
        let mut programs = BTreeMap::from([(Program::Hub, up)]);
        for (place, plan) in walk.places.iter().enumerate() {
            programs.insert(Program::Api { place }, up);
            programs.extend((0..plan.n_agents).map(|agent| (Program::Agent { place, agent }, up)));
        }
        let place = |plan: &crate::moves::Place| PlaceState {
            wan: plan.way.wan(),
            n_agents: plan.n_agents,
            well_at: now,
            n_changes: 0,
            lost_at: None,
        };
        Self { beliefs, programs, faults: BTreeSet::new(), places: walk.places.iter().map(place).collect() }
    }

    pub(crate) fn state(&self, program: Program) -> Option<State> {
        self.programs.get(&program).map(|health| health.state)
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.iter().copied().collect()
    }

    /// The programs that do not run.
    pub(crate) fn down(&self) -> Vec<Program> {
        self.programs.iter().filter(|(_, health)| health.state != State::Up).map(|(program, _)| *program).collect()
    }

    pub(crate) fn n_changes(&self, place: usize) -> u64 {
        self.places[place].n_changes
    }

    /// Takes note of a fault; whether it makes sense.
    pub(crate) fn begin(&mut self, fault: Fault) -> bool {
        let program = match fault {
            Fault::PauseHub => Some(Program::Hub),
            Fault::PauseAgent { place, agent } => Some(Program::Agent { place, agent }),
            Fault::PauseApi { place } | Fault::Throttle { place } => Some(Program::Api { place }),
            Fault::Cut { .. } | Fault::Stall { .. } | Fault::Degrade { .. } | Fault::RefuseHub | Fault::RefuseApi { .. } => None,
        };
        let runs = program.is_none_or(|program| self.state(program) == Some(State::Up));
        let is_degraded = |other: &Fault| matches!((other, fault), (Fault::Degrade { place: a, .. }, Fault::Degrade { place: b, .. }) if *a == b);
        if !runs || self.faults.iter().any(is_degraded) || !self.faults.insert(fault) {
            return false;
        }
        match fault {
            Fault::Degrade { place, to } => self.places[place].wan = Way::ALL[to].wan(),
            // Its session stays where it is, mute; another agent is surely used only when it is given up.
            Fault::PauseAgent { place, agent } => self.mute(Program::Agent { place, agent }, self.beliefs.silence),
            Fault::Cut { .. }
            | Fault::Stall { .. }
            | Fault::RefuseHub
            | Fault::RefuseApi { .. }
            | Fault::PauseHub
            | Fault::PauseApi { .. }
            | Fault::Throttle { .. } => {}
        }
        self.changed(fault);
        true
    }

    /// Takes note of a fault's end; whether it makes sense.
    pub(crate) fn end(&mut self, fault: Fault, walk: &Walk) -> bool {
        if !self.faults.remove(&fault) {
            return false;
        }
        match fault {
            Fault::Cut { place } | Fault::Stall { place } => self.places[place].well_at = Instant::now(),
            Fault::Degrade { place, .. } => self.places[place].wan = walk.places[place].way.wan(),
            Fault::RefuseHub | Fault::PauseHub => self.unwell(Program::Hub, Duration::ZERO),
            Fault::PauseAgent { place, agent } => {
                self.mute(Program::Agent { place, agent }, Duration::ZERO);
                self.unwell(Program::Agent { place, agent }, Duration::ZERO);
            }
            Fault::RefuseApi { place } | Fault::PauseApi { place } | Fault::Throttle { place } => {
                self.unwell(Program::Api { place }, Duration::ZERO);
            }
        }
        self.changed(fault);
        true
    }

    /// Takes note of what happens at once; whether it makes sense.
    pub(crate) fn strike(&mut self, blow: Blow) -> bool {
        let runs = |program| self.state(program) == Some(State::Up) && !self.is_paused(program);
        match blow {
            Blow::Reset { place } => self.places[place].well_at = Instant::now(),
            Blow::Crash(program) => {
                if !matches!(self.state(program), Some(State::Up | State::Draining)) || self.is_paused(program) {
                    return false;
                }
                let rest = self.refusals(program);
                self.turn(program, State::Crashed, rest);
            }
            Blow::Vanish(program) => {
                if !matches!(self.state(program), Some(State::Up | State::Draining)) || self.is_paused(program) {
                    return false;
                }
                // Half-open: its peers believe in it until silence tells, whether or not it is there again.
                self.turn(program, State::Vanished, self.beliefs.silence);
            }
            Blow::Drain(program) => {
                if !runs(program) {
                    return false;
                }
                self.turn(program, State::Draining, Duration::ZERO);
            }
            Blow::Restart(program) => {
                if self.state(program).is_none_or(|state| state == State::Up) {
                    return false;
                }
                let rest = self.refusals(program);
                self.turn(program, State::Up, rest);
            }
            // The clocks of programs without TLS matter to nobody.
            Blow::Skew { program, .. } => return self.state(program).is_some(),
            Blow::Compact { place } | Blow::Beat { place } => return self.state(Program::Api { place }) == Some(State::Up),
        }
        let now = Instant::now();
        for (place, state) in self.places.iter_mut().enumerate() {
            if blow.touches(place) {
                state.n_changes += 1;
            }
        }
        self.count_losses(now);
        true
    }

    /// What a request to `place` is to expect.
    pub(crate) fn reach(&self, place: usize) -> Reach {
        if !self.has_way(place) {
            return Reach::Unreachable;
        }
        let all_up = self.state(Program::Hub) == Some(State::Up)
            && self.state(Program::Api { place }) == Some(State::Up)
            // Whoever is connected already stays so: a refusal is no certain loss.
            && !self.faults.contains(&Fault::RefuseHub)
            && !self.faults.contains(&Fault::RefuseApi { place })
            && self.agents(place).any(|agent| self.is_working(agent));
        match all_up && Instant::now() >= self.due(place) {
            true => Reach::Reachable,
            false => Reach::MayBe,
        }
    }

    /// From when on `place` is reachable if nothing more happens to it.
    pub(crate) fn due(&self, place: usize) -> Instant {
        let heal = self.beliefs.heal + self.round_trip(place) * self.beliefs.round_trips;
        let concerned = self.programs.iter().filter(|(program, _)| match program {
            Program::Hub => true,
            Program::Agent { place: other, .. } | Program::Api { place: other } => *other == place,
        });
        let last = concerned.map(|(_, health)| health.well_at.max(health.mute_until)).max();
        last.unwrap_or_else(Instant::now).max(self.places[place].well_at) + heal
    }

    /// How long a small request may take when all is well: itself, and what is on the way before it.
    pub(crate) fn answer_max(&self, place: usize) -> Duration {
        let wan = self.places[place].wan;
        // One send buffer at each end, and a segment that is repeated.
        let ahead = Duration::from_secs_f64(128.0 * 1024.0 / wan.up.min(wan.down) as f64);
        Duration::from_secs(2) + ahead + self.round_trip(place) * 6
    }

    /// When work that began at `began` must have ended at the latest, however badly; nothing while all may be well.
    pub(crate) fn over_at(&self, place: usize, began: Instant) -> Option<Instant> {
        let lost_at = self.places[place].lost_at?;
        let hub = self.programs.get(&Program::Hub).filter(|hub| hub.state == State::Up)?;
        // What the hub does not see, it cannot end.
        if self.is_paused(Program::Hub) || self.is_paused_api(place) {
            return None;
        }
        Some(lost_at.max(began).max(hub.well_at) + self.beliefs.silence + self.beliefs.park)
    }

    fn agents(&self, place: usize) -> impl Iterator<Item = Program> {
        (0..self.places[place].n_agents).map(move |agent| Program::Agent { place, agent })
    }

    fn is_working(&self, program: Program) -> bool {
        self.state(program) == Some(State::Up) && !self.is_paused(program)
    }

    fn is_paused(&self, program: Program) -> bool {
        let fault = match program {
            Program::Hub => Fault::PauseHub,
            Program::Agent { place, agent } => Fault::PauseAgent { place, agent },
            Program::Api { place } => Fault::PauseApi { place },
        };
        self.faults.contains(&fault)
    }

    fn is_paused_api(&self, place: usize) -> bool {
        self.is_paused(Program::Api { place })
    }

    /// Whether any request could get to the API server and back.
    fn has_way(&self, place: usize) -> bool {
        let lives = |program| matches!(self.state(program), Some(State::Up | State::Draining)) && !self.is_paused(program);
        self.has_link(place)
            && lives(Program::Hub)
            && lives(Program::Api { place })
            && !self.faults.contains(&Fault::Throttle { place })
            && self.agents(place).any(lives)
    }

    fn has_link(&self, place: usize) -> bool {
        !self.faults.contains(&Fault::Cut { place }) && !self.faults.contains(&Fault::Stall { place })
    }

    fn round_trip(&self, place: usize) -> Duration {
        let wan = self.places[place].wan;
        let there_and_back = wan.round_trip() + 2 * wan.jitter;
        // A lost segment is a round trip and a timer more (RFC 6298).
        if wan.loss > 0.0 { 2 * there_and_back + Duration::from_millis(200) } else { there_and_back }
    }

    /// A hub that drained answered dials with 503, after which an agent waits up to its `max-retry`.
    fn refusals(&self, program: Program) -> Duration {
        let has_refused = program == Program::Hub && self.state(program) == Some(State::Draining);
        if has_refused { self.beliefs.answered } else { Duration::ZERO }
    }

    fn turn(&mut self, program: Program, state: State, rest: Duration) {
        self.unwell(program, rest);
        if let Some(health) = self.programs.get_mut(&program) {
            health.state = state;
        }
    }

    fn unwell(&mut self, program: Program, rest: Duration) {
        if let Some(health) = self.programs.get_mut(&program) {
            health.well_at = health.well_at.max(Instant::now() + rest);
        }
    }

    fn mute(&mut self, program: Program, rest: Duration) {
        if let Some(health) = self.programs.get_mut(&program) {
            health.mute_until = Instant::now() + rest;
        }
    }

    fn changed(&mut self, fault: Fault) {
        for (place, state) in self.places.iter_mut().enumerate() {
            let here = match fault {
                Fault::RefuseHub | Fault::PauseHub => true,
                Fault::Cut { place: other }
                | Fault::Stall { place: other }
                | Fault::Degrade { place: other, .. }
                | Fault::RefuseApi { place: other }
                | Fault::PauseAgent { place: other, .. }
                | Fault::PauseApi { place: other }
                | Fault::Throttle { place: other } => other == place,
            };
            state.n_changes += u64::from(here);
        }
        self.count_losses(Instant::now());
    }

    /// Notes since when the hub has lost all agents of a place.
    fn count_losses(&mut self, now: Instant) {
        let lost: Vec<_> = (0..self.places.len())
            .map(|place| !self.has_link(place) || !self.agents(place).any(|agent| self.is_working(agent)))
            .collect();
        for (place, lost) in self.places.iter_mut().zip(lost) {
            place.lost_at = if lost { place.lost_at.or(Some(now)) } else { None };
        }
    }
}

impl Blow {
    fn touches(self, place: usize) -> bool {
        match self {
            Self::Crash(program) | Self::Vanish(program) | Self::Drain(program) | Self::Restart(program) => match program {
                Program::Hub => true,
                Program::Agent { place: other, .. } | Program::Api { place: other } => other == place,
            },
            Self::Reset { place: other } => other == place,
            Self::Skew { .. } | Self::Compact { .. } | Self::Beat { .. } => false,
        }
    }
}
