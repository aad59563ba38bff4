//! Move: what a random walk may do, and Walk: a world and a row of moves, drawn from one seed before any of it happens.

mod draw;

use std::time::Duration;

use crate::errands::Errand;
use crate::fabric::Wan;
use crate::world::World;

/// Pods of each cluster: a few pages of [`crate::errands::Work::List`].
pub(crate) const PODS: usize = 7;

/// A walk: everything that chance decides about it. Any part of its moves is a walk too.
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// From which the world's own chance is drawn.
    pub seed: u64,
    /// The clusters, `edge-1` first.
    pub places: Vec<Place>,
    /// What a session may hold, if less than usual.
    pub budget: Option<usize>,
    /// Streams of a session, if fewer than usual.
    pub streams_max: Option<usize>,
    /// At how many seconds sessions are renewed, if ever.
    pub age_max: Option<u64>,
    /// What happens.
    pub moves: Vec<Move>,
}

/// One cluster of a walk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Its name.
    pub name: &'static str,
    /// What lies between it and the hub.
    pub way: Way,
    /// How many agents it has.
    pub n_agents: usize,
}

/// The named links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the constants of Wan say")]
pub enum Way {
    Lan,
    Ocean,
    Satellite,
    CoffeeShop,
    Metered,
}

/// One move. What makes no sense when its turn comes (healing what is whole) is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Time passes.
    Pass {
        /// How much.
        ms: u64,
    },
    /// Asks every cluster that must be reachable, and looks at what must have ended.
    Look,
    /// A fault that lasts begins.
    Begin(Fault),
    /// It is over.
    End(Fault),
    /// Something happens at once.
    Strike(Blow),
    /// A caller begins a piece of work.
    Start(Errand),
    /// A caller leaves in the middle of the `nth` open piece of work, counted round and round.
    Cancel {
        /// Which.
        nth: usize,
    },
}

/// A fault that lasts. `place` and `agent` count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "as the verbs of Story say")]
pub enum Fault {
    Cut { place: usize },
    Stall { place: usize },
    Degrade { place: usize, to: usize },
    RefuseHub,
    RefuseApi { place: usize },
    PauseHub,
    PauseAgent { place: usize, agent: usize },
    PauseApi { place: usize },
    Throttle { place: usize },
}

/// What happens at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the verbs of Story say")]
pub enum Blow {
    Reset {
        place: usize,
    },
    Crash(Program),
    Vanish(Program),
    Drain(Program),
    Restart(Program),
    Skew {
        program: Program,
        seconds: i64,
    },
    /// The API server forgets its history.
    Compact {
        place: usize,
    },
    /// Something changes in the cluster, for watches to see.
    Beat {
        place: usize,
    },
}

/// A program on a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Program {
    Hub,
    Agent { place: usize, agent: usize },
    Api { place: usize },
}

impl Move {
    /// Whether what it befalls is there.
    pub(crate) fn fits(&self, places: &[Place]) -> bool {
        let has = |place: usize| place < places.len();
        let runs = |program: Program| match program {
            Program::Hub => true,
            Program::Api { place } => has(place),
            Program::Agent { place, agent } => places.get(place).is_some_and(|place| agent < place.n_agents),
        };
        match *self {
            Self::Pass { .. } | Self::Look | Self::Cancel { .. } => true,
            Self::Start(errand) => places.iter().any(|place| place.name == errand.cluster),
            Self::Begin(fault) | Self::End(fault) => match fault {
                Fault::RefuseHub | Fault::PauseHub => true,
                Fault::PauseAgent { place, agent } => runs(Program::Agent { place, agent }),
                Fault::Cut { place }
                | Fault::Stall { place }
                | Fault::Degrade { place, .. }
                | Fault::RefuseApi { place }
                | Fault::PauseApi { place }
                | Fault::Throttle { place } => has(place),
            },
            Self::Strike(blow) => match blow {
                Blow::Crash(program) | Blow::Vanish(program) | Blow::Drain(program) | Blow::Restart(program) => runs(program),
                Blow::Skew { program, .. } => runs(program),
                Blow::Reset { place } | Blow::Compact { place } | Blow::Beat { place } => has(place),
            },
        }
    }
}

impl Way {
    /// Every named link.
    pub const ALL: [Self; 5] = [Self::Lan, Self::Ocean, Self::Satellite, Self::CoffeeShop, Self::Metered];

    /// Its quality.
    pub fn wan(self) -> Wan {
        match self {
            Self::Lan => Wan::LAN,
            Self::Ocean => Wan::OCEAN,
            Self::Satellite => Wan::SATELLITE,
            Self::CoffeeShop => Wan::COFFEE_SHOP,
            Self::Metered => Wan::METERED,
        }
    }

    /// As a story names it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Lan => "Wan::LAN",
            Self::Ocean => "Wan::OCEAN",
            Self::Satellite => "Wan::SATELLITE",
            Self::CoffeeShop => "Wan::COFFEE_SHOP",
            Self::Metered => "Wan::METERED",
        }
    }
}

impl Walk {
    /// The world that it goes through.
    pub fn world(&self) -> World {
        let mut world = World::new().seed(self.seed).hub(|hub| {
            hub.with(|config| {
                config.session_budget = self.budget.unwrap_or(config.session_budget);
                config.streams_max = self.streams_max.unwrap_or(config.streams_max);
            })
        });
        for place in &self.places {
            world = world.cluster(place.name, |c| {
                c.over(place.way.wan()).agents(place.n_agents).pods(PODS).with(|config| {
                    config.session_budget = self.budget.unwrap_or(config.session_budget);
                    config.session_age_max = self.age_max.map(Duration::from_secs);
                })
            });
        }
        world
    }
}
