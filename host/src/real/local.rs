//! What a process keeps and offers on its own machine: files that it writes, and sockets with a path instead of an address.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::{BoxFuture, Connection, Listen};

/// This user alone.
pub(super) const PRIVATE: u32 = 0o600;

/// A person at a terminal, and a probe.
const BACKLOG: i32 = 16;

/// Whoever connects to a path has no address.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder(path)
}

/// A name is on the disk when its folder is.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) async fn connect(path: &Path) -> io::Result<Connection> {
    Ok(Connection::new(UnixStream::connect(path).await?, NOWHERE))
}

/// A socket with a path.
pub(super) struct LocalListener {
    listener: UnixListener,
    /// Locked for as long as the listener lives: who has the lock knows that a socket that lies there is abandoned.
    _lock: File,
}

impl LocalListener {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let lock = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(beside(path, ".lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"),
            fs::TryLockError::Error(error) => error,
        })?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before anybody can connect.
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from_std(StdListener::from(socket))?;
        Ok(Self { listener, _lock: lock })
    }
}

impl Listen for LocalListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { Ok(Connection::new(self.listener.accept().await?.0, NOWHERE)) })
    }

    fn local_addr(&self) -> SocketAddr {
        NOWHERE
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_file_is_written_whole_for_its_user_alone_and_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state");
        write_file(&path, b"one").expect("written");
        write_file(&path, b"two").expect("written again");
        assert_eq!(fs::read(&path).expect("there"), b"two");
        assert_eq!(mode_of(&path), PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
        remove_file(&path).expect("removed");
        assert_eq!(remove_file(&path).map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
        assert!(write_file(&dir.path().join("gone/state"), b"x").is_err());
    }

    #[tokio::test]
    async fn a_path_is_listened_on_by_one_process_and_taken_over_from_a_dead_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("admin.sock");
        // Left by a process that was killed.
        drop(StdListener::bind(&path).expect("bound"));
        assert!(connect(&path).await.is_err());

        let listener = LocalListener::bind(&path).expect("taken over");
        assert_eq!(mode_of(&path), PRIVATE);
        let second = LocalListener::bind(&path).map(drop);
        assert_eq!(second.map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));

        let (accepted, connected) = tokio::join!(listener.accept(), connect(&path));
        connected.expect("connected").write_all(b"hello").await.expect("written");
        let mut heard = String::new();
        accepted.expect("accepted").read_to_string(&mut heard).await.expect("read");
        assert_eq!(heard, "hello");

        drop(listener);
        LocalListener::bind(&path).expect("free again");
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }
}
