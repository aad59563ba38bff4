//! client-go's limiter: so many requests per second, and bursts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Argo CD's own (`ARGOCD_K8S_CLIENT_QPS`, `ARGOCD_K8S_CLIENT_BURST`), for each cluster's client.
const PER_SECOND: f64 = 50.0;
const BURST: f64 = 100.0;

/// A bucket of tokens. Who comes first goes first.
pub(super) struct Limiter(Mutex<(f64, Instant)>);

impl Limiter {
    pub(super) fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    /// Waits for a turn.
    pub(super) async fn acquire(&self) {
        let wait = {
            let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let (tokens, at) = *bucket;
            let tokens = (tokens + (now - at).as_secs_f64() * PER_SECOND).min(BURST) - 1.0;
            *bucket = (tokens, now);
            Duration::from_secs_f64((-tokens / PER_SECOND).max(0.0))
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_a_hundred_then_fifty_a_second() {
        let (limiter, began) = (Limiter::new(), Instant::now());
        for _ in 0..100 {
            limiter.acquire().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            limiter.acquire().await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((1.99..2.2).contains(&took), "{took} s");
    }
}
