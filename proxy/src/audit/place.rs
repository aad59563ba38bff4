//! Place: the file of a log and those that it was before, by their names; and what the last process left there.

use std::io;

use host::{Append, Host};

use super::chain::{Chain, ChainId, Hash, Head};
use super::key::Key;
use super::line::{Kind, LINE_BYTES_MAX, Line};
use super::record::Recovered;

/// How much of a file is held at once, and how much of its end may be no record and no zeros: the longest record, and as much
/// of what was torn.
const TAIL_BYTES_MAX: usize = 2 * LINE_BYTES_MAX;

/// The last number that a chain goes on behind: what every reader of JSON has exactly, and a thousand records a second for
/// longer than there are people. A file with a greater one was not written by a log.
const SEQ_MAX: u64 = 1 << 53;

/// Digits of the number in a rotated file's name: all of a `u64`, so that names sort as numbers do.
const SEQ_DIGITS: usize = 20;

/// Where a log is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The file that is written.
    pub(super) path: String,
}

/// A file that was written before, by its name: `FILE.SEQ`, or `FILE.SEQ-N` where a torn one has the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rotated {
    /// Of its first record.
    pub(super) seq: u64,
    nth: u32,
    pub(super) path: String,
}

/// What the last process left.
pub(super) struct Left {
    /// Open, and locked.
    pub(super) file: Box<dyn Append>,
    pub(super) found: Found,
}

pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A chain that was ended well, as far as a key can tell; its file goes on. The number of that file's first record.
    Ended { chain: Chain, first_seq: u64 },
    /// A chain without an end that counts. What lies at the path has to get the name of the file that begins with this record, if
    /// anything lies there.
    Broken { recovered: Option<Recovered>, rename: Option<u64> },
}

impl Found {
    /// The number of the last record; 0 without one.
    fn last_seq(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Ended { chain, .. } => chain.head.seq,
            Self::Broken { recovered, .. } => recovered.as_ref().map_or(0, |recovered| recovered.seq),
        }
    }
}

impl Place {
    /// Opens the file and finds out what the last process left. With a key, a chain goes on only behind an end that it has
    /// signed: what signs the next checkpoint signs all before it.
    ///
    /// # Errors
    /// Why it cannot be written, also when it is no audit log.
    pub(super) async fn open(&self, host: &Host, key: Option<&Key>) -> io::Result<Left> {
        let mut file = host.append_to(&self.path).await?;
        let n_bytes = file.n_bytes();
        let tail = Tail::read(host, &self.path, n_bytes)?;
        let found = match tail.last {
            Some(last) => {
                let first = First::read(host, &self.path)?;
                let is_ended = matches!(last.kind, Kind::End { .. }) && tail.torn_bytes == 0;
                if is_ended && self.is_signed_end(host, n_bytes, first.chain, key)? {
                    let head = Head { chain: first.chain, seq: last.seq, hash: last.hash };
                    Found::Ended { chain: Chain { head }, first_seq: first.seq }
                } else {
                    let name = Self { path: self.free_path(host, first.seq)? }.name().to_owned();
                    let recovered = recovered(&last, first.chain, name, tail.torn_bytes);
                    Found::Broken { recovered: Some(recovered), rename: Some(first.seq) }
                }
            }
            None => self.behind_rotated(host, n_bytes).await?,
        };
        let seq = found.last_seq();
        if seq > SEQ_MAX {
            let why = format!("its last record has the number {seq}, to which no log comes: move it away");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if matches!(found, Found::Broken { .. }) {
            // What a killed process wrote may not be on the disk yet, and the next chain says that it is.
            file.sync().await?;
        }
        Ok(Left { file, found })
    }

    /// Whether the file's last line is an end of this chain that the key has signed, behind the line that it was written
    /// behind. Always without a key.
    fn is_signed_end(&self, host: &Host, n_bytes: u64, of: ChainId, key: Option<&Key>) -> io::Result<bool> {
        let Some(key) = key else { return Ok(true) };
        let tail = host.read_file_at(&self.path, n_bytes.saturating_sub(TAIL_BYTES_MAX as u64), TAIL_BYTES_MAX)?;
        let mut lines = tail.strip_suffix(b"\n").unwrap_or(&tail).rsplit(|byte| *byte == b'\n');
        let (Some(end), Some(before)) = (lines.next(), lines.next()) else { return Ok(false) };
        let fits = Line::parse(end)
            .is_ok_and(|line| matches!(line.kind, Kind::End { chain, .. } if chain == Some(of)) && line.prev == Hash::of(before));
        let is_signed = fits && key.has_signed(end);
        if !is_signed {
            tracing::warn!(
                file = self.path,
                "the end of the audit log is not signed with the key of --audit-key: verify it, unless the key was changed"
            );
        }
        Ok(is_signed)
    }

    /// Nothing whole is in the file itself, so what was before it counts.
    async fn behind_rotated(&self, host: &Host, own_bytes: u64) -> io::Result<Found> {
        let mut torn_bytes = own_bytes;
        let mut rotated = self.rotated(host)?;
        while let Some(before) = rotated.pop() {
            // Opened to learn its length, and that nobody writes it.
            let mut opened = host.append_to(&before.path).await?;
            opened.sync().await?;
            let tail = Tail::read(host, &before.path, opened.n_bytes())?;
            torn_bytes += tail.torn_bytes;
            // A crash in the first record of a file, and another in the first of the next.
            let Some(last) = tail.last else { continue };
            let first = First::read(host, &before.path)?;
            let name = Self { path: before.path }.name().to_owned();
            let recovered = recovered(&last, first.chain, name, torn_bytes);
            let rename = (own_bytes > 0).then_some(last.seq.saturating_add(1));
            return Ok(Found::Broken { recovered: Some(recovered), rename });
        }
        Ok(match torn_bytes {
            0 => Found::Nothing,
            _ => Found::Broken { recovered: None, rename: (own_bytes > 0).then_some(1) },
        })
    }

    /// The files that this one was before, oldest first.
    pub(super) fn rotated(&self, host: &Host) -> io::Result<Vec<Rotated>> {
        let mut rotated: Vec<_> = host.list_folder(self.folder())?.iter().filter_map(|name| self.rotated_of(name)).collect();
        rotated.sort_unstable();
        Ok(rotated)
    }

    /// Gives the file, which begins with `seq`, the name of those that were before; that it is gone already is no error.
    pub(super) async fn put_aside(&self, host: &Host, seq: u64) -> io::Result<()> {
        match host.rename_file(&self.path, &self.free_path(host, seq)?).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// A name for the file that begins with `seq`, which no file has.
    pub(super) fn free_path(&self, host: &Host, seq: u64) -> io::Result<String> {
        let taken = self.rotated(host)?;
        let nth = taken.iter().filter(|rotated| rotated.seq == seq).map(|rotated| rotated.nth + 1).max().unwrap_or(1);
        Ok(self.rotated_path(seq, nth))
    }

    fn rotated_path(&self, seq: u64, nth: u32) -> String {
        let path = format!("{}.{seq:0width$}", self.path, width = SEQ_DIGITS);
        if nth > 1 { format!("{path}-{nth}") } else { path }
    }

    fn rotated_of(&self, name: &str) -> Option<Rotated> {
        let rest = name.strip_prefix(self.name())?.strip_prefix('.')?;
        let (digits, nth) = rest
            .split_once('-')
            .map_or((rest, Some(1)), |(digits, nth)| (digits, nth.parse().ok().filter(|nth| *nth < u32::MAX)));
        let (seq, nth) = (digits.parse().ok().filter(|_| digits.len() == SEQ_DIGITS)?, nth?);
        let path = self.rotated_path(seq, nth);
        // A name that only looks like one of ours is none.
        path.ends_with(name).then_some(Rotated { seq, nth, path })
    }

    pub(super) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&*self.path, |(_, name)| name)
    }

    fn folder(&self) -> &str {
        match self.path.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((folder, _)) => folder,
            None => ".",
        }
    }
}

fn recovered(last: &Line, chain: ChainId, file: String, torn_bytes: u64) -> Recovered {
    Recovered { file, chain: chain.to_string(), seq: last.seq, hash: last.hash.to_string(), torn_bytes }
}

/// The end of a file.
struct Tail {
    /// Its last whole record.
    last: Option<Line>,
    /// Bytes behind that.
    torn_bytes: u64,
}

impl Tail {
    fn read(host: &Host, path: &str, n_bytes: u64) -> io::Result<Self> {
        // The next part reaches as far into this one as a record may that begins before it.
        const STEP: u64 = (TAIL_BYTES_MAX - LINE_BYTES_MAX - 1) as u64;
        let (mut from, mut n_other, mut has_newline) = (n_bytes.saturating_sub(TAIL_BYTES_MAX as u64), 0, false);
        loop {
            let part = host.read_file_at(path, from, TAIL_BYTES_MAX)?;
            if let Some((last, end)) = Self::last_of(&part) {
                return Ok(Self { last: Some(last), torn_bytes: n_bytes - from - end as u64 });
            }
            // A disk that lost its power shows zeros where it had not written yet, however many.
            n_other += part.iter().filter(|byte| **byte != 0).count();
            has_newline |= part.contains(&b'\n');
            if from == 0 {
                let is_begun = part.iter().zip(BEGIN).all(|(byte, of)| *byte == of);
                if !has_newline && (is_begun || n_other == 0) {
                    return Ok(Self { last: None, torn_bytes: n_bytes });
                }
            }
            if from == 0 || n_other > TAIL_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "holds something else than audit records: name another file, or move it away",
                ));
            }
            from = from.saturating_sub(STEP);
        }
    }

    /// The last record of a part of a file, and where the bytes behind it begin.
    fn last_of(part: &[u8]) -> Option<(Line, usize)> {
        let mut end = part.len();
        while let Some(newline) = part[..end].iter().rposition(|byte| *byte == b'\n') {
            let begin = part[..newline].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if let Ok(last) = Line::parse(&part[begin..newline]) {
                return Some((last, newline + 1));
            }
            end = newline;
        }
        None
    }
}

/// Every record begins so.
const BEGIN: [u8; 7] = *b"{\"seq\":";

/// Lines at the begin of a file among which one names its chain: the first one should, and a checkpoint that was due may
/// stand before it.
const NAMING_LINES_MAX: usize = 4;

/// The first record of a file, and the chain that it belongs to.
struct First {
    seq: u64,
    chain: ChainId,
}

impl First {
    fn read(host: &Host, path: &str) -> io::Result<Self> {
        let begin = host.read_file_at(path, 0, LINE_BYTES_MAX + 1)?;
        let lines = begin.split(|byte| *byte == b'\n').take(NAMING_LINES_MAX);
        let lines: Vec<_> = lines.map_while(|line| Line::parse(line).ok()).collect();
        let chain = lines.iter().find_map(|line| line.kind.named_chain());
        match lines.first().zip(chain) {
            Some((first, chain)) => Ok(Self { seq: first.seq, chain }),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "does not begin as an audit log does: move it away")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_known_by_their_names_alone_and_sort_by_number() {
        let place = Place { path: "/var/log/audit.log".into() };
        let name = |seq, nth| place.rotated_path(seq, nth);
        assert_eq!(name(42, 1), "/var/log/audit.log.00000000000000000042");
        assert_eq!(name(42, 2), "/var/log/audit.log.00000000000000000042-2");
        for wrong in [
            "audit.log",
            "audit.log.1",
            "audit.log.gz",
            "audit.log.00000000000000000042-x",
            "audit.log.00000000000000000042-02",
            "other.log.00000000000000000042",
            "audit.log.+0000000000000000042",
        ] {
            assert_eq!(place.rotated_of(wrong), None, "{wrong}");
        }
        let mut all: Vec<_> = [name(100, 1), name(9, 2), name(9, 10), name(9, 1)]
            .iter()
            .filter_map(|path| place.rotated_of(path.rsplit('/').next().expect("a name")))
            .collect();
        all.sort_unstable();
        let order: Vec<_> = all.iter().map(|rotated| (rotated.seq, rotated.nth)).collect();
        assert_eq!(order, [(9, 1), (9, 2), (9, 10), (100, 1)]);
        assert_eq!(
            (place.folder(), Place { path: "/a".into() }.folder(), Place { path: "a".into() }.folder()),
            ("/var/log", "/", ".")
        );
    }
}
