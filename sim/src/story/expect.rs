//! Claims in virtual time, and the words for amounts of it.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use anyhow::Context;

/// A claim about something awaited.
pub trait Within<T>: IntoFuture<Output = anyhow::Result<T>> + Sized {
    /// Fails unless it succeeds in `limit`.
    fn within(self, limit: Duration) -> impl Future<Output = anyhow::Result<T>> {
        let work = self.into_future();
        async move { tokio::time::timeout(limit, work).await.with_context(|| format!("did not happen within {limit:?}"))? }
    }
}

impl<T, F: IntoFuture<Output = anyhow::Result<T>>> Within<T> for F {}

/// Seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// Requests per second; the time between two.
pub const fn rps(n: u64) -> Duration {
    Duration::from_nanos(1_000_000_000 / n)
}

/// Kibibytes.
pub const fn kib(n: u64) -> u64 {
    n << 10
}

/// Mebibytes.
pub const fn mib(n: u64) -> u64 {
    n << 20
}
