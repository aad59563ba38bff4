//! The clusters file while the server runs: looked at, and taken whole when it says something new.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host::Host;
use sha2::{Digest, Sha256};

use super::{Changes, Roster};
use crate::config::clusters;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// How often the file is looked at: a revoked token ends its sessions within this and a moment.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Mistakes of one file that are logged one by one: enough to see what kind of file it is.
const MISTAKES_TOLD_MAX: usize = 10;

/// Keeps the roster as the file says, and ends the sessions that it no longer admits.
pub(crate) struct ClustersFile {
    pub(crate) host: Host,
    pub(crate) path: String,
    pub(crate) roster: Arc<Roster>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
}

impl ClustersFile {
    /// Looks again and again; never ends.
    pub(crate) async fn follow(&self) {
        // Nothing was seen yet: the file may have changed since the command line was read.
        let mut seen = None;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let read = self.host.read_file(&self.path);
            // The digest, for the file is full of secrets. One that cannot be read is as different as any other.
            let content: Result<[u8; 32], _> = read.as_ref().map(|bytes| Sha256::digest(bytes).into()).map_err(io::Error::kind);
            if seen != Some(content) {
                seen = Some(content);
                self.take(read);
            }
        }
    }

    fn take(&self, read: io::Result<Vec<u8>>) {
        match clusters::judge(&format!("--clusters {}", self.path), read) {
            Ok(clusters) => {
                let changes = self.roster.replace(&clusters.list);
                if changes == Changes::default() {
                    return;
                }
                let n_sessions_ended = self.registry.follow(&self.roster, &changes);
                for warning in clusters.warnings {
                    tracing::warn!("{warning}");
                }
                let Changes { added, removed, changed, rekeyed: _ } = changes;
                tracing::info!(file = self.path, ?added, ?removed, ?changed, n_sessions_ended, "clusters file taken");
            }
            Err(errors) => {
                self.metrics.clusters_file_refused.inc();
                for error in errors.iter().take(MISTAKES_TOLD_MAX) {
                    tracing::warn!(%error, "the new clusters file is refused, the old one stays");
                }
                if let n_more @ 1.. = errors.len().saturating_sub(MISTAKES_TOLD_MAX) {
                    tracing::warn!(file = self.path, n_more, "the new clusters file has more mistakes");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use host::{BoxFuture, Connection, Listen, System, Tasks};

    use super::*;
    use crate::config::ServerConfig;

    /// A disk on which one read fails, and nothing else.
    #[derive(Debug)]
    struct Disk {
        n_reads: AtomicUsize,
        failing: usize,
    }

    impl System for Disk {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            unimplemented!("no network")
        }
        fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
            unimplemented!("no network")
        }
        fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
            unimplemented!("no network")
        }
        fn read_file(&self, _: &str) -> io::Result<Vec<u8>> {
            if self.n_reads.fetch_add(1, Ordering::Relaxed) == self.failing {
                return Err(io::Error::other("too many open files"));
            }
            Ok(br#"[{"id": "a", "token": "new"}]"#.to_vec())
        }
        fn wall_clock(&self) -> std::time::SystemTime {
            std::time::UNIX_EPOCH
        }
        fn chance(&self) -> u64 {
            4
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_survives_any_read_that_fails() {
        for failing in 0..3 {
            let host = Host::new(Arc::new(Disk { n_reads: AtomicUsize::new(0), failing }), Tasks::new());
            let old = clusters::parse("CLUSTERS", r#"[{"id": "a", "token": "old"}]"#).expect("a good list").list;
            let roster = Arc::new(Roster::new(&old));
            let registry = Arc::new(Registry::new(&ServerConfig { clusters: old, ..ServerConfig::default() }, host.clone()));
            let metrics = Arc::new(Metrics::new(&host, registry.clone(), Arc::new(tunnel::Budget::new(1))));
            let file = ClustersFile { host, path: "clusters.json".to_owned(), roster: roster.clone(), registry, metrics };
            tokio::time::timeout(5 * LOOK_INTERVAL, file.follow()).await.expect_err("it never ends");
            assert!(roster.cluster_of(b"old").is_none(), "the revoked token is still good, read {failing} failed");
        }
    }
}
