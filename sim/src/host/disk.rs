//! What a machine keeps while its programs come and go: files, how much room is left for them, and what has reached the platter.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use host::{Append, BoxFuture};
use tokio::time::Instant;

use super::EPOCH;
use crate::seed::Dice;

/// A disk, a clock and dice.
pub struct Disk {
    /// By name; who has a file open has it also when the name is gone.
    files: Mutex<BTreeMap<String, Arc<Mutex<File>>>>,
    is_full: Mutex<bool>,
    /// How far the wall clock is ahead of the world's, in milliseconds.
    skew_ms: Mutex<i64>,
    dice: Mutex<Dice>,
    born: Instant,
}

#[derive(Default)]
struct File {
    content: Vec<u8>,
    /// How much of it would outlive a loss of power.
    n_synced: usize,
}

impl Disk {
    /// An empty disk and a right clock.
    pub fn new(dice: Dice) -> Self {
        let (files, is_full, skew_ms) = Default::default();
        Self { files, is_full, skew_ms, dice: Mutex::new(dice), born: Instant::now() }
    }

    /// Writes a file whole.
    pub fn write(&self, path: &str, content: &[u8]) {
        let file = File { content: content.to_vec(), n_synced: content.len() };
        lock(&self.files).insert(path.to_owned(), Arc::new(Mutex::new(file)));
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, path: &str) {
        lock(&self.files).remove(path);
    }

    /// The content of a file, if it is there.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        lock(&self.files).get(path).map(|file| lock(file).content.clone())
    }

    /// The names of the files in a folder, sorted.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let in_folder = |path: &String| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
        lock(&self.files).keys().filter_map(in_folder).collect()
    }

    /// Leaves no room for anything that is appended, or room again.
    pub fn set_full(&self, is_full: bool) {
        *lock(&self.is_full) = is_full;
    }

    /// Moves the wall clock; negative is into the past.
    pub fn skew(&self, ms: i64) {
        *lock(&self.skew_ms) += ms;
    }

    /// The power goes: of what was appended and not synced, the dice say how much is left.
    pub(crate) fn lose_power(&self) {
        for file in lock(&self.files).values() {
            let mut file = lock(file);
            let n_unsynced = file.content.len() - file.n_synced;
            // Files that nobody appends to cost no dice, so that other stories stay what they are.
            if n_unsynced > 0 {
                let n_left = usize::try_from(self.roll()).unwrap_or(usize::MAX) % (n_unsynced + 1);
                let n_bytes = file.n_synced + n_left;
                file.content.truncate(n_bytes);
            }
        }
    }

    pub(super) fn roll(&self) -> u64 {
        lock(&self.dice).roll()
    }

    pub(super) fn wall_clock(&self) -> SystemTime {
        let skew_ms = *lock(&self.skew_ms);
        let skew = Duration::from_millis(skew_ms.unsigned_abs());
        let now = SystemTime::UNIX_EPOCH + EPOCH + self.born.elapsed();
        if skew_ms < 0 { now - skew } else { now + skew }
    }

    /// Gives a file another name, which none has.
    ///
    /// # Errors
    /// That there is no such file, or one with that name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.files);
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    /// Opens a file to append to.
    pub(super) fn append_to(self: &Arc<Self>, path: &str) -> Box<dyn Append> {
        let file = lock(&self.files).entry(path.to_owned()).or_default().clone();
        Box::new(Appended { disk: self.clone(), path: path.to_owned(), file })
    }
}

struct Appended {
    disk: Arc<Disk>,
    path: String,
    file: Arc<Mutex<File>>,
}

impl Append for Appended {
    fn n_bytes(&self) -> u64 {
        lock(&self.file).content.len() as u64
    }

    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            if *lock(&self.disk.is_full) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            lock(&self.file).content.extend_from_slice(&bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut file = lock(&self.file);
            file.n_synced = file.content.len();
            Ok(())
        })
    }

    fn is_in_place(&self) -> BoxFuture<'_, io::Result<bool>> {
        Box::pin(async move { Ok(lock(&self.disk.files).get(&self.path).is_some_and(|named| Arc::ptr_eq(named, &self.file))) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
