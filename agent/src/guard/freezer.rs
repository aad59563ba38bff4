//! A freeze by order: a word in memory that counts at once, and a file that lets it outlive the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host::Host;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// What stands in the file; that it is there says all.
const CONTENT: &[u8] = b"frozen by order; postern-agent unfreeze ends it\n";

/// Whether everything is refused by order.
pub(crate) struct Freezer {
    host: Host,
    /// The file whose presence means frozen; `None` = orders cannot be given.
    path: Option<String>,
    is_frozen: AtomicBool,
    changed: Arc<Notify>,
}

impl Freezer {
    /// Begins as the last process ended. What cannot be told counts as frozen.
    pub(super) fn new(host: &Host, state_dir: Option<&str>) -> Self {
        let path = state_dir.map(|dir| format!("{dir}/frozen"));
        let is_frozen = path.as_ref().is_some_and(|path| match host.read_file(path) {
            Ok(_) => {
                tracing::warn!(file = path, "the cluster is frozen by an earlier order");
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(file = path, %error, "nobody can tell whether the cluster was frozen, so it is");
                true
            }
        });
        Self { host: host.clone(), path, is_frozen: AtomicBool::new(is_frozen), changed: Arc::default() }
    }

    pub(super) fn takes_orders(&self) -> bool {
        self.path.is_some()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Acquire)
    }

    /// Resolves at the first change after this call, polled or not.
    pub(super) fn changed(&self) -> OwnedNotified {
        self.changed.clone().notified_owned()
    }

    /// Freezes at once.
    ///
    /// # Errors
    /// If the order could not be written down: it holds, but only as long as the process.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.set(true);
        tracing::warn!("frozen by order");
        self.path.as_ref().map_or(Ok(()), |path| self.host.write_file(path, CONTENT))
    }

    /// Ends a freeze by order.
    ///
    /// # Errors
    /// If the order of before could not be taken back: then it still holds.
    pub(crate) fn unfreeze(&self) -> io::Result<()> {
        match self.path.as_ref().map_or(Ok(()), |path| self.host.remove_file(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It may be gone all the same, and the next process would begin without the freeze that this one keeps.
                if let Err(error) = self.path.as_ref().map_or(Ok(()), |path| self.host.write_file(path, CONTENT)) {
                    tracing::warn!(%error, "the freeze goes on, perhaps only as long as this process");
                }
                return Err(error);
            }
            Ok(()) | Err(_) => {}
        }
        tracing::warn!("the freeze by order is over");
        self.set(false);
        Ok(())
    }

    fn set(&self, is_frozen: bool) {
        self.is_frozen.store(is_frozen, Ordering::Release);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::SystemTime;

    use host::{BoxFuture, Connection, Listen, System, Tasks};

    use super::*;

    /// A disk with room for one file, whose folder cannot be synced once it is removed.
    #[derive(Default)]
    struct Disk {
        is_there: AtomicBool,
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
            if self.is_there.load(Ordering::Relaxed) { Ok(CONTENT.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
        }
        fn write_file(&self, _: &str, _: &[u8]) -> io::Result<()> {
            self.is_there.store(true, Ordering::Relaxed);
            Ok(())
        }
        fn remove_file(&self, _: &str) -> io::Result<()> {
            self.is_there.store(false, Ordering::Relaxed);
            Err(io::Error::other("the folder was not synced"))
        }
        fn wall_clock(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
        fn chance(&self) -> u64 {
            4
        }
    }

    #[test]
    fn a_freeze_that_could_not_be_ended_outlives_the_process_too() {
        let host = Host::new(Arc::new(Disk::default()), Tasks::new());
        let freezer = Freezer::new(&host, Some("/state"));
        freezer.freeze().expect("written");
        freezer.unfreeze().expect_err("the folder was not synced");
        assert!(freezer.is_frozen() && Freezer::new(&host, Some("/state")).is_frozen());
    }
}
