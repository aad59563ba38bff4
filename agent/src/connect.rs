//! The loop that keeps the agent connected: dial, serve, back off, again, for ever.

mod dial;

use std::sync::Arc;
use std::time::Duration;

use host::{Backoff, Drain};
use tokio::time::Instant;
use tracing::Instrument;
use tunnel::{Reason, SessionHandle};

use crate::Agent;
use crate::serve;
pub(crate) use dial::{Dialled, Dialler};

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
    Drain,
}

/// Keeps a session to the hub until `drain` starts, then lets what runs finish.
pub(crate) async fn stay_connected(agent: Arc<Agent>, mut drain: Drain) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, agent.config.retry_max);
    // The session that is to be replaced by the next one.
    let mut old: Option<SessionHandle> = None;
    loop {
        let dialled = tokio::select! {
            biased;
            () = drain.started() => break,
            dialled = agent.dialler.dial() => dialled,
        };
        let wait = match dialled {
            Ok(session) => {
                if let Some(old) = old.take() {
                    old.go_away(Reason::Draining, agent.config.drain_max);
                }
                let began = Instant::now();
                let handle = session.handle.clone();
                let n = agent.metrics.connected();
                let span = tracing::info_span!("session", session = n);
                let held = agent.hold(handle.clone());
                agent.host.spawn("session", serve::serve(agent.clone(), session, held).instrument(span));
                let turn = watch(&agent, &handle, &mut drain).await;
                let was_calm = began.elapsed() >= CALM;
                if was_calm {
                    backoff.reset();
                }
                match turn {
                    Turn::Drain => break,
                    Turn::DialAnother => {
                        old = Some(handle);
                        match was_calm {
                            true => Duration::ZERO,
                            // A hub that sends everybody on at once must not be dialled in a circle.
                            false => backoff.next_up_to(UNANSWERED_MAX, agent.host.chance()),
                        }
                    }
                    Turn::Ended => backoff.next_up_to(UNANSWERED_MAX, agent.host.chance()),
                }
            }
            Err(error) => {
                let wait = match error.is_answered() {
                    true => backoff.next(agent.host.chance()),
                    false => backoff.next_up_to(UNANSWERED_MAX, agent.host.chance()),
                };
                tracing::warn!(%error, server = %agent.config.server, retry_in = ?wait, "failed to connect to the hub");
                wait
            }
        };
        tokio::select! {
            biased;
            () = drain.started() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    agent.finish().await;
}

async fn watch(agent: &Agent, session: &SessionHandle, drain: &mut Drain) -> Turn {
    let too_old = async {
        match agent.config.session_age_max {
            Some(age) => tokio::time::sleep(age).await,
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
        () = too_old => {
            tracing::info!("the session is renewed before it is too old");
            Turn::DialAnother
        }
    }
}
