//! A disk in memory, for tests: it can be full, and its clock is set by hand.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Default)]
struct Shared {
    /// By name; who has a file open has it also when the name is gone.
    files: Mutex<BTreeMap<String, Content>>,
    /// Bytes for which there is room.
    room: Mutex<Option<usize>>,
    skew_s: AtomicU64,
    chance: AtomicU64,
    n_syncs: AtomicU64,
    renames_fail: AtomicBool,
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
        self.lock().iter().map(|(path, content)| (path.clone(), bytes(content).clone())).collect()
    }

    pub(super) fn set_files(&self, files: BTreeMap<String, Vec<u8>>) {
        *self.lock() = files.into_iter().map(|(path, content)| (path, Arc::new(Mutex::new(content)))).collect();
    }

    pub(super) fn write(&self, path: &str, content: &[u8]) {
        self.lock().insert(path.to_owned(), Arc::new(Mutex::new(content.to_vec())));
    }

    /// Takes a file's name away, or gives it another, behind the back of who writes it.
    pub(super) fn move_away(&self, from: &str, to: Option<&str>) {
        let mut files = self.lock();
        let content = files.remove(from).expect("a file");
        files.extend(to.map(|to| (to.to_owned(), content)));
    }

    /// Has the next rename happen, and fail all the same.
    pub(super) fn fail_rename(&self) {
        self.shared.renames_fail.store(true, Ordering::Relaxed);
    }

    /// Gives it room for so many bytes more; none = for all.
    pub(super) fn set_room(&self, room: Option<usize>) {
        *self.shared.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }

    /// Sets the wall clock forward.
    pub(super) fn skew(&self, time: Duration) {
        self.shared.skew_s.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    /// Sets the wall clock back, by no more than it was set forward.
    pub(super) fn skew_back(&self, time: Duration) {
        self.shared.skew_s.fetch_sub(time.as_secs(), Ordering::Relaxed);
    }

    pub(super) fn n_syncs(&self) -> u64 {
        self.shared.n_syncs.load(Ordering::Relaxed)
    }

    /// What a loss of power would leave of a file.
    pub(super) fn synced(&self, path: &str) -> Vec<u8> {
        self.shared.synced.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Content>> {
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
        self.lock().get(path).map(|content| bytes(content).clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append_to<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Append>>> {
        let content = self.lock().entry(path.to_owned()).or_default().clone();
        let open = Open { disk: self.clone(), path: path.to_owned(), content };
        Box::pin(async { Ok(Box::new(open) as Box<dyn Append>) })
    }

    fn read_file_at(&self, path: &str, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let whole = self.read_file(path)?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole[begin..whole.len().min(begin.saturating_add(bytes_max))].to_vec())
    }

    fn rename_file<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let mut files = self.lock();
        let result = match files.remove(from) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(content) => {
                files.insert(to.to_owned(), content);
                if self.shared.renames_fail.swap(false, Ordering::Relaxed) { Err(io::Error::other("a folder")) } else { Ok(()) }
            }
        };
        Box::pin(async { result })
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

/// A file that is appended to, whatever its name has become.
struct Open {
    disk: Disk,
    path: String,
    content: Content,
}

impl Append for Open {
    fn n_bytes(&self) -> u64 {
        bytes(&self.content).len() as u64
    }

    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        let mut room = self.disk.shared.room.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *room {
            Some(room) if *room < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            room => {
                room.iter_mut().for_each(|room| *room -= bytes.len());
                self::bytes(&self.content).extend_from_slice(&bytes);
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

    fn is_in_place(&self) -> BoxFuture<'_, io::Result<bool>> {
        let is_in_place = self.disk.lock().get(&self.path).is_some_and(|named| Arc::ptr_eq(named, &self.content));
        Box::pin(async move { Ok(is_in_place) })
    }
}

fn bytes(content: &Content) -> MutexGuard<'_, Vec<u8>> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}
