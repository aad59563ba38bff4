//! What a story claims when one end of the tunnel speaks version 1.

use crate::world::{Player, World};

/// What a story claims when one end of the tunnel speaks version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The same as between extended peers: the story is told again with such a peer.
    Same,
    /// Less, in these words: the story is told again, and asks [`crate::story::Story::claims_less`].
    Less(&'static str),
    /// Nothing, for this reason.
    Nothing(&'static str),
}

/// Why a version 1 server promises nothing: what the story is about happens at the front door.
pub const FRONT_DOOR: &str = "its front door is its own, with limits and words of Go's net/http";

/// Why a version 1 server promises nothing: there a request does not wait for an agent that is about to be back.
pub const NO_PARKING: &str = "it answers 502 at once while no agent is there";

/// Why a version 1 peer promises nothing: it takes what comes and cannot be slowed down.
pub const NO_CREDIT: &str = "without credit a slow reader's bytes are held up to a bound, and then cut";

/// The weaker claim of a peer that knows no early data.
pub const TWO_TRIPS: &str = "two round trips: Connect is answered before the request is sent";

/// Why a version 1 agent promises nothing: when it dials again is not for us to say.
pub const GO_WAITS: &str = "how a Go agent waits is its own business";

/// Why a version 1 peer promises nothing: its streams have no classes.
pub const NO_TURNS: &str = "it sends in the order in which it reads, whatever is urgent";

/// What a story claims with a version 1 agent and with a version 1 server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promises {
    pub(crate) agent: Promise,
    pub(crate) server: Promise,
}

/// One telling of a story.
pub(crate) struct Telling {
    pub(crate) world: World,
    /// Which end is played by another version, for people.
    pub(crate) cast: &'static str,
    /// The weaker claim, in words.
    pub(crate) less: Option<&'static str>,
}

/// The world as planned, and again with every peer of version 1 that the plan promises something of.
///
/// # Panics
/// If the plan does not say what it promises, and has no version 1 peer of its own.
pub(crate) fn tellings(world: World) -> Vec<Telling> {
    let is_version_1 = world.hub.is_version_1 || world.clusters.iter().any(|cluster| cluster.played_by == Player::Version1);
    let promises = world.promises;
    assert!(
        promises.is_some() || is_version_1 || world.clusters.is_empty(),
        "this story does not say what it claims with version 1 peers: call World::version_1(agent, server)"
    );
    let mut tellings = Vec::new();
    if let Some(Promises { agent, server }) = promises {
        let mut with_agent = world.clone();
        for cluster in &mut with_agent.clusters {
            if cluster.played_by == Player::Product {
                cluster.played_by = Player::Version1;
            }
        }
        let mut with_server = world.clone();
        with_server.hub.is_version_1 = true;
        let variants = [("with a version 1 agent", with_agent, agent), ("with a version 1 server", with_server, server)];
        for (cast, world, promise) in variants {
            match promise {
                Promise::Same => tellings.push(Telling { world, cast, less: None }),
                Promise::Less(words) => tellings.push(Telling { world, cast, less: Some(words) }),
                Promise::Nothing(_) => {}
            }
        }
    }
    tellings.insert(0, Telling { world, cast: "", less: None });
    tellings
}
