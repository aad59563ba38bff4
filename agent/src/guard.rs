//! What this agent lets through, even for a trusted server: what always holds, the customer's policy, and a freeze.
//!
//! Policy and freeze change while requests run: whoever keeps one open waits for [`Guard::closes`].

mod freezer;
mod judgement;
mod policy;
mod refused;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use host::Host;
use host::watched::{Contents, Watched, if_any};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proxy::flags::ConfigError;
use proxy::program::StartError;

use crate::config::AgentConfig;
use crate::metrics::help;
use freezer::Freezer;
pub(crate) use judgement::Asked;
use judgement::judge;
use policy::Policy;
pub(crate) use refused::Refused;

/// What the reference says of the guard.
pub(crate) const CHAPTER: &str = include_str!("guard/chapter.md");

/// The word on every request.
pub(crate) struct Guard {
    policy: Option<Arc<Watched<Policy>>>,
    pub(crate) freezer: Freezer,
    n_refused: Family<Reason, Counter>,
    n_cut: Family<Reason, Counter>,
    frozen: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Guard {
    /// Reads the policy, if `config` names one, and whether a freeze was ordered.
    ///
    /// # Errors
    /// The policy's first mistake.
    pub(crate) fn new(config: &AgentConfig, host: &Host, registry: &mut Registry) -> Result<Self, StartError> {
        let read = |path: &String| {
            let watched = path.clone();
            Watched::new(host, "guard", vec![path.clone()], move |contents| policy_of(contents, &watched))
        };
        let policy = config.guard.as_ref().map(read).transpose().map_err(|mistake| StartError::Config(vec![mistake]))?;
        let (n_refused, n_cut, frozen) = (Family::default(), Family::default(), Gauge::default());
        registry.register("agent_guard_refused", help("agent_guard_refused"), n_refused.clone());
        registry.register("agent_guard_cut", help("agent_guard_cut"), n_cut.clone());
        registry.register("agent_frozen", help("agent_frozen"), frozen.clone());
        let freezer = Freezer::new(host, config.state_dir.as_deref());
        Ok(Self { policy, freezer, n_refused, n_cut, frozen })
    }

    /// Whether a request may be sent on at this moment; counts it if not.
    pub(crate) fn admit(&self, asked: &Asked) -> Result<(), Refused> {
        let judged = self.judge(asked);
        if let Err(refused) = &judged {
            if asked.is_probe() {
                // As often as the hub asks, for as long as a freeze lasts.
                tracing::debug!(why = %refused, "the hub's probe was refused by the guard");
                return judged;
            }
            tracing::info!(why = %refused, "refused by the guard");
            self.n_refused.get_or_create(&Reason { reason: refused.label() }).inc();
        }
        judged
    }

    /// Resolves once a request that had passed would pass no longer; never while none has.
    pub(crate) async fn closes(&self, passed: &OnceLock<Asked>) -> Refused {
        if self.policy.is_none() && !self.freezer.takes_orders() {
            return std::future::pending().await;
        }
        loop {
            // Before the look, so that no change is missed after it.
            let changed = self.changed();
            if let Some(Err(refused)) = passed.get().map(|asked| self.judge(asked)) {
                self.n_cut.get_or_create(&Reason { reason: refused.label() }).inc();
                return refused;
            }
            changed.await;
        }
    }

    /// Who keeps the cluster frozen at this moment.
    pub(crate) fn frozen_by(&self) -> FrozenBy {
        FrozenBy { policy: self.policy.as_ref().is_some_and(|policy| policy.get().frozen), order: self.freezer.is_frozen() }
    }

    /// Brings the metrics of what is, not of what happened, up to date.
    pub(crate) fn tell_state(&self) {
        self.frozen.set(i64::from(self.frozen_by().is_any()));
    }

    fn judge(&self, asked: &Asked) -> Result<(), Refused> {
        let is_frozen = self.freezer.is_frozen();
        match &self.policy {
            Some(policy) => judge(asked, &policy.get(), is_frozen),
            None => judge(asked, &Policy::default(), is_frozen),
        }
    }

    /// Resolves at the first change of policy or freeze after this call, polled or not.
    fn changed(&self) -> impl Future<Output = ()> + use<> {
        let policy = if_any(self.policy.as_ref().map(|policy| policy.changed()));
        let freeze = self.freezer.changed();
        async move {
            tokio::select! {
                biased;
                () = freeze => {}
                () = policy => {}
            }
        }
    }
}

/// Reads a policy once, for its mistakes.
///
/// # Errors
/// The first of them.
pub(crate) fn read(host: &Host, path: &str) -> Result<Policy, ConfigError> {
    policy_of(&Contents::read(host, &[path.to_owned()]), path)
}

fn policy_of(contents: &Contents, path: &str) -> Result<Policy, ConfigError> {
    let place = format!("--guard {path}");
    let bytes = contents.of(path).map_err(|unread| ConfigError::new(&*place, unread.to_string()))?;
    Policy::read(&place, bytes)
}

/// Who keeps a cluster frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrozenBy {
    pub(crate) policy: bool,
    pub(crate) order: bool,
}

impl FrozenBy {
    fn is_any(self) -> bool {
        self.policy || self.order
    }
}

impl fmt::Display for FrozenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.policy, self.order) {
            (true, true) => "frozen by the guard's file and by order",
            (true, false) => "frozen by the guard's file",
            (false, true) => "frozen by order",
            (false, false) => "not frozen",
        })
    }
}
