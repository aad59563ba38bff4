//! Writes that come to nothing: each waits by itself, longer each time, and keeps no other from being made.

use std::collections::BTreeMap;
use std::time::Duration;

use host::Backoff;
use tokio::time::Instant;

use super::plan::Action;
use super::secret::ConfigDigest;
use super::{LIST_INTERVAL, RETRY_FIRST, RETRY_MAX};

/// The longest wait while somebody else changes each write at once: a webhook that bends Secrets is mended by people.
const BENT_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Refusals in a row, each of another Secret, after which the API server is taken to be ill: it is asked for no more in this look.
pub(super) const REFUSED_IN_A_ROW_MAX: usize = 5;

/// What is remembered of them.
pub(super) struct Setbacks {
    of: BTreeMap<String, Setback>,
    /// Waits of all of them, while the API server is taken to be ill.
    ill: Backoff,
    ill_until: Option<Instant>,
}

/// One Secret that is not as it should be.
struct Setback {
    /// What was wanted: anything else is tried at once.
    of: ConfigDigest,
    n: u32,
    retry_at: Instant,
    backoff: Backoff,
    why: Why,
}

/// What a write has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It was refused; what is told anew when it changes.
    Refused((&'static str, u16)),
    /// It was carried out, and the Secret is another all the same.
    Bent,
}

impl Default for Setbacks {
    fn default() -> Self {
        Self { of: BTreeMap::new(), ill: Backoff::new(RETRY_FIRST, RETRY_MAX), ill_until: None }
    }
}

impl Setbacks {
    /// Whether everything that was wanted was done.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Forgets those of which nothing is wanted any more, and puts those to the end that failed most: none waits behind them.
    pub(super) fn settle(&mut self, actions: &mut [Action]) {
        self.of.retain(|name, _| actions.iter().any(|action| action.name() == name));
        if self.of.is_empty() {
            self.ill.reset();
            self.ill_until = None;
        }
        actions.sort_by_key(|action| self.of.get(action.name()).map_or(0, |setback| setback.n));
    }

    /// Whether it is not yet time to try this again.
    pub(super) fn waits(&self, action: &Action) -> bool {
        let (now, is_ill) = (Instant::now(), self.ill_until.is_some_and(|until| until > Instant::now()));
        let setback = self.of.get(action.name());
        setback.is_some_and(|setback| is_ill || setback.retry_at > now && setback.of == action.digest())
    }

    /// It came to nothing once more. Whether that is news.
    pub(super) fn add(&mut self, action: &Action, why: Why, chance: u64) -> bool {
        let (of, old) = (action.digest(), self.of.remove(action.name()));
        let is_news = old.as_ref().is_none_or(|old| old.why != why);
        let new = || Setback { of, n: 0, retry_at: Instant::now(), backoff: why.backoff(), why };
        let mut setback = old.filter(|old| old.why == why && old.of == of).unwrap_or_else(new);
        setback.n = setback.n.saturating_add(1);
        let least = if why == Why::Bent { LIST_INTERVAL } else { Duration::ZERO };
        setback.retry_at = Instant::now() + least + setback.backoff.next(chance);
        self.of.insert(action.name().to_owned(), setback);
        is_news
    }

    /// The API server does nothing for one after the other: all that has failed waits longer.
    pub(super) fn fall_ill(&mut self, chance: u64) {
        self.ill_until = Some(Instant::now() + self.ill.next(chance));
    }

    /// When the next is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.of.values().map(|setback| setback.retry_at).min();
        next.max(self.ill_until.filter(|_| next.is_some()))
    }
}

impl Why {
    fn backoff(self) -> Backoff {
        match self {
            Self::Refused(_) => Backoff::new(RETRY_FIRST, RETRY_MAX),
            Self::Bent => Backoff::new(LIST_INTERVAL, BENT_WAIT_MAX),
        }
    }
}
