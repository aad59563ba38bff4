//! A machine whose connections are pipes in memory: enough of an operating system for a server and an agent.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use host::{BoxFuture, Connection, Listen, System};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// What a pipe holds: more than any head, so that nobody waits for a reader that comes later.
const PIPE: usize = 256 * 1024;

/// Connections that wait to be accepted; nobody opens more at once.
const WAITING_MAX: usize = 64;

/// Everything listens on this machine, by port.
#[derive(Clone, Default)]
pub struct Wires {
    listeners: Arc<Mutex<BTreeMap<u16, mpsc::Sender<DuplexStream>>>>,
    files: Arc<BTreeMap<String, Vec<u8>>>,
    n_dice: Arc<AtomicU64>,
}

impl Wires {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())).collect();
        Self { files: Arc::new(files), ..Self::default() }
    }

    /// A connection to what listens on `port`.
    pub fn dial(&self, port: u16) -> io::Result<DuplexStream> {
        let (near, far) = duplex(PIPE);
        let listener = self.listeners().get(&port).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.try_send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<u16, mpsc::Sender<DuplexStream>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl System for Wires {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]) })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { Ok(Connection::new(self.dial(addr.port())?, addr)) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        let (sender, arrivals) = mpsc::channel(WAITING_MAX);
        self.listeners().insert(addr.port(), sender);
        Box::pin(async move { Ok(Box::new(Listener { arrivals: arrivals.into(), addr }) as Box<dyn Listen>) })
    }

    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    fn chance(&self) -> u64 {
        self.n_dice.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

struct Listener {
    arrivals: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
    addr: SocketAddr,
}

impl Listen for Listener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            match self.arrivals.lock().await.recv().await {
                Some(stream) => Ok(Connection::new(stream, self.addr)),
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}
