//! The sessions that are up, each with what its hub has shown. One whose hub would not be believed any longer takes nothing new
//! and ends soon, or at once if the same hub has not proved itself since.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::certificate::PeerCertificate;
use tunnel::{Reason, SessionHandle, Totals};

use crate::Agent;

/// How long what runs on an outdated session may go on: Argo CD begins each watch anew after ten minutes.
const OUTDATED_MAX: Duration = Duration::from_secs(15 * 60);

/// All sessions of one agent. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    up: BTreeMap<u64, Served>,
    /// What those that have ended came to.
    past: Totals,
}

struct Served {
    handle: SessionHandle,
    /// The hub's process; empty for version 1.
    hub: String,
    certificate: Option<PeerCertificate>,
    is_outdated: Arc<AtomicBool>,
}

/// A session that is up; counts as such until dropped.
pub(crate) struct Held {
    agent: Arc<Agent>,
    key: u64,
    is_outdated: Arc<AtomicBool>,
}

impl Held {
    /// Whether the session takes no new streams.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }
}

impl Sessions {
    pub(crate) fn handles(&self) -> Vec<SessionHandle> {
        self.table().up.values().map(|session| session.handle.clone()).collect()
    }

    /// The sessions that are up, and what those that have ended came to.
    pub(crate) fn seen(&self) -> (Totals, Vec<SessionHandle>) {
        let table = self.table();
        (table.past, table.up.values().map(|session| session.handle.clone()).collect())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Counts a session as up, whose hub has shown a `certificate`.
    ///
    /// Older ones whose hub would not be believed by now are outdated if it is the same hub that has proved itself anew by
    /// this one; another's end.
    pub(crate) fn hold(self: &Arc<Self>, handle: SessionHandle, certificate: Option<PeerCertificate>) -> Held {
        let hub = handle.peer().map(|peer| peer.name).unwrap_or_default();
        self.audit.iter().for_each(|log| handle.tell(log.head()));
        let mut table = self.sessions.table();
        let sessions = &mut table.up;
        for older in sessions.values().filter(|older| !self.dialer.trusts(older.certificate.as_ref())) {
            match !hub.is_empty() && older.hub == hub {
                true => self.outdate(older),
                false => disown(older),
            }
        }
        let key = sessions.last_key_value().map_or(0, |(last, _)| last + 1);
        let is_outdated = Arc::new(AtomicBool::new(false));
        sessions.insert(key, Served { handle, hub, certificate, is_outdated: is_outdated.clone() });
        self.metrics.sessions.set(i64::try_from(sessions.len()).unwrap_or(i64::MAX));
        Held { agent: self.clone(), key, is_outdated }
    }

    /// Who was dialled could not prove to be the hub: sessions with whom would not be believed either end. Those of a hub that
    /// would are good, whoever may stand in the way of a new one.
    pub(crate) fn disown_hub(&self) {
        self.sessions.table().up.values().filter(|session| !self.dialer.trusts(session.certificate.as_ref())).for_each(disown);
    }

    fn outdate(&self, session: &Served) {
        if session.is_outdated.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::info!("a session is outdated: what its hub has shown is believed no longer, and the hub has shown better since");
        let handle = session.handle.clone();
        self.host.spawn("outdated session", async move {
            if tokio::time::timeout(OUTDATED_MAX, handle.ended()).await.is_err() {
                handle.close(Reason::Revoked);
            }
        });
    }
}

fn disown(session: &Served) {
    tracing::warn!("a session is ended: what its hub has shown is believed no longer");
    session.handle.close(Reason::Revoked);
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.agent.sessions.table();
        if let Some(ended) = table.up.remove(&self.key) {
            table.past.add(&ended.handle.stats());
        }
        self.agent.metrics.sessions.set(i64::try_from(table.up.len()).unwrap_or(i64::MAX));
    }
}
