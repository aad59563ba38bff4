//! Values made of files: looked at again and again, and replaced whole when the files say something new.
//!
//! Two looks in a row must agree before a new content counts, so that a file that is being written is not taken for
//! whole. A content that cannot be used is refused: told once, counted, and the last good value stays. What was read is
//! what is judged: nothing is read a second time in between.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;

use crate::Host;
use crate::certificate::Validity;

/// How often files are looked at: a change counts after two looks, so within half a second and a moment.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What was read of the files of a value: each path once.
pub struct Contents(BTreeMap<String, Result<Vec<u8>, Unread>>);

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unread {
    kind: io::ErrorKind,
    text: String,
}

impl Contents {
    /// Reads each of `paths`.
    pub fn read(host: &Host, paths: &[String]) -> Self {
        let read = |path: &String| {
            let bytes = host.read_file(path).map_err(|error| Unread { kind: error.kind(), text: error.to_string() });
            (path.clone(), bytes)
        };
        Self(paths.iter().map(read).collect())
    }

    /// The bytes of one file.
    ///
    /// # Errors
    /// Why it was not read, also when it was not among the paths.
    pub fn of(&self, path: &str) -> Result<&[u8], Unread> {
        match self.0.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(unread)) => Err(unread.clone()),
            None => Err(Unread { kind: io::ErrorKind::NotFound, text: "was not read".to_owned() }),
        }
    }

    /// Whether all files have the bytes that `other` has; what could not be read for the same reason is the same.
    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

type Build<T> = Box<dyn Fn(&Contents) -> Result<T, String> + Send + Sync>;

/// A value made of files. Looks until it is dropped.
pub struct Watched<T> {
    host: Host,
    name: &'static str,
    paths: Vec<String>,
    build: Build<T>,
    value: Mutex<Arc<T>>,
    n_changes: AtomicU64,
    changed: Arc<Notify>,
}

/// Mistakes of one content that are logged one by one: enough to see what kind of file it is.
const MISTAKES_TOLD_MAX: usize = 10;

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads `paths` and goes on looking at them as a task of the host. `name` says in logs and metrics what the files are.
    ///
    /// # Errors
    /// What `build` finds wrong with them now.
    pub fn new<E: fmt::Display>(
        host: &Host,
        name: &'static str,
        paths: Vec<String>,
        build: impl Fn(&Contents) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, E> {
        let contents = Contents::read(host, &paths);
        // Mistakes may be many, one in each line of the error's text.
        let value = Mutex::new(Arc::new(build(&contents)?));
        let build: Build<T> = Box::new(move |contents| build(contents).map_err(|error| error.to_string()));
        host.ledger().enter(name);
        let watched = Arc::new(Self {
            host: host.clone(),
            name,
            paths,
            build,
            value,
            n_changes: AtomicU64::new(0),
            changed: Arc::default(),
        });
        host.spawn("watched files", follow(Arc::downgrade(&watched), contents));
        Ok(watched)
    }

    /// The last good value.
    pub fn get(&self) -> Arc<T> {
        self.value().clone()
    }

    /// How many contents were taken after the first: tells whether a value that was got earlier is the last.
    pub fn n_changes(&self) -> u64 {
        self.n_changes.load(Ordering::Acquire)
    }

    /// Resolves at the first change after this call, polled or not.
    pub fn changed(&self) -> OwnedNotified {
        self.changed.clone().notified_owned()
    }

    /// Whether the contents were good.
    fn take(&self, contents: &Contents) -> bool {
        match (self.build)(contents) {
            Ok(value) => {
                tracing::info!(what = self.name, files = ?self.paths, "changed files were taken");
                *self.value() = Arc::new(value);
                self.n_changes.fetch_add(1, Ordering::Release);
                self.host.ledger().taken(self.name);
                self.changed.notify_waiters();
                true
            }
            Err(mistakes) => {
                self.host.ledger().refused(self.name);
                for mistake in mistakes.lines().take(MISTAKES_TOLD_MAX) {
                    let mistake = mistake.trim();
                    tracing::warn!(what = self.name, mistake, "changed files are refused, what was there before stays");
                }
                if let n_more @ 1.. = mistakes.lines().count().saturating_sub(MISTAKES_TOLD_MAX) {
                    tracing::warn!(what = self.name, n_more, "the refused files have more mistakes");
                }
                false
            }
        }
    }

    /// The files say again what the value was made of.
    fn restore(&self) {
        tracing::info!(what = self.name, files = ?self.paths, "the files are again what they were before they were refused");
        self.host.ledger().taken(self.name);
    }

    fn value(&self) -> MutexGuard<'_, Arc<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who follows the value learns at once that it is gone.
impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.changed.notify_waiters();
    }
}

/// The change, or for ever where there is nothing that could.
pub async fn if_any(changed: Option<impl Future<Output = ()>>) {
    match changed {
        Some(changed) => changed.await,
        None => std::future::pending().await,
    }
}

/// Looks again and again, until nobody has the value any longer.
async fn follow<T: Send + Sync + 'static>(watched: Weak<Watched<T>>, mut judged: Contents) {
    let mut last: Option<Contents> = None;
    // What the value was made of, while it is not what was judged last.
    let mut good: Option<Contents> = None;
    loop {
        let Some(changed) = watched.upgrade().map(|watched| watched.changed()) else { return };
        // Its own changes wake it too, which does no harm.
        let _ = timeout(LOOK_INTERVAL, changed).await;
        let Some(watched) = watched.upgrade() else { return };
        let seen = Contents::read(&watched.host, &watched.paths);
        let is_settled = last.as_ref().is_some_and(|last| last.same(&seen));
        if seen.same(&judged) {
            last = None;
        } else if is_settled {
            if good.as_ref().is_some_and(|good| good.same(&seen)) {
                watched.restore();
                good = None;
            } else if watched.take(&seen) {
                good = None;
            } else {
                good.get_or_insert(judged);
            }
            (judged, last) = (seen, None);
        } else {
            last = Some(seen);
        }
    }
}

/// What all watched files of a process have come to, for its metrics.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Mutex<BTreeMap<&'static str, Account>>,
    /// By who uses them and path.
    certificates: Mutex<BTreeMap<(&'static str, String), Validity>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    n_refused: u64,
    is_stale: bool,
}

impl Ledger {
    fn enter(&self, name: &'static str) {
        self.accounts().entry(name).or_default();
    }

    fn taken(&self, name: &'static str) {
        self.accounts().entry(name).or_default().is_stale = false;
    }

    fn refused(&self, name: &'static str) {
        let mut accounts = self.accounts();
        let account = accounts.entry(name).or_default();
        account.n_refused += 1;
        account.is_stale = true;
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files of certificates that `name` uses now.
    pub(crate) fn certificates_are(&self, name: &'static str, files: impl Iterator<Item = (String, Validity)>) {
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        certificates.retain(|(user, _), _| *user != name);
        certificates.extend(files.map(|(path, validity)| ((name, path), validity)));
    }

    /// Each file of certificates once.
    pub(crate) fn certificates(&self) -> BTreeMap<String, Validity> {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        certificates.iter().map(|((_, path), validity)| (path.clone(), *validity)).collect()
    }
}

/// Name, labels and meaning of the ledger's metrics, for references.
pub const METRICS: [(&str, &str, &str); 2] = [
    ("config_files_refused", "file", "Times that changed files were refused and what was there before stayed"),
    ("config_files_stale", "file", "1 while the files have a content that was refused"),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabel {
    file: &'static str,
}

/// Counts at each scrape.
#[derive(Debug)]
pub(crate) struct LedgerMetrics(pub(crate) Arc<Ledger>);

impl Collector for LedgerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let accounts = self.0.accounts().clone();
        let [(refused, _, refused_help), (stale, _, stale_help)] = METRICS;
        let counter = <ConstCounter<u64> as TypedMetric>::TYPE;
        let mut family = encoder.encode_descriptor(refused, refused_help, None, counter)?;
        for (file, account) in &accounts {
            ConstCounter::new(account.n_refused).encode(family.encode_family(&FileLabel { file })?)?;
        }
        let gauge = <ConstGauge<i64> as TypedMetric>::TYPE;
        let mut family = encoder.encode_descriptor(stale, stale_help, None, gauge)?;
        for (file, account) in &accounts {
            ConstGauge::new(i64::from(account.is_stale)).encode(family.encode_family(&FileLabel { file })?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;
    use std::time::SystemTime;

    use super::*;
    use crate::{BoxFuture, Connection, Listen, System, Tasks};

    /// A disk with one file, which reads as `reads` says, one after the other, and then as the last.
    struct Disk {
        reads: Vec<Result<&'static str, &'static str>>,
        n_reads: AtomicUsize,
    }

    impl System for Disk {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            unimplemented!("no network")
        }
        fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
            unimplemented!("no network")
        }
        fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
            unimplemented!("no network")
        }
        fn read_file(&self, _: &str) -> io::Result<Vec<u8>> {
            let n = self.n_reads.fetch_add(1, Ordering::Relaxed).min(self.reads.len() - 1);
            self.reads[n].map(|text| text.as_bytes().to_vec()).map_err(io::Error::other)
        }
        fn wall_clock(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
        fn chance(&self) -> u64 {
            4
        }
    }

    fn watch(reads: &[Result<&'static str, &'static str>]) -> (Host, Arc<Watched<String>>) {
        let host = Host::new(Arc::new(Disk { reads: reads.to_vec(), n_reads: AtomicUsize::new(0) }), Tasks::new());
        let build = |contents: &Contents| {
            let text = String::from_utf8_lossy(contents.of("file").map_err(|unread| unread.to_string())?).into_owned();
            if text.starts_with("bad") { Err("it is bad\nand ugly".to_owned()) } else { Ok(text) }
        };
        let watched = Watched::new(&host, "test", vec!["file".to_owned()], build).expect("a good file");
        (host, watched)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_content_counts_when_two_looks_agree() {
        let (_host, watched) = watch(&[Ok("old"), Ok("ol"), Ok("o"), Ok("new")]);
        let changed = watched.changed();
        timeout(4 * LOOK_INTERVAL + LOOK_INTERVAL / 2, changed).await.expect("taken at the fourth look");
        assert_eq!(*watched.get(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_survives_any_read_that_fails() {
        for failing in 1..5 {
            let mut reads = vec![Ok("old"), Ok("new"), Ok("new"), Ok("new"), Ok("new"), Ok("new")];
            reads[failing] = Err("too many open files");
            let (host, watched) = watch(&reads);
            timeout(10 * LOOK_INTERVAL, watched.changed()).await.expect("taken sooner or later");
            assert_eq!(*watched.get(), "new", "read {failing} failed");
            let account = host.ledger().accounts()["test"];
            assert_eq!((account.n_refused, account.is_stale), (0, false), "one failing read is no bad file");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_content_is_counted_once_and_the_last_good_one_stays_until_the_next() {
        let reads = [Ok("old"), Ok("bad"), Ok("bad"), Ok("bad"), Ok("bad"), Ok("new")];
        let (host, watched) = watch(&reads);
        let changed = watched.changed();
        timeout(3 * LOOK_INTERVAL + LOOK_INTERVAL / 2, watched.changed()).await.expect_err("nothing good to take");
        let account = host.ledger().accounts()["test"];
        assert_eq!((account.n_refused, account.is_stale, watched.get().as_str()), (1, true, "old"));
        timeout(5 * LOOK_INTERVAL, changed).await.expect("the good one");
        let account = host.ledger().accounts()["test"];
        assert_eq!((account.n_refused, account.is_stale, watched.get().as_str()), (1, false, "new"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_back_as_it_was_is_stale_no_longer_and_no_change() {
        let reads = [Ok("old"), Ok("bad"), Ok("bad"), Ok("bad again"), Ok("bad again"), Ok("old"), Ok("old"), Ok("new")];
        let (host, watched) = watch(&reads);
        let changed = watched.changed();
        let stale_after = async |looks: u32| {
            timeout(looks * LOOK_INTERVAL, watched.changed()).await.expect_err("nothing has changed");
            host.ledger().accounts()["test"].is_stale
        };
        timeout(LOOK_INTERVAL / 2, watched.changed()).await.expect_err("between two looks");
        assert!(stale_after(4).await && !stale_after(2).await);
        assert_eq!((watched.get().as_str(), watched.n_changes()), ("old", 0));
        timeout(3 * LOOK_INTERVAL, changed).await.expect("something new");
        assert_eq!((watched.get().as_str(), watched.n_changes()), ("new", 1));
    }
}
