//! Guesses: who fails to authenticate again and again waits longer and longer for its "no".
//!
//! A right token is looked for first and served at once, whatever others did. Failures count by where they come from and by
//! the first bytes of the token's digest, so that behind one address, which may be a whole fleet, an agent with an old token
//! does not wait for its neighbours' failures.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::Source;
use tokio::time::Instant;

use crate::auth::TokenDigest;

/// Failures that are answered at once: a token that was rotated a moment too early, a few agents behind one address.
const FREE: u32 = 4;

/// What the first failure beyond them waits; each one more waits twice as long.
const DELAY_MIN: Duration = Duration::from_millis(250);

/// No answer waits longer: an agent gives up its dial after 10 s, and then would never hear why.
const DELAY_MAX: Duration = Duration::from_secs(4);

/// One failure is forgiven in this time.
const FORGIVEN: Duration = Duration::from_secs(60);

/// Bytes of a digest by which failures count: few enough that guesses from one place soon meet, enough that neighbours with
/// different tokens do not.
const PREFIX: usize = 2;

/// Failures that are remembered, in two halves of which the older is forgotten when the younger is full. Somebody who fails
/// from everywhere makes us forget, which favours whoever failed and harms nobody.
const HALF_MAX: usize = 16 * 1024;

type Key = (Option<Source>, [u8; PREFIX]);

/// Who failed to authenticate, and how often.
#[derive(Default)]
pub(crate) struct Guesses(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: BTreeMap<Key, Failures>,
    old: BTreeMap<Key, Failures>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    /// Up to when failures were forgiven.
    since: Instant,
}

impl Guesses {
    /// A token that is not good came from `source`: how long its answer has to wait.
    pub(crate) fn failed(&self, source: Option<Source>, token: &TokenDigest) -> Duration {
        let now = Instant::now();
        let key = (source, token.prefix());
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = halves.young.get(&key).or_else(|| halves.old.get(&key)).copied();
        let mut failures = known.unwrap_or(Failures { count: 0, since: now });
        failures.forgive(now);
        failures.count += 1;
        if halves.young.len() >= HALF_MAX && !halves.young.contains_key(&key) {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, failures);
        failures.delay()
    }
}

impl Failures {
    fn forgive(&mut self, now: Instant) {
        let forgiven = u32::try_from((now - self.since).as_secs() / FORGIVEN.as_secs()).unwrap_or(u32::MAX);
        self.count = self.count.saturating_sub(forgiven);
        self.since = if self.count == 0 { now } else { self.since + FORGIVEN * forgiven };
    }

    fn delay(&self) -> Duration {
        match self.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(beyond) => DELAY_MIN.saturating_mul(2_u32.saturating_pow(beyond)).min(DELAY_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use host::TrustedProxies;

    use super::*;

    fn source(address: &str) -> Option<Source> {
        let direct: TrustedProxies = "direct".parse().expect("direct");
        direct.source(address.parse().expect("an address"))
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_and_again_waits_longer_and_is_forgiven() {
        let guesses = Guesses::default();
        let (place, token) = (source("192.0.2.1"), TokenDigest::of_bytes(b"wrong"));
        let mut delays = Vec::new();
        for _ in 0..12 {
            delays.push(guesses.failed(place, &token).as_millis());
        }
        assert_eq!(delays, [0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 4000, 4000, 4000]);
        tokio::time::advance(FORGIVEN * 7).await;
        assert_eq!(guesses.failed(place, &token).as_millis(), 500);
        tokio::time::advance(FORGIVEN * 100).await;
        assert_eq!(guesses.failed(place, &token).as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_failures_elsewhere_or_with_another_token() {
        let guesses = Guesses::default();
        for _ in 0..100 {
            guesses.failed(source("192.0.2.1"), &TokenDigest::of_bytes(b"wrong"));
        }
        assert!(guesses.failed(source("192.0.2.1"), &TokenDigest::of_bytes(b"old")).is_zero());
        assert!(guesses.failed(source("192.0.2.2"), &TokenDigest::of_bytes(b"wrong")).is_zero());
        assert!(!guesses.failed(source("192.0.2.1"), &TokenDigest::of_bytes(b"wrong")).is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_from_everywhere_are_held_in_bounded_maps() {
        let guesses = Guesses::default();
        for n in 0..3 * HALF_MAX as u32 {
            let address = std::net::Ipv4Addr::from_bits(n).to_string();
            guesses.failed(source(&address), &TokenDigest::of_bytes(b"wrong"));
            let halves = guesses.0.lock().expect("unpoisoned");
            assert!(halves.young.len() <= HALF_MAX && halves.old.len() <= HALF_MAX);
        }
    }
}
