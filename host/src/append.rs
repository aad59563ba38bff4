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
    /// Whether its path still names it and it is as long as it was: not so once somebody has moved, removed or emptied it.
    /// Always so where there is no path.
    ///
    /// # Errors
    /// What kept that from being found out.
    fn is_in_place(&self) -> BoxFuture<'_, io::Result<bool>> {
        Box::pin(async { Ok(true) })
    }
}
