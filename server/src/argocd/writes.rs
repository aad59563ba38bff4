//! The writes of one look, each under the condition that nobody wrote in between.

use std::collections::BTreeMap;

use http::StatusCode;

use super::Registration;
use super::api::{ApiError, Session};
use super::memory::Memory;
use super::plan::Action;
use super::secret::{ConfigDigest, Found};
use super::setbacks::{REFUSED_IN_A_ROW_MAX, Why};

/// Who has a name that is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// The cluster's own Secret, which was not listed yet.
    Ours,
    Others,
}

impl Registration {
    /// Writes; what was carried out, or `None` when something was found to be other than it was thought, so that all must be
    /// read again.
    pub(super) async fn carry_out(
        &self,
        actions: &[Action],
        is_fresh: bool,
        session: &mut Option<Session>,
        memory: &mut Memory,
    ) -> Result<Option<BTreeMap<String, ConfigDigest>>, ApiError> {
        let (mut is_stale, mut n_refused, mut written) = (false, 0, BTreeMap::new());
        for action in actions {
            // Who has a name is asked as often as the Secrets are listed.
            if memory.setbacks.waits(action) || memory.is_taken(action) && !is_fresh {
                continue;
            }
            let session = self.session(session).await?;
            match self.write(action, session, memory).await {
                Ok(is_done) => {
                    is_stale |= !is_done;
                    n_refused = 0;
                    written.insert(action.name().to_owned(), action.digest());
                }
                // One that is refused keeps none of the others from being written.
                Err(error) if error.is_of_one() => {
                    self.is_refused(action, &error, memory);
                    n_refused += 1;
                    if n_refused >= REFUSED_IN_A_ROW_MAX {
                        memory.setbacks.fall_ill(self.host.chance());
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((!is_stale).then_some(written))
    }

    fn is_refused(&self, action: &Action, error: &ApiError, memory: &mut Memory) {
        if memory.setbacks.add(action, Why::Refused(error.label()), self.host.chance()) {
            let why = proxy::program::chain(error);
            let secret = action.name();
            tracing::warn!(secret, why, "registration in Argo CD fails for a Secret: it stays as it is, and is tried again");
        }
    }

    /// Carries one write out. False when it was made for a Secret that is another now.
    async fn write(&self, action: &Action, session: &mut Session, memory: &mut Memory) -> Result<bool, ApiError> {
        if let Action::Create { name, cluster, .. } = action
            && memory.taken.contains_key(name)
        {
            match self.holder(name, cluster, session, memory).await? {
                Holder::Nobody => {}
                Holder::Ours => return Ok(false),
                Holder::Others => return Ok(true),
            }
        }
        match (session.write(action).await, action) {
            (Ok(secret), _) => {
                memory.found.retain(|found| found.name != action.name());
                memory.found.extend(secret.and_then(Found::of));
                self.account.wrote(action);
                tracing::info!(secret = action.name(), "{}", action.told());
                Ok(true)
            }
            (Err(error), Action::Create { name, cluster, .. }) if error.is(StatusCode::CONFLICT) => {
                Ok(self.holder(name, cluster, session, memory).await? == Holder::Others)
            }
            (Err(error), Action::Patch { .. } | Action::Delete { .. })
                if error.is(StatusCode::CONFLICT) || error.is(StatusCode::NOT_FOUND) =>
            {
                Ok(false)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Looks who has a name that a cluster's Secret needs, and tells it once of others.
    async fn holder(&self, name: &str, cluster: &str, session: &mut Session, memory: &mut Memory) -> Result<Holder, ApiError> {
        let there = session.get(name).await?.and_then(Found::of);
        let owner = match &there {
            Some(there) if there.cluster_of(&self.config.hub) != Some(cluster) => there.owner(&self.config.hub),
            there => {
                memory.taken.remove(name);
                return Ok(if there.is_some() { Holder::Ours } else { Holder::Nobody });
            }
        };
        if memory.taken.get(name) != Some(&owner) {
            let cure = "delete or rename it, and the cluster is registered within a minute";
            tracing::warn!(
                cluster,
                secret = name,
                owner,
                cure,
                "a cluster is not registered in Argo CD: its Secret's name is taken"
            );
            memory.taken.insert(name.to_owned(), owner);
        }
        Ok(Holder::Others)
    }
}
