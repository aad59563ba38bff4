//! The hub's side of the audit log: whose heads its checkpoints carry, and who is told its own.

use std::sync::Arc;

use host::Host;
use proxy::audit::{Log, PeerHead, Peers, Program, Writer};
use proxy::program::StartError;

use crate::config::ServerConfig;
use crate::registry::Registry;

const PROGRAM: Program = Program { name: "postern-server", version: env!("CARGO_PKG_VERSION") };

/// The log, if one is kept, and its writer, which is still to be run.
pub(crate) async fn open(
    config: &ServerConfig,
    host: &Host,
    registry: Arc<Registry>,
) -> Result<(Option<Arc<Log>>, Option<Writer>), StartError> {
    let Some(config) = &config.audit else { return Ok((None, None)) };
    let (log, writer) = config.open(host, &PROGRAM).await?;
    Ok((Some(log), Some(writer.with_peers(Arc::new(Agents { registry })))))
}

/// All agents that are connected.
struct Agents {
    registry: Arc<Registry>,
}

impl Peers for Agents {
    fn heads(&self) -> Vec<PeerHead> {
        let sessions = self.registry.sessions().into_iter();
        let heads = sessions.filter_map(|(cluster, handle)| {
            let hello = handle.peer().filter(|hello| !hello.note.is_empty())?;
            let name = hello.program().to_owned();
            Some(PeerHead { cluster: cluster.to_string(), name, note: hello.note })
        });
        heads.collect()
    }

    fn tell(&self, head: &str) {
        self.registry.sessions().iter().for_each(|(_, handle)| handle.tell(head.to_owned()));
    }
}
