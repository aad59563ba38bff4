//! Files that are appended to, on a disk or as standard output. Whatever may wait for a disk runs beside the workers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local::{PRIVATE, sync_folder};
use crate::{Append, BoxFuture};

/// Runs `work`, which may wait for a disk, on a thread where nobody waits behind it.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Opens a regular file of this user's to append to, makes it where there is none, and keeps other processes away from it.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Append>> {
    // Before it is opened: opening a pipe waits for its reader.
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => return Err(irregular()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path)?;
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    // A link that was put there in between leads to another file.
    if !named.is_file() || (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(irregular());
    }
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::AddrInUse, "another process writes it"),
        fs::TryLockError::Error(error) => error,
    })?;
    sync_folder(path)?;
    Ok(Box::new(RealAppend { file: Arc::new(file), path: path.to_owned(), n_bytes: opened.len() }))
}

fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "is no regular file")
}

/// Up to `bytes_max` bytes of a regular file from `offset` on; none behind its end.
pub(super) fn read_at(path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(irregular());
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives a file another name, which none has.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the new name is taken"));
    }
    fs::rename(from, to)?;
    sync_folder(to)
}

/// The names in a folder that are text, sorted.
pub(super) fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut names: Vec<_> = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

struct RealAppend {
    file: Arc<File>,
    path: PathBuf,
    n_bytes: u64,
}

impl Append for RealAppend {
    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let (file, whole) = (self.file.clone(), self.n_bytes);
            self.n_bytes = beside(move || {
                // What an earlier attempt has left, when even that could not be cut off.
                if file.metadata()?.len() > whole {
                    file.set_len(whole)?;
                }
                match (&*file).write_all(&bytes) {
                    Ok(()) => Ok(file.metadata()?.len()),
                    Err(error) => {
                        // A full disk takes a part; the next attempt cuts it off if this one cannot.
                        let _ = file.set_len(whole);
                        Err(error)
                    }
                }
            })
            .await?;
            Ok(())
        })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        let file = self.file.clone();
        Box::pin(beside(move || file.sync_data()))
    }

    fn is_in_place(&self) -> BoxFuture<'_, io::Result<bool>> {
        let (file, path, n_bytes) = (self.file.clone(), self.path.clone(), self.n_bytes);
        Box::pin(beside(move || {
            let opened = file.metadata()?;
            match fs::symlink_metadata(&path) {
                Ok(named) => Ok((opened.dev(), opened.ino()) == (named.dev(), named.ino()) && opened.len() >= n_bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        }))
    }
}

/// Standard output as a file: what is out cannot be taken back, so what it took a part of it owes the rest of.
pub(super) struct Output {
    file: Arc<File>,
    n_bytes: u64,
    owed: Vec<u8>,
}

impl Output {
    pub(super) fn open() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file: Arc::new(file), n_bytes: 0, owed: Vec::new() })
    }
}

impl Append for Output {
    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let (file, owed, n_bytes) = (self.file.clone(), std::mem::take(&mut self.owed), bytes.len() as u64);
            let (owed, result) = beside(move || {
                let (owed, result) = put(&file, owed);
                if result.is_err() {
                    return Ok((owed, result));
                }
                let n_bytes = bytes.len();
                let (rest, result) = put(&file, bytes);
                let is_begun = rest.len() < n_bytes;
                Ok(if is_begun { (rest, Ok(())) } else { (Vec::new(), result) })
            })
            .await?;
            self.owed = owed;
            result?;
            self.n_bytes += n_bytes;
            Ok(())
        })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Writes what it can: what is left, and why.
fn put(mut file: &File, mut bytes: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
    let mut done = 0;
    let result = loop {
        match file.write(&bytes[done..]) {
            _ if done == bytes.len() => break Ok(()),
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    (bytes.split_off(done), result)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[tokio::test]
    async fn a_file_grows_at_its_end_for_its_user_alone_and_one_process() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("audit.log");
        let mut file = open(&path).expect("made");
        file.append(b"one\n".to_vec()).await.expect("written");
        assert_eq!(open(&path).map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
        drop(file);
        let mut file = open(&path).expect("free again");
        assert_eq!(file.n_bytes(), 4);
        file.append(b"two\n".to_vec()).await.expect("written");
        file.sync().await.expect("on the disk");
        assert_eq!((file.n_bytes(), read_at(&path, 2, 4).expect("read")), (8, b"e\ntw".to_vec()));
        assert_eq!(read_at(&path, 9, 4).expect("read"), b"");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, PRIVATE);
    }

    #[tokio::test]
    async fn what_could_not_be_written_whole_is_cut_off_before_the_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("audit.log");
        let mut file = open(&path).expect("made");
        file.append(b"one\n".to_vec()).await.expect("written");
        // As an attempt leaves it that was cut short.
        OpenOptions::new().append(true).open(&path).expect("there").write_all(b"tw").expect("written");
        file.append(b"two\n".to_vec()).await.expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"one\ntwo\n");
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_and_nothing_of_the_bytes_stays() {
        let path = PathBuf::from("/dev/full");
        let file = Arc::new(OpenOptions::new().append(true).open(&path).expect("there"));
        let mut full = RealAppend { file, path, n_bytes: 0 };
        let error = full.append(b"one\n".to_vec()).await.expect_err("no room");
        assert_eq!((error.kind(), full.n_bytes()), (io::ErrorKind::StorageFull, 0));
    }

    #[tokio::test]
    async fn a_file_that_was_moved_removed_replaced_or_emptied_is_not_in_its_place() {
        type Change = fn(&Path);
        let changes: [(Change, bool); 5] = [
            (|_| {}, true),
            (|path| fs::rename(path, path.with_extension("1")).expect("moved"), false),
            (|path| fs::remove_file(path).expect("removed"), false),
            (
                |path| {
                    fs::copy(path, path.with_extension("new")).expect("copied");
                    fs::rename(path.with_extension("new"), path).expect("replaced");
                },
                false,
            ),
            (|path| File::options().write(true).open(path).expect("there").set_len(0).expect("emptied"), false),
        ];
        for (n, (change, is_in_place)) in changes.into_iter().enumerate() {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join("audit.log");
            let mut file = open(&path).expect("made");
            file.append(b"one\n".to_vec()).await.expect("written");
            change(&path);
            assert_eq!(file.is_in_place().await.expect("known"), is_in_place, "{n}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "x").expect("written");
        symlink(&file, &link).expect("linked");
        for path in [link.as_path(), dir.path(), Path::new("/dev/full")] {
            let refused = open(path).map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::InvalidInput), "{path:?}");
        }
    }

    #[test]
    fn no_file_is_renamed_onto_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "1").expect("written");
        fs::write(&two, "2").expect("written");
        assert_eq!(rename(&one, &two).map_err(|error| error.kind()), Err(io::ErrorKind::AlreadyExists));
        fs::remove_file(&two).expect("removed");
        rename(&one, &two).expect("renamed");
        assert_eq!(list(dir.path()).expect("a folder"), ["two"]);
    }

    #[test]
    fn what_an_output_took_a_part_of_is_owed() {
        let full = OpenOptions::new().append(true).open("/dev/full").expect("there");
        let (left, result) = put(&full, b"one\n".to_vec());
        assert_eq!((left, result.map_err(|error| error.kind())), (b"one\n".to_vec(), Err(io::ErrorKind::StorageFull)));
        let null = OpenOptions::new().append(true).open("/dev/null").expect("there");
        let (left, result) = put(&null, b"one\n".to_vec());
        assert!(left.is_empty() && result.is_ok());
    }
}
