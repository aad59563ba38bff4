//! The loop that keeps the agent connected: dial, serve, back off, again, for ever.

mod answer;
mod dial;
mod failure;
mod token;
mod trial;
mod way;

use std::sync::Arc;
use std::time::Duration;

use host::{Backoff, Drain};
use tokio::time::Instant;
use tracing::Instrument;
use tunnel::{Reason, SessionHandle};

use crate::Agent;
use crate::serve;
pub(crate) use answer::{TOO_MANY_TRIALS, is_of_hub};
pub(crate) use dial::{Dialed, Dialer};
pub(crate) use failure::DialError;
pub(crate) use token::{Token, read_token};
pub(crate) use trial::{OpenTrial, Word};
pub(crate) use way::{ProxyError, Way, cannot_reach_hub, proxy_cannot_reach_hub, read_credentials, wants_credentials};

/// The first ceiling of the back-off; each wait is drawn below its ceiling.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// A dial that nobody answered is repeated within this: the hub is being restarted or the network is away, and either
/// may be back at any moment. Only an answered refusal waits longer.
const UNANSWERED_MAX: Duration = Duration::from_secs(5);

/// A session that lived this long shows that all is well: the next back-off starts afresh.
const CALM: Duration = Duration::from_secs(30);

/// Why the loop looks up from a session.
enum Turn {
    Ended,
    DialAnother,
    /// Another is dialled in a while, with what has changed of the files; this one serves until then.
    IdentityChanged,
    /// Another is dialled beside it, at once, and given up if this one is heard before.
    Suspect,
    Drain,
}

/// The session that is to be replaced by the next one.
struct Old {
    handle: SessionHandle,
    identity: u64,
    began: Instant,
    /// Whether it stays if it is trusted again before the next one is there.
    suspect: bool,
}

impl Old {
    /// Resolves when the session is good after all.
    async fn trusted(old: Option<&Self>) {
        match old.filter(|old| old.suspect) {
            Some(old) => old.handle.suspicion(false).await,
            None => std::future::pending().await,
        }
    }
}

/// How a dial ended, or why it need not.
enum Outcome {
    Dialed(Result<Dialed, DialError>),
    Trusted,
}

/// Keeps a session to the hub until `drain` starts, then lets what runs finish.
pub(crate) async fn stay_connected(agent: Arc<Agent>, mut drain: Drain) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, agent.config.retry_max);
    let mut old: Option<Old> = None;
    loop {
        let dialed_at = Instant::now();
        let outcome = tokio::select! {
            biased;
            () = drain.started() => break,
            () = Old::trusted(old.as_ref()) => Outcome::Trusted,
            dialled = agent.dialer.dial() => Outcome::Dialed(dialled),
        };
        let (wait, held) = match outcome {
            Outcome::Dialed(Ok(session)) => {
                if let Some(old) = old.take() {
                    old.handle.go_away(Reason::Draining, agent.config.drain_max);
                }
                let identity = session.identity;
                (Duration::ZERO, Some((begin(&agent, session), identity, Instant::now())))
            }
            Outcome::Dialed(Err(error)) => {
                let wait = wait_after(&error, dialed_at.elapsed(), &mut backoff, agent.host.chance());
                agent.metrics.dial_failed(&error);
                tracing::warn!(%error, server = %agent.config.server, retry_in = ?wait, "failed to connect to the hub");
                if error.is_of_hubs_certificate() {
                    agent.disown_hub();
                }
                (wait, None)
            }
            Outcome::Trusted => {
                tracing::info!("the hub answers again on the session that it has");
                (Duration::ZERO, old.take().map(|old| (old.handle, old.identity, old.began)))
            }
        };
        let wait = match held {
            None => wait,
            Some((handle, identity, began)) => {
                let turn = watch(&agent, &handle, identity, began, &mut drain).await;
                let was_calm = began.elapsed() >= CALM;
                if was_calm {
                    backoff.reset();
                }
                let (suspect, wait) = match turn {
                    Turn::Drain => break,
                    Turn::Suspect => (Some(true), Duration::ZERO),
                    Turn::DialAnother if was_calm => (Some(false), Duration::ZERO),
                    // A fleet is given a new CA at one and the same moment.
                    Turn::IdentityChanged => {
                        (Some(false), Backoff::new(UNANSWERED_MAX, UNANSWERED_MAX).next(agent.host.chance()))
                    }
                    // A hub that sends everybody on at once must not be dialled in a circle.
                    Turn::DialAnother => (Some(false), backoff.next_up_to(UNANSWERED_MAX, agent.host.chance())),
                    Turn::Ended => (None, backoff.next_up_to(UNANSWERED_MAX, agent.host.chance())),
                };
                old = suspect.map(|suspect| Old { handle, identity, began, suspect });
                wait
            }
        };
        tokio::select! {
            biased;
            () = drain.started() => break,
            // The next turn of the loop looks at it again.
            () = Old::trusted(old.as_ref()) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    agent.finish().await;
}

/// How long to wait after a dial that took `elapsed` and failed.
fn wait_after(error: &DialError, elapsed: Duration, backoff: &mut Backoff, chance: u64) -> Duration {
    match error.is_answered() {
        true => backoff.next(chance),
        // Who waited for an answer in vain has waited.
        false => backoff.next_up_to(UNANSWERED_MAX, chance).saturating_sub(elapsed),
    }
}

/// Has the session served.
fn begin(agent: &Arc<Agent>, session: Dialed) -> SessionHandle {
    let handle = session.handle.clone();
    let n = agent.metrics.connected();
    let span = tracing::info_span!("session", session = n);
    let held = agent.hold(handle.clone(), session.certificate.clone());
    agent.host.spawn("session", serve::serve(agent.clone(), session, held).instrument(span));
    handle
}

async fn watch(agent: &Agent, session: &SessionHandle, identity: u64, began: Instant, drain: &mut Drain) -> Turn {
    let too_old = async {
        match agent.config.session_age_max {
            Some(age) => tokio::time::sleep_until(began + age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = drain.started() => Turn::Drain,
        _ = session.ended() => Turn::Ended,
        (reason, grace) = session.going_away() => {
            tracing::info!(%reason, ?grace, "the hub asks to dial another session first");
            Turn::DialAnother
        }
        () = session.suspicion(true) => {
            tracing::info!("the hub does not answer; another session is dialled beside this one");
            Turn::Suspect
        }
        () = agent.dialer.identity_changed(identity) => {
            tracing::info!("what the hub is shown or known by has changed; another session is dialled with it");
            Turn::IdentityChanged
        }
        () = too_old => {
            tracing::info!("the session is renewed before it is too old");
            Turn::DialAnother
        }
    }
}
