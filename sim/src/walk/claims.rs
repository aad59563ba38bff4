//! What a walk claims: after each move for nothing, at a look by asking, and at the end of everything.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use tokio::time::Instant;

use super::{Begun, Finding, Walker, Written};
use crate::errands::{End, Work};
use crate::model::{Reach, State};
use crate::moves::{Blow, Program};
use crate::story::{Within, millis};

impl Walker<'_> {
    /// Looks at the work that has ended since the last move.
    pub(super) fn harvest(&mut self) -> anyhow::Result<()> {
        let (ended, open) =
            std::mem::take(&mut self.errands).into_iter().partition(|begun| !matches!(begun.running.end(), Ok(None)));
        self.errands = open;
        let ended: Vec<Begun> = ended;
        for begun in ended {
            let code = format!("anyhow::ensure!(errand_{}.end()?.is_none_or(|end| end == End::Served));", begun.n);
            let end = begun.running.end().map_err(|claim| Finding {
                kind: "wrong data",
                claim: format!("errand {}: {claim:#}", begun.n),
                code: format!("errand_{}.end()?;", begun.n),
            })?;
            let is_calm = begun.n_changes == self.model.n_changes(begun.place);
            match end {
                Some(End::No(words)) if is_calm && begun.reach == Reach::Reachable && !self.may_fail(&begun, &words) => {
                    let claim = format!("errand {}, {:?}, failed while all was well: {words}", begun.n, begun.running.errand);
                    anyhow::bail!(Finding { kind: "failed while all was well", claim, code });
                }
                Some(End::Served) if is_calm && begun.reach == Reach::Unreachable && !is_abort(&begun) => {
                    let claim = format!("errand {}, {:?}, was served where there is no way", begun.n, begun.running.errand);
                    let code = format!("anyhow::ensure!(errand_{}.end()? != Some(End::Served));", begun.n);
                    anyhow::bail!(Finding { kind: "a wonder", claim, code });
                }
                Some(End::Served | End::No(_)) | None => self.leave(begun),
            }
        }
        Ok(())
    }

    /// Lets go of work; a write is counted later.
    pub(super) fn leave(&mut self, begun: Begun) {
        if begun.running.errand.work == Work::Create {
            let end = begun.running.end().ok().flatten();
            let told_to_repeat = end.is_some() && begun.running.was_told_to_repeat();
            self.writes.push(Written { n: begun.n, place: begun.place, served: end == Some(End::Served), told_to_repeat });
        }
    }

    /// What is allowed to fail although all is well.
    fn may_fail(&self, begun: &Begun, words: &str) -> bool {
        // A session that is renewed ends what outlasts the drain of the old one.
        self.may_be_full(words) || self.walk.age_max.is_some() && begun.running.errand.is_endless()
    }

    /// A session of few streams or bytes may be full, and says so.
    fn may_be_full(&self, words: &str) -> bool {
        let is_small = self.walk.streams_max.is_some() || self.walk.budget.is_some();
        // The compaction of a history is the API server's own business.
        words.starts_with("410 ")
            || words.contains(r#""code":410"#)
            || is_small && (words.contains("SessionFull") || words.contains("NotTaken"))
    }

    /// Asks every cluster that must be reachable, and looks whether what must have ended has.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        self.overdue()?;
        for place in 0..self.walk.places.len() {
            if self.model.reach(place) != Reach::Reachable {
                continue;
            }
            let (name, limit) = (self.name(place), self.model.answer_max(place));
            let code = format!(
                "s.kubectl().get(\"{name}\", \"/version\").within(millis({})).await?.expect(StatusCode::OK)?;",
                limit.as_millis()
            );
            let asked = self.s.kubectl().get(name, "/version").within(millis(limit.as_millis() as u64)).await;
            let is_full = |words: &str| self.may_be_full(words) && self.errands.iter().any(|begun| begun.place == place);
            match asked.and_then(|reply| reply.expect(StatusCode::OK)) {
                Err(error) if !is_full(&format!("{error:#}")) => {
                    let claim = format!("{name} must be reachable: {error:#}");
                    anyhow::bail!(Finding { kind: "not reachable", claim, code });
                }
                Ok(_) | Err(_) => self.say(&code),
            }
        }
        self.harvest()
    }

    /// Claims that nothing runs whose session has been dead for too long.
    fn overdue(&self) -> anyhow::Result<()> {
        for begun in &self.errands {
            let Some(over_at) = self.model.over_at(begun.place, begun.running.began) else { continue };
            if Instant::now() > over_at + begun.running.errand.patience() {
                return Err(self.hangs(begun));
            }
        }
        Ok(())
    }

    fn hangs(&self, begun: &Begun) -> anyhow::Error {
        let claim =
            format!("errand {}, {:?}, began {:?} ago and hangs", begun.n, begun.running.errand, begun.running.began.elapsed());
        let code = format!("anyhow::ensure!(errand_{}.end()?.is_some(), \"it hangs\");", begun.n);
        Finding { kind: "hangs", claim, code }.into()
    }

    /// Ends every fault and starts what is down.
    pub(super) async fn heal_all(&mut self) -> anyhow::Result<()> {
        for fault in self.model.faults() {
            self.end(fault);
        }
        for program in self.model.down() {
            if self.model.state(program) == Some(State::Draining) {
                self.drained(program).await?;
            }
            self.strike(Blow::Restart(program));
        }
        self.harvest()
    }

    async fn drained(&mut self, program: Program) -> anyhow::Result<()> {
        let (machine, limit) = (self.machine(program), self.beliefs.drain);
        let code = format!(
            "s.until(\"{machine} has ended\", || s.machine(\"{machine}\").tasks().is_empty()).within(millis({})).await?;",
            limit.as_millis()
        );
        let ended =
            self.s.until(&format!("{machine} has ended"), || self.s.machine(&machine).tasks().is_empty()).within(limit).await;
        if ended.is_err() {
            let claim = format!("{machine} drains for ever: {:?}", self.s.machine(&machine).tasks());
            anyhow::bail!(Finding { kind: "drains for ever", claim, code });
        }
        self.say(&code);
        Ok(())
    }

    /// After the end of all misfortune: all is reachable, what ends has ended, and what goes on is up to date.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        let dues: Vec<_> = (0..self.walk.places.len()).map(|place| self.model.due(place)).collect();
        for due in dues {
            let rest = due.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                self.pass(rest + Duration::from_millis(1)).await;
            }
            self.look().await?;
        }
        let patience = self.errands.iter().map(|begun| begun.running.errand.patience()).max().unwrap_or_default();
        self.pass(self.beliefs.silence + self.beliefs.park + patience).await;
        self.harvest()?;
        for begun in &self.errands {
            if !begun.running.errand.is_endless() {
                return Err(self.hangs(begun));
            }
            begun.running.is_up_to_date(&self.s).map_err(|claim| Finding {
                kind: "silent",
                claim: format!("errand {}: {claim:#}", begun.n),
                code: format!("errand_{}.is_up_to_date(&s)?;", begun.n),
            })?;
        }
        for begun in std::mem::take(&mut self.errands) {
            self.leave(begun);
        }
        self.writes.iter().try_for_each(|write| self.count(write)).context("a write")
    }

    /// A write that was answered with success was executed once, any other at most once, and not at all if the caller
    /// was told to repeat it.
    fn count(&self, write: &Written) -> anyhow::Result<()> {
        let prefix = format!("once-{}-", write.n);
        let name = self.name(write.place);
        let n = self.s.api(name).executed_writes().iter().filter(|write| write.name.starts_with(&prefix)).count();
        let code = |wanted: &str| {
            format!(
                "let writes = s.api(\"{name}\").executed_writes();\n\
                 let n_executed = writes.iter().filter(|write| write.name.starts_with(\"{prefix}\")).count();\n\
                 anyhow::ensure!(n_executed {wanted}, \"it was executed {{n_executed}} times\");"
            )
        };
        let kind = match n {
            0 if write.served => Some(("a write was lost", "== 1")),
            1 if write.told_to_repeat => Some(("a write was executed that is to be repeated", "== 0")),
            0 | 1 => None,
            _ => Some(("a write was executed twice", "<= 1")),
        };
        if let Some((kind, wanted)) = kind {
            let claim = format!("errand {} of {name} was executed {n} times", write.n);
            anyhow::bail!(Finding { kind, claim, code: code(wanted) });
        }
        Ok(())
    }
}

/// Work that is served when its answer breaks off, which it may do in many ways.
fn is_abort(begun: &Begun) -> bool {
    matches!(begun.running.errand.work, Work::Broken { .. })
}
