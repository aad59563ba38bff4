//! Append: a file that grows at its end alone, by one process at a time.

use std::io;

use crate::BoxFuture;

/// A file that is only ever appended to; no other process can open it so until it is dropped.
pub trait Append: Send + Sync {
    /// How many bytes it has.
    fn n_bytes(&self) -> u64;
    /// Adds all of `bytes`.
    ///
    /// # Errors
    /// What kept them from being written; then none of them are part of the file, as far as that can be had.
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, io::Result<()>>;
    /// Resolves when all that was appended would outlive a loss of power.
    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>>;
}
