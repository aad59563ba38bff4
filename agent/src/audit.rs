//! The cluster's side of the audit log: the hub's head for its checkpoints, and the hub that is told its own.

use std::sync::{Arc, OnceLock, Weak};

use host::Host;
use proxy::audit::{Log, PeerHead, Peers, Program, Writer};
use proxy::program::StartError;

use crate::Agent;
use crate::config::AgentConfig;

const PROGRAM: Program = Program { name: crate::PROGRAM, version: env!("CARGO_PKG_VERSION") };

/// The log, if one is kept, its writer, which is still to be run, and where the agent has to be put whose hub is meant.
pub(crate) async fn open(config: &AgentConfig, host: &Host) -> Result<Option<(Arc<Log>, Writer, Arc<Hub>)>, StartError> {
    let Some(config) = &config.audit else { return Ok(None) };
    let (log, writer) = config.open(host, &PROGRAM).await?;
    let hub = Arc::<Hub>::default();
    Ok(Some((log, writer.with_peers(hub.clone()), hub)))
}

/// The hub, by the sessions of an agent with it.
#[derive(Default)]
pub(crate) struct Hub {
    /// The agent owns the log, which owns this.
    pub(crate) agent: OnceLock<Weak<Agent>>,
}

impl Hub {
    fn agent(&self) -> Option<Arc<Agent>> {
        self.agent.get().and_then(Weak::upgrade)
    }
}

impl Peers for Hub {
    fn heads(&self) -> Vec<PeerHead> {
        let handles = self.agent().map(|agent| agent.sessions.handles()).unwrap_or_default();
        let heads = handles.iter().filter_map(|handle| {
            let hello = handle.peer().filter(|hello| !hello.note.is_empty())?;
            let name = hello.program().to_owned();
            Some(PeerHead { cluster: String::new(), name, note: hello.note })
        });
        heads.collect()
    }

    fn tell(&self, head: &str) {
        let handles = self.agent().map(|agent| agent.sessions.handles()).unwrap_or_default();
        handles.iter().for_each(|handle| handle.tell(head.to_owned()));
    }
}
