//! How long the way keeps a connection on which nothing is said: one trial for each silence, all side by side.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use host::BoxFuture;
use tokio::time::timeout;

use super::Patient;
use super::report::{Report, Step, Verdict};
use crate::connect::OpenTrial;

/// The silences that middleboxes are known for: 30 s and 60 s of proxies, 2 min and 5 min of carriers' NAT, 350 s of AWS, 4 min
/// and 15 min of Azure, an hour of firewalls.
const SILENCES: [Duration; 8] = [
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(2 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(20 * 60),
    Duration::from_secs(60 * 60),
];

/// How long an answer may take after a silence: a connection that was forgotten swallows the question.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How often an agent pings without being told: by then nothing on the way has been idle for longer.
const KEEPALIVE: Duration = Duration::from_secs(8);

/// The keepalive is never told to be shorter than the agent's shortest.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Silences below the first of [`SILENCES`], tried where that one is not survived: below them no keepalive helps.
const SHORT_SILENCES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(7)];

impl Patient {
    /// Tries silences up to `up_to`.
    pub(super) async fn idle(&self, up_to: Duration, report: &mut Report<'_>) {
        let silences: Vec<_> = SILENCES.into_iter().filter(|silence| *silence <= up_to).collect();
        let longest = silences.last().copied().unwrap_or_default();
        report.progress(&format!("trying silences up to {}, which takes as long", shown(longest)));
        let mut found = self.survived(&silences, report).await;
        if found.survived.is_none() && found.killed.is_some() {
            found = found.and(self.survived(&SHORT_SILENCES, report).await);
        }
        report.tell(Step::Idle, &found.verdict());
    }

    async fn survived(&self, silences: &[Duration], report: &mut Report<'_>) -> Found {
        let mut trials: FuturesUnordered<BoxFuture<'_, (Duration, Outcome)>> = FuturesUnordered::new();
        for silence in silences {
            trials.push(Box::pin(self.is_survived(*silence)));
        }
        let mut found = Found::default();
        while let Some((silence, outcome)) = trials.next().await {
            match outcome {
                Outcome::Survived => found.survived = found.survived.max(Some(silence)),
                Outcome::Killed => found.killed = Some(found.killed.map_or(silence, |killed| killed.min(silence))),
                Outcome::NotTried => found.n_untried += 1,
            }
            report.progress(&format!("{}: {}", shown(silence), outcome.word()));
        }
        found
    }

    async fn is_survived(&self, silence: Duration) -> (Duration, Outcome) {
        let Ok(mut open) = self.try_out().await else { return (silence, Outcome::NotTried) };
        if !answers(&mut open).await {
            return (silence, Outcome::NotTried);
        }
        tokio::time::sleep(silence).await;
        (silence, if answers(&mut open).await { Outcome::Survived } else { Outcome::Killed })
    }
}

async fn answers(open: &mut OpenTrial) -> bool {
    matches!(timeout(ANSWER_MAX, open.trial.echo()).await, Ok(Ok(_)))
}

/// What became of one silence.
#[derive(Clone, Copy)]
enum Outcome {
    Survived,
    Killed,
    /// No trial came about.
    NotTried,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Survived => "the connection still works",
            Self::Killed => "the connection was forgotten",
            Self::NotTried => "could not be tried",
        }
    }
}

/// What is known of the way's patience.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    /// The longest silence that was survived.
    survived: Option<Duration>,
    /// The shortest that was not.
    killed: Option<Duration>,
    n_untried: usize,
}

impl Found {
    fn and(self, other: Self) -> Self {
        let killed = self.killed.into_iter().chain(other.killed).min();
        Self { survived: self.survived.max(other.survived), killed, n_untried: self.n_untried + other.n_untried }
    }

    fn verdict(self) -> Verdict {
        let untried = match self.n_untried {
            0 => String::new(),
            n => format!(" ({n} silences could not be tried)"),
        };
        match (self.survived, self.killed) {
            (None, None) => Verdict::Skipped("no trial came about; other doctors may be at work for this cluster".to_owned()),
            (Some(survived), None) => Verdict::fine(format!(
                "{} without a word are survived{untried}; the agent's own keepalive of {} suffices",
                shown(survived),
                shown(KEEPALIVE)
            )),
            // Survived by luck, or by another of several ways, is not to be relied on.
            (survived, Some(killed)) => {
                let survived = survived.filter(|survived| *survived < killed);
                let seen = match survived {
                    Some(survived) => {
                        format!("{} without a word are survived, {} are not{untried}", shown(survived), shown(killed))
                    }
                    None => format!("{} without a word are not survived{untried}", shown(killed)),
                };
                let safe = survived.unwrap_or(killed) / 2;
                if killed > KEEPALIVE && survived.is_some_and(|survived| survived >= KEEPALIVE) {
                    return Verdict::fine(format!("{seen}; the agent's own keepalive of {} suffices", shown(KEEPALIVE)));
                }
                let keepalive = safe.max(KEEPALIVE_MIN).min(KEEPALIVE);
                let fix = format!(
                    "Something on the way forgets connections sooner than the agent pings, so give --keepalive {}.",
                    shown(keepalive)
                );
                Verdict::failed(seen, fix)
            }
        }
    }
}

/// As a flag takes it.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(survived: u64, killed: u64) -> Found {
        let seconds = |n: u64| (n > 0).then_some(Duration::from_secs(n));
        Found { survived: seconds(survived), killed: seconds(killed), n_untried: 0 }
    }

    #[test]
    fn a_keepalive_is_asked_for_where_the_agents_own_is_too_late() {
        for (survived, killed, expected) in [
            (600, 0, "Fine"),
            (30, 60, "Fine"),
            (10, 30, "Fine"),
            (7, 10, "give --keepalive 3s."),
            (4, 7, "give --keepalive 2s."),
            (2, 4, "give --keepalive 1s."),
            (0, 2, "give --keepalive 1s."),
            // Survived by luck.
            (60, 4, "give --keepalive 2s."),
            (0, 0, "Skipped"),
        ] {
            let verdict = format!("{:?}", found(survived, killed).verdict());
            assert!(verdict.contains(expected), "{survived} {killed}: {verdict}");
        }
    }
}
