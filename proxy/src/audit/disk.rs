//! A disk in memory, for tests: it can be full, and its clock is set by hand.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use host::{Append, BoxFuture, Connection, Host, Listen, System, Tasks};
use tokio::time::Instant;

/// A disk, and what else a log asks of a machine.
#[derive(Clone)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    born: Instant,
}

#[derive(Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Bytes for which there is room.
    room: Mutex<Option<usize>>,
    skew_s: AtomicU64,
    chance: AtomicU64,
    n_syncs: AtomicU64,
    /// What a loss of power would leave.
    synced: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { shared: Arc::default(), born: Instant::now() }
    }

    /// A machine with this disk.
    pub(super) fn host(&self) -> Host {
        Host::new(Arc::new(self.clone()), Tasks::new())
    }

    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.lock().clone()
    }

    pub(super) fn set_files(&self, files: BTreeMap<String, Vec<u8>>) {
        *self.lock() = files;
    }

    pub(super) fn write(&self, path: &str, content: &[u8]) {
        self.lock().insert(path.to_owned(), content.to_vec());
    }

    /// Gives it room for so many bytes more; none = for all.
    pub(super) fn set_room(&self, room: Option<usize>) {
        *self.shared.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }

    /// Sets the wall clock forward.
    pub(super) fn skew(&self, time: Duration) {
        self.shared.skew_s.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    pub(super) fn n_syncs(&self) -> u64 {
        self.shared.n_syncs.load(Ordering::Relaxed)
    }

    /// What a loss of power would leave of a file.
    pub(super) fn synced(&self, path: &str) -> Vec<u8> {
        self.shared.synced.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl System for Disk {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append_to<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Append>>> {
        self.lock().entry(path.to_owned()).or_default();
        let open = Open { disk: self.clone(), path: path.to_owned() };
        Box::pin(async { Ok(Box::new(open) as Box<dyn Append>) })
    }

    fn read_file_at(&self, path: &str, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let whole = self.read_file(path)?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole[begin..whole.len().min(begin.saturating_add(bytes_max))].to_vec())
    }

    fn rename_file<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let mut files = self.lock();
        let content = files.remove(from);
        files.insert(to.to_owned(), content.expect("a file to rename"));
        Box::pin(async { Ok(()) })
    }

    fn discard_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<()>> {
        self.lock().remove(path);
        Box::pin(async { Ok(()) })
    }

    fn list_folder(&self, folder: &str) -> io::Result<Vec<String>> {
        let in_folder = |path: &String| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
        Ok(self.lock().keys().filter_map(in_folder).collect())
    }

    fn wall_clock(&self) -> SystemTime {
        let skew = Duration::from_secs(self.shared.skew_s.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + self.born.elapsed() + skew
    }

    fn chance(&self) -> u64 {
        self.shared.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// A file that is appended to by its name, as a file that was renamed is not.
struct Open {
    disk: Disk,
    path: String,
}

impl Append for Open {
    fn n_bytes(&self) -> u64 {
        self.disk.lock().get(&self.path).map_or(0, |content| content.len() as u64)
    }

    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let mut room = self.disk.shared.room.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *room {
            Some(room) if *room < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            room => {
                room.iter_mut().for_each(|room| *room -= bytes.len());
                self.disk.lock().get_mut(&self.path).expect("an open file").extend_from_slice(&bytes);
                Ok(())
            }
        };
        Box::pin(async { result })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        self.disk.shared.n_syncs.fetch_add(1, Ordering::Relaxed);
        *self.disk.shared.synced.lock().unwrap_or_else(PoisonError::into_inner) = self.disk.files();
        Box::pin(async { Ok(()) })
    }
}
