//! The cheapest network there can be: pipes within one process, and machines that are joined by nothing else.
//!
//! The fabric of `sim` knows distance, cuts and who said what; here that would be most of what is counted.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use host::{Append, BoxFuture, Connection, Host, Listen, System, Tasks};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// What a pipe takes before its writer waits: about a socket's buffer.
const PIPE_BYTES: usize = 64 * 1024;

/// Connections that wait to be accepted: more than anybody dials here.
const BACKLOG_MAX: usize = 16;

/// Everybody's address: ports tell who listens.
const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The one file that there is, on every machine: whoever reads a token finds one.
const FILE: &[u8] = b"a-token-of-a-service-account";

/// What every clock shows: 2026-01-01T00:00:00Z.
const NOW: Duration = Duration::from_secs(1_767_225_600);

/// All listeners. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Cables(Arc<Mutex<BTreeMap<u16, mpsc::Sender<DuplexStream>>>>);

impl Cables {
    /// A machine on these cables.
    pub(super) fn machine(&self) -> Host {
        Host::new(Arc::new(Machine { cables: self.clone(), chance: AtomicU64::new(0) }), Tasks::new())
    }

    /// Takes a port.
    pub(super) fn listen(&self, port: u16) -> mpsc::Receiver<DuplexStream> {
        let (sender, dialled) = mpsc::channel(BACKLOG_MAX);
        self.listeners().insert(port, sender);
        dialled
    }

    /// A connection to who has the port.
    pub(super) async fn dial(&self, port: u16) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let listener = self.listeners().get(&port).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.send(far).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<u16, mpsc::Sender<DuplexStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Machine {
    cables: Cables,
    chance: AtomicU64,
}

impl System for Machine {
    fn resolve<'a>(&'a self, _name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::new(IP, port)]) })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { Ok(Connection::new(self.cables.dial(addr.port()).await?, addr)) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        Box::pin(async move {
            let dialled = tokio::sync::Mutex::new(self.cables.listen(addr.port()));
            Ok(Box::new(Port { dialled, addr }) as Box<dyn Listen>)
        })
    }

    fn read_file(&self, _path: &str) -> io::Result<Vec<u8>> {
        Ok(FILE.to_vec())
    }

    fn append_to_output(&self) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(Nowhere(0)))
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    /// The same in every run, and never the same twice: Weyl's sequence over the golden ratio.
    fn chance(&self) -> u64 {
        self.chance.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
    }
}

/// A disk that costs nothing: what is counted is what it takes to have something to write.
struct Nowhere(u64);

impl Append for Nowhere {
    fn n_bytes(&self) -> u64 {
        self.0
    }

    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        self.0 += bytes.len() as u64;
        Box::pin(async { Ok(()) })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

struct Port {
    /// One waits at a time.
    dialled: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
    addr: SocketAddr,
}

impl Listen for Port {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let dialled = self.dialled.lock().await.recv().await;
            Ok(Connection::new(dialled.ok_or(io::ErrorKind::NotConnected)?, self.addr))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}
