//! Token, WebSocket upgrade, round trip: whether the hub takes this agent, and whether the way carries what they say.

use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;
use tunnel::trial::BULK_BYTES;

use super::report::{Report, Step, Verdict};
use super::{Patient, STEP_MAX, bounded};
use crate::connect::{DialError, OpenTrial, TOO_MANY_TRIALS, Word, cannot_reach_hub, is_of_hub};

/// Round trips that are measured: the first may wait for a radio to wake up.
const ECHOES: usize = 5;

/// A way whose round trip is longer is told to be slow: requests take several.
const ROUND_TRIP_SLOW: Duration = Duration::from_secs(1);

/// What to do about a gateway's word that nobody answered it.
const GATEWAY: &str =
    "A gateway answers in the hub's place and cannot reach it, so look whether the hub runs, and at the gateway's way to it.";

impl Patient {
    /// Whether a trial came about, so that silences can be tried.
    pub(super) async fn session(&self, report: &mut Report<'_>) -> bool {
        let mut word = None;
        report.tell(Step::Token, &bounded(self.token(&mut word)).await);
        let upgrade = match word {
            None => Err(Verdict::needs(Step::Token)),
            Some(Word { knows_trials: false, .. }) => Err(Verdict::Skipped(
                "the hub cannot tell a trial from a session, and another session might end that of an agent that runs".to_owned(),
            )),
            Some(_) => self.upgrade().await,
        };
        match upgrade {
            Ok(open) => {
                report.tell(Step::WebSocket, &Verdict::fine("a session begins, and was used for nothing but this"));
                report.tell(Step::Speed, &bounded(speed(open)).await);
                true
            }
            Err(verdict) => {
                report.tell(Step::WebSocket, &verdict);
                report.tell(Step::Speed, &Verdict::needs(Step::WebSocket));
                false
            }
        }
    }

    /// A connection over which the hub is spoken to, believed.
    async fn to_hub(&self) -> Result<host::Connection, DialError> {
        let connection = self.dialer.way.dial(&self.config.server).await?;
        Ok(self.dialer.shake_hands(connection).await?.0)
    }

    /// Leaves the hub's word in `known` if it knows the token.
    async fn token(&self, known: &mut Option<Word>) -> Verdict {
        let asked = match self.to_hub().await {
            Ok(connection) => self.dialer.ask_leave(connection).await,
            Err(error) => Err(error),
        };
        let word = match asked {
            Ok(word) => word,
            Err(error @ DialError::Tls { .. }) => {
                return Verdict::failed(
                    error.to_string(),
                    "The hub did not take this agent's certificate, so give one of a CA that it knows by --client-cert and --client-key.",
                );
            }
            Err(error @ DialError::Silent) => {
                return Verdict::failed(
                    error.to_string(),
                    "What took the connection answers no request, so look at the gateway before the hub, and at the hub's own log.",
                );
            }
            Err(error) => {
                return Verdict::failed(error.to_string(), "What answers speaks no HTTP, so look at where --server leads.");
            }
        };
        if word.knows_trials || word.wants_websocket {
            let status = word.status;
            *known = Some(word);
            return Verdict::fine(format!("the hub knows it ({status} to a request that asks for no upgrade)"));
        }
        refused(&word, &self.config.server.path)
    }

    /// A trial, or what became of it.
    async fn upgrade(&self) -> Result<OpenTrial, Verdict> {
        let trial = timeout(STEP_MAX, self.try_out()).await.unwrap_or(Err(DialError::TooLong));
        trial.map_err(|error| {
            let seen = if matches!(error, DialError::NoHello(_)) {
                "the upgrade was answered with 101, and no hello of the tunnel came behind it in time".to_owned()
            } else {
                error.to_string()
            };
            let fix = match error {
                DialError::Refused { text, .. } if text == TOO_MANY_TRIALS => {
                    return Verdict::warning(seen, "Other doctors are at work for this cluster, so ask again in a minute.");
                }
                DialError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, text }
                    if is_of_hub(StatusCode::SERVICE_UNAVAILABLE, &text) =>
                {
                    return Verdict::warning(seen, "The hub takes nobody at this moment, so ask the doctor again in a minute.");
                }
                DialError::Refused { status, .. } if cannot_reach_hub(status) => GATEWAY,
                DialError::Refused { .. } => {
                    "The hub was not asked for an upgrade although the agent asks for one, so have the proxy or gateway on the way pass the headers Upgrade and Connection (nginx: proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection upgrade)."
                }
                DialError::NoHello(_) | DialError::Silent | DialError::TooLong => {
                    "The upgrade is answered and nothing comes behind the answer, so have the proxy or gateway on the way switch its buffering off (nginx: proxy_buffering off), or pass TLS through unread."
                }
                DialError::NotWebSocket(_)
                | DialError::Unreachable(_)
                | DialError::Proxy(_)
                | DialError::Tls { .. } => {
                    "Something on the way changes or cuts the upgrade, so have it pass WebSockets, or TLS as a whole, unread."
                }
            };
            Verdict::failed(seen, fix)
        })
    }

    pub(super) async fn try_out(&self) -> Result<OpenTrial, DialError> {
        self.dialer.try_out(self.to_hub().await?).await
    }
}

/// What a "no" to the token means, by whose it is.
fn refused(word: &Word, path: &str) -> Verdict {
    let (status, text) = (word.status, &word.text);
    let is_of_hub = is_of_hub(status, text);
    let who = if is_of_hub { "the hub" } else { "what stands at --server" };
    let seen = format!("{who} answered {status}: {text}");
    match status {
        StatusCode::UNAUTHORIZED if is_of_hub => Verdict::failed(
            seen,
            "The hub does not know this token, so put the token of this cluster's entry in the hub's clusters file into --token-file (or TOKEN).",
        ),
        StatusCode::FORBIDDEN if is_of_hub => Verdict::failed(
            seen,
            "The token is known and the certificate beside it is not the right one, so give the one that the hub's clusters file binds to it by --client-cert.",
        ),
        StatusCode::SERVICE_UNAVAILABLE if is_of_hub => {
            Verdict::warning(seen, "The hub takes nobody at this moment, so ask the doctor again in a minute.")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => Verdict::failed(
            seen,
            format!(
                "This {} is not a hub's answer, so look at the gateway or firewall before the hub, whose rules keep the agent out.",
                status.as_u16()
            ),
        ),
        StatusCode::NOT_FOUND => Verdict::failed(
            seen,
            format!("Nothing is known at {path}, so have --server lead to the hub's public listener, with the path /connect."),
        ),
        status if cannot_reach_hub(status) => Verdict::failed(seen, GATEWAY),
        _ => {
            Verdict::failed(seen, "What answers is not a hub, so correct --server, or the rule of the gateway that leads to it.")
        }
    }
}

async fn speed(mut open: OpenTrial) -> Verdict {
    let trial = &mut open.trial;
    let measured = async {
        let mut best = trial.echo().await?;
        for _ in 1..ECHOES {
            best = best.min(trial.echo().await?);
        }
        Ok::<_, std::io::Error>((best, trial.receive_bulk().await?, trial.send_bulk().await?))
    };
    match measured.await {
        Ok((round_trip, down, up)) => {
            let seen = format!(
                "{} ms; 1 MiB comes in {} ms ({}) and goes in {} ms ({})",
                round_trip.as_millis(),
                down.as_millis(),
                rate(down),
                up.as_millis(),
                rate(up)
            );
            match round_trip > ROUND_TRIP_SLOW {
                false => Verdict::Fine(seen),
                true => Verdict::warning(
                    seen,
                    "Each request takes several round trips, so give callers longer timeouts, or this cluster a shorter way.",
                ),
            }
        }
        Err(error) => Verdict::failed(
            format!("the session broke while it was used: {error}"),
            "Something on the way begins sessions and cuts what they carry, so have it pass WebSockets, or TLS as a whole, unread.",
        ),
    }
}

fn rate(time: Duration) -> String {
    let bits = 8.0 * BULK_BYTES as f64;
    format!("{:.1} Mbit/s", bits / time.as_secs_f64().max(1e-6) / 1e6)
}
