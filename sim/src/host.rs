//! A simulated machine as a program sees it: `Host` over the fabric.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use host::{BoxFuture, Connection, Listen, System};
use tokio::time::Instant;

use crate::fabric::{Fabric, Socket};
use crate::seed::Dice;
use crate::trace::Trace;

/// When every world begins: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// What a machine keeps while its programs come and go.
pub struct Disk {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How far the wall clock is ahead of the world's, in milliseconds.
    skew_ms: Mutex<i64>,
    dice: Mutex<Dice>,
    born: Instant,
}

impl Disk {
    /// An empty disk and a right clock.
    pub fn new(dice: Dice) -> Self {
        Self { files: Mutex::default(), skew_ms: Mutex::default(), dice: Mutex::new(dice), born: Instant::now() }
    }

    /// Writes a file whole.
    pub fn write(&self, path: &str, content: &[u8]) {
        lock(&self.files).insert(path.to_owned(), content.to_vec());
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, path: &str) {
        lock(&self.files).remove(path);
    }

    /// Moves the wall clock; negative is into the past.
    pub fn skew(&self, ms: i64) {
        *lock(&self.skew_ms) += ms;
    }
}

/// One program's machine: the fabric, a disk, a clock, chance.
pub struct SimHost {
    fabric: Fabric,
    machine: String,
    incarnation: u64,
    disk: Arc<Disk>,
    trace: Trace,
}

impl SimHost {
    pub(crate) fn new(fabric: Fabric, machine: &str, incarnation: u64, disk: Arc<Disk>, trace: Trace) -> Self {
        Self { fabric, machine: machine.to_owned(), incarnation, disk, trace }
    }
}

impl System for SimHost {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let ips = self.fabric.resolve(&self.machine, name).await?;
            Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let dialled = self.fabric.dial(&self.machine, self.incarnation, addr).await;
            if let Err(error) = &dialled {
                self.trace.tell(&self.machine, format!("dial {addr}: {}", error.kind()));
            }
            Ok(Connection::new(dialled?, addr))
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        Box::pin(async move {
            let listener = SimListener::bind(self.fabric.clone(), &self.machine, self.incarnation, addr)?;
            Ok(Box::new(listener) as Box<dyn Listen>)
        })
    }

    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        lock(&self.disk.files).get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write_file(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.disk.write(path, content);
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path);
        Ok(())
    }

    fn wall_clock(&self) -> SystemTime {
        let skew_ms = *lock(&self.disk.skew_ms);
        let skew = Duration::from_millis(skew_ms.unsigned_abs());
        let now = SystemTime::UNIX_EPOCH + EPOCH + self.disk.born.elapsed();
        if skew_ms < 0 { now - skew } else { now + skew }
    }

    fn chance(&self) -> u64 {
        lock(&self.disk.dice).roll()
    }
}

/// A port that a program of a machine holds.
pub(crate) struct SimListener {
    fabric: Fabric,
    machine: String,
    incarnation: u64,
    local: SocketAddr,
}

impl SimListener {
    pub(crate) fn bind(fabric: Fabric, machine: &str, incarnation: u64, addr: SocketAddr) -> io::Result<Self> {
        let port = fabric.listen(machine, incarnation, addr.port())?;
        Ok(Self { fabric, machine: machine.to_owned(), incarnation, local: SocketAddr::new(addr.ip(), port) })
    }

    pub(crate) async fn accept_socket(&self) -> (Socket, SocketAddr) {
        poll_fn(|cx| match self.fabric.poll_accept(&self.machine, self.incarnation, self.local.port(), cx.waker()) {
            Some(accepted) => Poll::Ready(accepted),
            None => Poll::Pending,
        })
        .await
    }
}

impl Listen for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (socket, peer) = self.accept_socket().await;
            Ok(Connection::new(socket, peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.fabric.close_listener(&self.machine, self.incarnation, self.local.port());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
