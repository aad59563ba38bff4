//! How long the way keeps a connection on which nothing is said: one trial for each silence, all side by side.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use host::BoxFuture;
use tokio::time::timeout;

use super::report::{Report, Step, Verdict};
use super::{Patient, STEP_MAX};
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

/// What a good outcome does not say, since the kernel speaks on the connection of a trial as on that of a session.
const AWAKE: &str =
    "(what counts TCP segments, such as NAT, is kept awake every 30 s by the kernel's own keepalive, in sessions too)";

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
        report.tell(Step::Idle, &found.verdict(self.config.keepalive));
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
        let Ok(Ok(mut open)) = timeout(STEP_MAX, self.try_out()).await else { return (silence, Outcome::NotTried) };
        if !matches!(outcome(&mut open).await, Outcome::Survived) {
            return (silence, Outcome::NotTried);
        }
        tokio::time::sleep(silence).await;
        (silence, outcome(&mut open).await)
    }
}

async fn outcome(open: &mut OpenTrial) -> Outcome {
    match timeout(ANSWER_MAX, open.trial.echo()).await {
        Ok(Ok(_)) => Outcome::Survived,
        Ok(Err(_)) | Err(_) => Outcome::Killed,
    }
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

    /// `given` is --keepalive.
    fn verdict(self, given: Option<Duration>) -> Verdict {
        let keepalive = given.unwrap_or(KEEPALIVE);
        let suffices = match given {
            Some(given) => format!("--keepalive {} suffices", shown(given)),
            None => format!("the agent's own keepalive of {} suffices", shown(KEEPALIVE)),
        };
        let untried = match self.n_untried {
            0 => String::new(),
            n => format!(" ({n} silences could not be tried)"),
        };
        match (self.survived, self.killed) {
            (None, None) => Verdict::Skipped("no trial came about; other doctors may be at work for this cluster".to_owned()),
            (Some(survived), None) => {
                Verdict::fine(format!("{} without a word are survived{untried}; {suffices}\n{AWAKE}", shown(survived)))
            }
            // One of them by luck, or by another of several ways.
            (Some(survived), Some(killed)) if survived >= killed => Verdict::warning(
                format!("{} without a word are not survived, and {} are{untried}", shown(killed), shown(survived)),
                "The outcomes did not come out in order, so ask again.",
            ),
            (survived, Some(killed)) => {
                let seen = match survived {
                    Some(survived) => {
                        format!("{} without a word are survived, {} are not{untried}", shown(survived), shown(killed))
                    }
                    None => format!("{} without a word are not survived{untried}", shown(killed)),
                };
                let is_seen_to_suffice = survived.is_some_and(|survived| keepalive <= survived);
                if keepalive < killed && (keepalive <= killed / 2 || is_seen_to_suffice) {
                    return Verdict::fine(format!("{seen}; {suffices}\n{AWAKE}"));
                }
                let keepalive = (survived.unwrap_or(killed) / 2).clamp(KEEPALIVE_MIN, KEEPALIVE);
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
        for (survived, killed, given, expected) in [
            (600, 0, 0, "own keepalive of 8s suffices"),
            (30, 60, 0, "own keepalive of 8s suffices"),
            (10, 30, 0, "own keepalive of 8s suffices"),
            (7, 10, 0, "give --keepalive 3s."),
            (4, 7, 0, "give --keepalive 2s."),
            (2, 4, 0, "give --keepalive 1s."),
            (0, 2, 0, "give --keepalive 1s."),
            (4, 7, 4, "--keepalive 4s suffices"),
            (4, 7, 5, "give --keepalive 2s."),
            (2, 4, 1, "--keepalive 1s suffices"),
            // Nobody tried less, and it is half.
            (0, 2, 1, "--keepalive 1s suffices"),
            (0, 4, 3, "give --keepalive 2s."),
            (600, 0, 2, "--keepalive 2s suffices"),
            // One of them by luck.
            (60, 4, 0, "did not come out in order, so ask again."),
            (0, 0, 0, "Skipped"),
        ] {
            let given = (given > 0).then_some(Duration::from_secs(given));
            let verdict = format!("{:?}", found(survived, killed).verdict(given));
            assert!(verdict.contains(expected), "{survived} {killed} {given:?}: {verdict}");
        }
    }
}
