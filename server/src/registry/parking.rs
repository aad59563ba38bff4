//! Parking: places where requests wait for a session that was just lost, a share of them for each cluster.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tunnel::id::ClusterId;

use crate::config::ServerConfig;

/// Places for requests and for the bytes of their heads. A cluster may have as much as it leaves free: one that is lost
/// alone gets half, ample for the 200 watches and lists of an Argo CD, and whoever is lost next finds room.
pub(super) struct Parking {
    pub(super) wait_max: Duration,
    pub(super) window: Duration,
    places: Load,
    waiting: Mutex<BTreeMap<ClusterId, Load>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    requests: usize,
    bytes: usize,
}

/// One request's place, until it is dropped.
pub(super) struct Place<'a> {
    parking: &'a Parking,
    cluster: ClusterId,
    bytes: usize,
}

impl Parking {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            wait_max: config.park_max,
            window: config.park_window,
            places: Load { requests: config.park_requests_max, bytes: config.park_bytes_max },
            waiting: Mutex::default(),
        }
    }

    /// A place for a request of `cluster`, unless its share is taken.
    pub(super) fn enter(&self, cluster: &ClusterId, bytes: usize) -> Option<Place<'_>> {
        let mut waiting = self.waiting();
        let free = waiting.values().fold(self.places, |free, load| Load {
            requests: free.requests.saturating_sub(load.requests),
            bytes: free.bytes.saturating_sub(load.bytes),
        });
        let before = waiting.get(cluster).copied().unwrap_or_default();
        let own = Load { requests: before.requests + 1, bytes: before.bytes.saturating_add(bytes) };
        if own.requests > free.requests || own.bytes > free.bytes {
            return None;
        }
        waiting.insert(cluster.clone(), own);
        Some(Place { parking: self, cluster: cluster.clone(), bytes })
    }

    /// How many requests wait.
    pub(super) fn n_waiting(&self) -> usize {
        self.waiting().values().map(|load| load.requests).sum()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Load>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.parking.waiting();
        if let Some(own) = waiting.get_mut(&self.cluster) {
            own.requests -= 1;
            own.bytes -= self.bytes;
            if own.requests == 0 {
                waiting.remove(&self.cluster);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_parks_as_much_as_it_leaves_free_and_gives_it_back() {
        let config = ServerConfig { park_requests_max: 8, park_bytes_max: 1000, ..ServerConfig::default() };
        let parking = Parking::new(&config);
        let enter = |cluster: &str, bytes| parking.enter(&cluster.parse().expect("an id"), bytes);
        let fill = |cluster: &str| std::iter::from_fn(|| enter(cluster, 0)).collect::<Vec<_>>();
        let (a, b, c) = (fill("a"), fill("b"), fill("c"));
        assert_eq!((a.len(), b.len(), c.len(), parking.n_waiting()), (4, 2, 1, 7));
        drop((a, b, c));
        assert_eq!(parking.n_waiting(), 0);

        let half = enter("a", 500).expect("half of the bytes");
        assert!(enter("a", 1).is_none() && enter("b", 500).is_some());
        drop(half);
        assert!(enter("a", 500).is_some());
    }
}
