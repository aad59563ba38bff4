//! A simulated machine as a program sees it: `Host` over the fabric.

mod disk;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use host::{Append, BoxFuture, Connection, Listen, System};

use crate::fabric::{Fabric, Socket};
use crate::trace::Trace;
pub use disk::Disk;

/// When every world begins: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

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
        self.disk.read(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append_to<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Append>>> {
        Box::pin(async { Ok(self.disk.append_to(path)) })
    }

    fn read_file_at(&self, path: &str, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let whole = self.read_file(path)?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole[begin..whole.len().min(begin.saturating_add(bytes_max))].to_vec())
    }

    fn rename_file<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { self.disk.rename(from, to) })
    }

    fn discard_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { self.remove_file(path) })
    }

    fn list_folder(&self, folder: &str) -> io::Result<Vec<String>> {
        Ok(self.disk.list(folder))
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
        self.disk.wall_clock()
    }

    fn chance(&self) -> u64 {
        self.disk.roll()
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
