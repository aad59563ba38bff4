//! A process's one door to the outside: names, connections, files, wall clock, chance and tasks.
//!
//! Product code opens no socket or file, reads no wall clock, rolls no dice and spawns no task except through
//! [`Host`]. Behind it stands the operating system ([`Host::real`]) or, in simulations, a fabric that can cut, stall
//! and crash. Monotonic time is tokio's, which a simulation pauses.
//!
//! Knows nothing of tunnels, Kubernetes or HTTP routes.

mod append;
mod backoff;
pub mod certificate;
mod connection;
mod door;
mod drain;
mod http_url;
pub mod ops;
mod places;
mod process;
mod proxy_header;
mod real;
mod sources;
mod tasks;
mod telemetry;
pub mod tls;
mod turnstile;
pub mod watched;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

pub use append::Append;
pub use backoff::Backoff;
pub use connection::{Connection, Io};
pub use door::{Arrival, Door, Late, TurnedAway, TurnedAwayLabels};
pub use drain::{Drain, DrainSwitch};
pub use http_url::HttpUrl;
pub use places::{Place, Places};
pub use process::{Workers, run_process};
pub use sources::{Source, TrustedProxies};
pub use tasks::Tasks;
pub use telemetry::{LogLevel, Span, SpanKind, TRACE_METRICS, TRACEPARENT, TraceConfig, TraceParent, Tracer, init_logging};
pub use watched::Watched;

use watched::Ledger;

/// A boxed future, the shape of every call through the door.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long one name lookup may take: the resolver's own retries (5 s a server) plus one more try.
pub const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// How long one address may take to answer a dial: two SYN retransmissions (1 + 2 s) and a little. The kernel's third comes
/// 4 s after its second, its fourth 8 s later; a new dial begins at the first, so that a way that heals is found soon.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The longest file that is read: a clusters file of four thousand entries, or a machine's trust store five times over. What is
/// longer is surely another file, and is refused unread.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// How long an address may say nothing before the next one is tried beside it: what RFC 8305 section 8 recommends.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What stands behind a [`Host`]: the operating system or a simulated machine.
pub trait System: Send + Sync + 'static {
    /// Addresses of `name`, IPv4 and IPv6, in the order they should be tried.
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
    /// Opens a connection to one address.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Connection>>;
    /// Binds a listener; port 0 takes any free port.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>>;
    /// The whole content of a regular file of at most [`FILE_BYTES_MAX`]; anything else is an error.
    fn read_file(&self, path: &str) -> io::Result<Vec<u8>>;
    /// Writes a file whole or not at all, so that it outlives a loss of power, for this user alone.
    fn write_file(&self, _path: &str, _content: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file, so that it stays away after a loss of power.
    fn remove_file(&self, _path: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Opens a file to append to; see [`Host::append_to`].
    fn append_to<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Append>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    /// Opens standard output to append to.
    fn append_to_output(&self) -> io::Result<Box<dyn Append>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// A part of a file; see [`Host::read_file_at`].
    fn read_file_at(&self, _path: &str, _offset: u64, _bytes_max: usize) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Gives a file another name; see [`Host::rename_file`].
    fn rename_file<'a>(&'a self, _from: &'a str, _to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    /// Removes a file; see [`Host::discard_file`].
    fn discard_file<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    /// The names in a folder, sorted.
    fn list_folder(&self, _folder: &str) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Listens at a path of the file system, for programs of this user; see [`Host::listen_local`].
    fn listen_local(&self, _path: &str) -> io::Result<Box<dyn Listen>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Opens a connection to who listens at a path.
    fn connect_local<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    /// The time of day, for people and certificates, never for measuring.
    fn wall_clock(&self) -> SystemTime;
    /// 64 bits of chance.
    fn chance(&self) -> u64;
}

/// A bound listener.
pub trait Listen: Send + Sync {
    /// The next connection. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;
    /// The address that was really bound.
    fn local_addr(&self) -> SocketAddr;
}

/// One machine as a process sees it. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    system: Arc<dyn System>,
    tasks: Tasks,
    ledger: Arc<Ledger>,
}

impl Host {
    /// A host over `system` whose tasks are counted in `tasks`.
    pub fn new(system: Arc<dyn System>, tasks: Tasks) -> Self {
        Self { system, tasks, ledger: Arc::default() }
    }

    /// The operating system of this machine.
    pub fn real() -> Self {
        Self::new(Arc::new(real::Real), Tasks::new())
    }

    /// Addresses of `name`; asks the resolver at every call, within [`RESOLVE_MAX`].
    pub async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match tokio::time::timeout(RESOLVE_MAX, self.system.resolve(name, port)).await {
            Ok(Ok(addrs)) if addrs.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for {name}"))),
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from the resolver for {name}"))),
        }
    }

    /// Connects to one address, within [`CONNECT_MAX`].
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<Connection> {
        match tokio::time::timeout(CONNECT_MAX, self.system.connect(addr)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {addr}"))),
        }
    }

    /// Resolves `name` and tries every address in its order; one that says nothing for [`ATTEMPT_DELAY`] does not hold
    /// up the next (RFC 8305 section 5).
    ///
    /// # Errors
    /// The last error that came, or that of the resolver.
    pub async fn dial(&self, name: &str, port: u16) -> io::Result<Connection> {
        let mut untried = self.resolve(name, port).await?.into_iter();
        let mut attempts: Vec<BoxFuture<'_, io::Result<Connection>>> = Vec::new();
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        loop {
            match untried.next() {
                Some(addr) => attempts.push(Box::pin(self.connect(addr))),
                None if attempts.is_empty() => return Err(last),
                None => {}
            }
            let is_last = untried.len() == 0;
            tokio::select! {
                biased;
                ended = first_of(&mut attempts) => match ended {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error,
                },
                () = tokio::time::sleep(ATTEMPT_DELAY), if !is_last => {}
            }
        }
    }

    /// Binds a listener.
    pub async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listen>> {
        self.system.listen(addr).await
    }

    /// Reads a regular file of at most [`FILE_BYTES_MAX`] whole.
    pub fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.system.read_file(path)
    }

    /// Writes a file whole or not at all: what it was before is there until the new content is on the disk. Only this user
    /// may read it.
    pub fn write_file(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.system.write_file(path, content)
    }

    /// Removes a file.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        self.system.remove_file(path)
    }

    /// Opens a regular file to append to, and makes it where there is none, for this user alone.
    ///
    /// # Errors
    /// `AddrInUse` while another process has it open so; `InvalidInput` when it is no regular file.
    pub async fn append_to(&self, path: &str) -> io::Result<Box<dyn Append>> {
        self.system.append_to(path).await
    }

    /// Opens standard output to append to.
    pub fn append_to_output(&self) -> io::Result<Box<dyn Append>> {
        self.system.append_to_output()
    }

    /// Reads up to `bytes_max` bytes of a regular file from `offset` on, of whatever length it is; none behind its end.
    pub fn read_file_at(&self, path: &str, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.system.read_file_at(path, offset, bytes_max)
    }

    /// Gives a file another name, which it has after a loss of power too.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a file of that name.
    pub async fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        self.system.rename_file(from, to).await
    }

    /// Removes a file that may come back after a loss of power, beside the workers.
    pub async fn discard_file(&self, path: &str) -> io::Result<()> {
        self.system.discard_file(path).await
    }

    /// The names in a folder that are text, sorted.
    pub fn list_folder(&self, folder: &str) -> io::Result<Vec<String>> {
        self.system.list_folder(folder)
    }

    /// Listens at a path of the file system (a socket of mode 0600, at most 100 bytes long) until the result is dropped. One
    /// that an earlier process left there is replaced.
    ///
    /// # Errors
    /// `AddrInUse` while another process listens there.
    pub fn listen_local(&self, path: &str) -> io::Result<Box<dyn Listen>> {
        self.system.listen_local(path)
    }

    /// Connects to who listens at a path of the file system.
    pub async fn connect_local(&self, path: &str) -> io::Result<Connection> {
        self.system.connect_local(path).await
    }

    /// The time of day.
    pub fn wall_clock(&self) -> SystemTime {
        self.system.wall_clock()
    }

    /// 64 bits of chance.
    pub fn chance(&self) -> u64 {
        self.system.chance()
    }

    /// Runs `future` as a named task of this host.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(name, future);
    }

    /// What the process's watched files have come to.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The host's tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

/// The first of several attempts to end, in their order when several have; it is taken out.
async fn first_of<T>(attempts: &mut Vec<BoxFuture<'_, T>>) -> T {
    poll_fn(|cx| {
        let ended = attempts.iter_mut().enumerate().find_map(|(n, attempt)| match attempt.as_mut().poll(cx) {
            Poll::Ready(ended) => Some((n, ended)),
            Poll::Pending => None,
        });
        match ended {
            Some((n, ended)) => {
                drop(attempts.remove(n));
                Poll::Ready(ended)
            }
            None => Poll::Pending,
        }
    })
    .await
}
