//! What registration remembers from one look to the next.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::plan::Action;
use super::returns::Returns;
use super::secret::Found;
use super::setbacks::Setbacks;

/// All of it; a restart begins with nothing.
#[derive(Default)]
pub(super) struct Memory {
    /// What was there when it was listed, with what was written since.
    pub(super) found: Vec<Found>,
    pub(super) listed_at: Option<Instant>,
    /// Names that somebody else has, and whose they are.
    pub(super) taken: BTreeMap<String, String>,
    /// Who is away, and who is back.
    pub(super) returns: Returns,
    /// Writes that came to nothing.
    pub(super) setbacks: Setbacks,
    pub(super) had_setbacks: bool,
    /// What is wrong with all of it, if anything is.
    pub(super) failing: Option<(&'static str, u16)>,
}

impl Memory {
    /// Whether it would make what has the name of somebody else's.
    pub(super) fn is_taken(&self, action: &Action) -> bool {
        action.is_creation() && self.taken.contains_key(action.name())
    }
}
