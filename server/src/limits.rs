//! Limits of requests: each caller's streams and rate, each cluster's rate, and the rate of all.

mod guesses;

use std::sync::Arc;
use std::time::Duration;

use host::{Place, Places};
use proxy::limits::{OverRate, RateLimit, RateLimits};
use tokio::time::Instant;

use crate::config::ServerConfig;
use crate::front_door::refusal::Refusal;
pub(crate) use guesses::Guesses;

/// A caller's place for one request, from before its turn until its answer or upgraded connection has ended.
pub(crate) type StreamPlace = Place<Arc<str>>;

/// What each request passes before it may enter a tunnel.
pub(crate) struct RequestLimits {
    caller_streams: Places<Arc<str>>,
    caller_rate: RateLimits,
    cluster_rate: RateLimits,
    rate: RateLimit,
    rate_wait_max: Duration,
}

impl RequestLimits {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            caller_streams: Places::new(config.caller_streams_max),
            caller_rate: RateLimits::new(config.caller_rate_limit),
            cluster_rate: RateLimits::new(config.cluster_rate_limit),
            rate: RateLimit::new(config.rate_limit, config.rate_limit),
            rate_wait_max: config.rate_wait_max,
        }
    }

    /// Waits for a turn under every rate, at most `rate_wait_max` in all.
    ///
    /// The caller's own come first, the rate of all last: who is sent away by one took no turn under the next.
    pub(crate) async fn admit(&self, caller: &Arc<str>, cluster: &str) -> Result<StreamPlace, Refusal> {
        let place = self.caller_streams.take(caller).ok_or(Refusal::CallerFull { max: self.caller_streams.max() })?;
        let last = Instant::now() + self.rate_wait_max;
        let left = || last.saturating_duration_since(Instant::now());
        let over = |limit| move |OverRate { retry_after }| Refusal::RateLimited { limit, retry_after };
        self.caller_rate.acquire(caller, left()).await.map_err(over("caller-rate-limit"))?;
        self.cluster_rate.acquire(cluster, left()).await.map_err(over("cluster-rate-limit"))?;
        self.rate.acquire(left()).await.map_err(over("rate-limit"))?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_over_its_rate_takes_no_turn_from_others() {
        let config = ServerConfig {
            caller_rate_limit: 2,
            cluster_rate_limit: 4,
            rate_limit: 8,
            rate_wait_max: Duration::ZERO,
            ..ServerConfig::default()
        };
        let limits = RequestLimits::new(&config);
        let over = |limit, retry_after| Refusal::RateLimited { limit, retry_after: Duration::from_millis(retry_after) };
        let ask = async |caller: &str, cluster| limits.admit(&caller.into(), cluster).await.err();
        for _ in 0..100 {
            ask("loud", "edge-1").await;
        }
        assert_eq!(ask("loud", "edge-1").await, Some(over("caller-rate-limit", 500)));
        assert_eq!((ask("quiet", "edge-1").await, ask("quiet", "edge-1").await), (None, None));
        assert_eq!(ask("third", "edge-1").await, Some(over("cluster-rate-limit", 250)));
        assert_eq!(ask("fourth", "edge-2").await, None);
        assert_eq!((ask("fourth", "edge-3").await, ask("fifth", "edge-3").await), (None, None));
        assert_eq!(ask("sixth", "edge-4").await, None, "the eighth of all");
        assert_eq!(ask("sixth", "edge-4").await, Some(over("rate-limit", 125)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_so_long_under_all_rates_together() {
        let config = ServerConfig { caller_rate_limit: 2, rate_limit: 1, ..ServerConfig::default() };
        let limits = RequestLimits::new(&config);
        let (began, caller) = (Instant::now(), Arc::from("caller"));
        for expected_ms in [0, 1000] {
            limits.admit(&caller, "edge-1").await.expect("a turn within the wait");
            assert_eq!(began.elapsed().as_millis(), expected_ms);
        }
        let asks: [_; 3] = std::array::from_fn(|_| limits.admit(&caller, "edge-1"));
        let [first, second, third] = asks;
        let (first, second, third) = tokio::join!(biased; first, second, third);
        assert!(first.is_ok() && second.is_err() && third.is_err());
        assert_eq!(began.elapsed().as_millis(), 2000, "nobody waited for more than a second");
    }
}
