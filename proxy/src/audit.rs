//! The audit log: one record for each request, each naming the hash of the one before, so that whoever keeps the last hash
//! can prove the rest.
//!
//! [`Log`] takes records and never waits, [`Writer`] owns the file, `verify` reads all again. Both ends keep one; each end's
//! checkpoints carry the other's last hash, so that neither can take back what it has told.

mod chain;
#[cfg(test)]
mod disk;
mod key;
mod line;
mod log;
mod place;
mod record;
mod trail;
mod verify;
mod writer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host::watched::Contents;
use host::{Host, Watched};

use crate::flags::{self, Flag, Section, Values};
use crate::program::StartError;
use key::Key;
pub use log::{Log, METRICS, Metered, Running};
use place::Place;
pub use record::{Asked, Kind, Outcome, PeerHead, Program};
pub use trail::Trail;
pub use verify::{EX_NOT_VERIFIED, run as verify, told};
pub use writer::Writer;

/// What references say of the log.
pub const CHAPTER: &str = include_str!("audit/chapter.md");

/// How long a record waits for a checkpoint at most; an agent's head travels as often.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// Heads of others in one checkpoint; of more there are several. Keeps its line under the longest one that is read.
const PEERS_MAX: usize = 256;

/// The flags of a log, for both programs.
pub const FLAGS: Section = Section {
    title: "Audit",
    flags: &[
        Flag::value("audit", "FILE", "One JSON record for each request, chained by hashes; - is standard output; empty = none"),
        Flag::value("audit-key", "FILE", "Key of at least 16 bytes that signs checkpoints, read again when it changes"),
        Flag::value("audit-file-max", "SIZE", "A file of this size gets the name FILE.SEQ, and a new one begins")
            .default("100MiB"),
        Flag::value("audit-files", "N", "Such files kept beside the one that is written, 0 = all").default("10"),
        Flag::value(
            "audit-unwritable",
            "WHAT",
            "While no record can be written: refuse (writes, exec and every upgrade but a watch get 503; reads go on) or go-on",
        )
        .default("refuse"),
    ],
};

/// What an end does with requests that change something while their records cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unwritable {
    /// It refuses them.
    #[default]
    Refuse,
    /// It lets them pass; what does not fit into memory is counted and lost.
    GoOn,
}

/// How a process keeps its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Where; `-` is standard output.
    pub file: String,
    /// What signs checkpoints; without one they prove nothing to who does not know a head.
    pub key: Option<String>,
    /// A file this long is rotated.
    pub file_bytes_max: u64,
    /// Rotated files that are kept; 0 = all.
    pub n_files: usize,
    /// While it cannot be written.
    pub unwritable: Unwritable,
}

impl AuditConfig {
    /// The defaults of a log in `file`.
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            key: None,
            // Some two hundred thousand requests, and a gigabyte in all.
            file_bytes_max: 100 << 20,
            n_files: 10,
            unwritable: Unwritable::default(),
        }
    }

    /// Reads [`FLAGS`]; none without `audit`.
    pub fn read(values: &mut Values, host: &Host, warnings: &mut Vec<String>) -> Option<Self> {
        let file = values.get("audit", flags::optional(flags::path)).flatten();
        let Some(file) = file else {
            for name in ["audit-key", "audit-file-max", "audit-files", "audit-unwritable"] {
                if values.is_given(name) {
                    values.fail(name, "needs --audit");
                }
            }
            return None;
        };
        let mut config = Self::new(&file);
        config.key = values.get("audit-key", flags::optional(flags::path)).flatten();
        match &config.key {
            Some(path) => {
                let read = Key::of(&Contents::read(host, std::slice::from_ref(path)), path);
                values.fail_all(read.err());
            }
            None => warnings.push(
                "without --audit-key who can write the audit log can write it anew, and only what the other end knows shows that"
                    .to_owned(),
            ),
        }
        values.read("audit-file-max", file_size, &mut config.file_bytes_max);
        values.read("audit-files", flags::count, &mut config.n_files);
        values.read("audit-unwritable", unwritable, &mut config.unwritable);
        Some(config)
    }

    /// Tries whether a log can be written in its place, and leaves nothing there that was not there before. Says nothing of room.
    ///
    /// # Errors
    /// Why it cannot; [`io::ErrorKind::AddrInUse`] where another process writes it.
    pub async fn try_place(&self, host: &Host) -> io::Result<()> {
        if self.file == "-" {
            return Ok(());
        }
        let is_missing = host.read_file_at(&self.file, 0, 0).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let opened = host.append_to(&self.file).await?;
        // Whoever has written something meanwhile keeps it.
        if is_missing && opened.n_bytes() == 0 {
            host.discard_file(&self.file).await?;
        }
        Ok(())
    }

    /// Opens the log behind what the last process left, and its writer, which is still to be run.
    ///
    /// # Errors
    /// Why the file or the key cannot be used. That a disk is full is none.
    pub async fn open(&self, host: &Host, program: &Program) -> Result<(Arc<Log>, Writer), StartError> {
        let log = Log::new(host, self.unwritable == Unwritable::Refuse);
        let key = self.key.as_ref().map(|path| watch_key(host, path)).transpose()?;
        let unusable = |source: io::Error| StartError::Material { flag: "audit", path: self.file.clone(), source: source.into() };
        let writer = match &*self.file {
            "-" => Writer::to_output(host, &log, program, key),
            file => {
                let place = Place { path: file.to_owned() };
                Writer::open((host, &log), place, (self.file_bytes_max, self.n_files), program, key).await
            }
        };
        Ok((log, writer.map_err(unusable)?))
    }
}

/// The other ends that a process talks to.
pub trait Peers: Send + Sync {
    /// What they have told of their logs, in an order of its own.
    fn heads(&self) -> Vec<PeerHead>;
    /// Tells all of them where our log has come to.
    fn tell(&self, head: &str);
}

fn watch_key(host: &Host, path: &str) -> Result<Arc<Watched<Key>>, StartError> {
    let watched = path.to_owned();
    let key = Watched::new(host, "audit-key", vec![path.to_owned()], move |contents| Key::of(contents, &watched));
    key.map_err(|mistake| StartError::Config(vec![mistake]))
}

/// Smaller files would hold little but their first and last lines.
const FILE_BYTES_MIN: usize = 64 << 10;

fn file_size(text: &str) -> Result<u64, String> {
    match flags::size(text)? {
        size if size < FILE_BYTES_MIN => Err(format!("{text:?} is less than {}KiB", FILE_BYTES_MIN >> 10)),
        size => Ok(size as u64),
    }
}

fn unwritable(text: &str) -> Result<Unwritable, String> {
    match text {
        "refuse" => Ok(Unwritable::Refuse),
        "go-on" => Ok(Unwritable::GoOn),
        other => Err(format!("{other:?} is neither refuse nor go-on")),
    }
}
