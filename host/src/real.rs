//! The operating system behind Host: the only file of the product that touches it.
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the one door to the operating system")]

mod append;
mod local;

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::{Append, BoxFuture, Connection, FILE_BYTES_MAX, Listen, System};

/// The kernel may hold this much unsent data of one connection; more would sit below our scheduler, where an urgent
/// frame cannot overtake it. Half of the tunnel's `unsent_max`, the other half is in TLS and WebSocket buffers.
const NOTSENT_LOWAT: u32 = 32 * 1024;

/// Finds dead peers of connections that have no liveness of their own (callers, upstreams).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Connections waiting to be accepted: a fleet of a few thousand agents coming back at once.
const BACKLOG: i32 = 4096;

pub(crate) struct Real;

impl System for Real {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            tune(&stream);
            Ok(Connection::new(stream, addr))
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        Box::pin(async move {
            let bound = match RealListener::bind(addr) {
                // "All interfaces" on a machine without IPv6 means all of IPv4.
                Err(_) if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                    RealListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()))
                }
                bound => bound,
            };
            Ok(Box::new(bound?) as Box<dyn Listen>)
        })
    }

    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        let kind = std::fs::metadata(path)?;
        // Asked before it is opened: opening a pipe waits for its writer.
        if !kind.is_file() {
            let what = if kind.is_dir() { "is a directory" } else { "is no regular file" };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        match bytes.len() > FILE_BYTES_MAX {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("has more than {FILE_BYTES_MAX} bytes"))),
            false => Ok(bytes),
        }
    }

    fn write_file(&self, path: &str, content: &[u8]) -> io::Result<()> {
        local::write_file(Path::new(path), content)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        local::remove_file(Path::new(path))
    }

    fn append_to<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Append>>> {
        let path = PathBuf::from(path);
        Box::pin(append::beside(move || append::open(&path)))
    }

    fn append_to_output(&self) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(append::Output::open()?))
    }

    fn read_file_at(&self, path: &str, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        append::read_at(Path::new(path), offset, bytes_max)
    }

    fn rename_file<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let (from, to) = (PathBuf::from(from), PathBuf::from(to));
        Box::pin(append::beside(move || append::rename(&from, &to)))
    }

    fn discard_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let path = PathBuf::from(path);
        Box::pin(append::beside(move || std::fs::remove_file(path)))
    }

    fn list_folder(&self, folder: &str) -> io::Result<Vec<String>> {
        append::list(Path::new(folder))
    }

    fn listen_local(&self, path: &str) -> io::Result<Box<dyn Listen>> {
        Ok(Box::new(local::LocalListener::bind(Path::new(path))?))
    }

    fn connect_local<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(local::connect(Path::new(path)))
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn chance(&self) -> u64 {
        rand::random()
    }
}

struct RealListener {
    listener: TcpListener,
    local: SocketAddr,
}

impl RealListener {
    fn bind(addr: SocketAddr) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            // `[::]` means every interface, IPv4 too.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = listener.local_addr()?;
        Ok(Self { listener, local })
    }
}

impl Listen for RealListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            tune(&stream);
            Ok(Connection::new(stream, peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Options that improve a connection and are not worth failing it for.
fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_IDLE / 3);
    let results = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_keepalive(&keepalive),
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option was refused");
    }
}
