//! A listener and the connections that came through it: counted, limited, waited for.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::{Connection, Drain, Host, Listen};

/// The pause after a failed accept: the usual cause is a lack of file descriptors, which only time cures.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections that come late, at once: each is told to go elsewhere, which takes no time.
const LATE_MAX: usize = 256;

/// Whether a connection came too late to be served in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is served.
    No,
    /// It came during a drain.
    Draining,
    /// All places are taken.
    Crowded,
}

/// A bound listener whose connections are served as tasks.
pub struct Door {
    name: &'static str,
    listener: Box<dyn Listen>,
    connections_max: u32,
    room: Arc<Semaphore>,
    late_room: Arc<Semaphore>,
}

impl Door {
    /// Binds `addr`. At most `connections_max` connections are served at once; more are late.
    pub async fn bind(host: &Host, name: &'static str, addr: SocketAddr, connections_max: u32) -> io::Result<Self> {
        let listener = host.listen(addr).await?;
        tracing::info!(name, addr = %listener.local_addr(), "listening");
        let room = Arc::new(Semaphore::new(connections_max as usize));
        Ok(Self { name, listener, connections_max, room, late_room: Arc::new(Semaphore::new(LATE_MAX)) })
    }

    /// The address that was really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves connections until dropped. `serve` hears of those that come during a drain, or when all places are taken, as
    /// late: they are to hear a "no" or a word on health, not silence, and do not count for [`Door::emptied`].
    pub async fn serve<F>(&self, host: &Host, drain: Drain, serve: impl Fn(Connection, Late) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            match self.listener.accept().await {
                Ok(connection) => {
                    let Ok((permit, late)) = self.place(drain.is_started()).await else { return };
                    let served = serve(connection, late);
                    host.spawn(self.name, async move {
                        served.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(name = self.name, %error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Resolves when no connection from before the drain is left.
    pub async fn emptied(&self) {
        // The semaphore is never closed.
        let _ = self.room.acquire_many(self.connections_max).await;
    }

    /// Fails never: the semaphores are not closed.
    async fn place(&self, is_draining: bool) -> Result<(OwnedSemaphorePermit, Late), AcquireError> {
        let late = match self.room.clone().try_acquire_owned() {
            Ok(permit) if !is_draining => return Ok((permit, Late::No)),
            Ok(_) | Err(_) if is_draining => Late::Draining,
            Ok(_) | Err(_) => Late::Crowded,
        };
        Ok((self.late_room.clone().acquire_owned().await?, late))
    }
}
