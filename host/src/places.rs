//! Places: so many of each name at once, given back when dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many places each key has taken.
type Taken<K> = Arc<Mutex<BTreeMap<K, usize>>>;

/// The same number of places for each of many keys. A key is remembered while it has a place, so the map is as bounded as
/// whatever takes places.
#[derive(Debug)]
pub struct Places<K: Ord> {
    /// 0 = no limit.
    max: usize,
    taken: Taken<K>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place<K: Ord> {
    /// Nothing is counted where there is no limit.
    counted: Option<(K, Taken<K>)>,
}

impl<K: Ord + Clone> Places<K> {
    /// `max` places of each key, 0 = no limit.
    pub fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    /// How many each has, 0 = no limit.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place of `key`; none when all are taken.
    pub fn take(&self, key: &K) -> Option<Place<K>> {
        if self.max == 0 {
            return Some(Place { counted: None });
        }
        let mut taken = lock(&self.taken);
        // The limit is at least 1, so an entry that is made here is counted too.
        let n = taken.entry(key.clone()).or_default();
        if *n >= self.max {
            return None;
        }
        *n += 1;
        Some(Place { counted: Some((key.clone(), self.taken.clone())) })
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let Some((key, taken)) = &self.counted else { return };
        let mut taken = lock(taken);
        if let Some(n) = taken.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                taken.remove(key);
            }
        }
    }
}

fn lock<K: Ord>(taken: &Mutex<BTreeMap<K, usize>>) -> MutexGuard<'_, BTreeMap<K, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_places_and_nothing_is_remembered_of_who_has_none() {
        let places = Places::new(2);
        let (first, _second) = (places.take(&"loud").expect("room"), places.take(&"loud").expect("room"));
        assert!(places.take(&"loud").is_none());
        let other = places.take(&"quiet").expect("places of its own");
        drop(first);
        let _third = places.take(&"loud").expect("one was given back");
        assert!(places.take(&"loud").is_none());
        drop(other);
        assert_eq!(lock(&places.taken).len(), 1);
    }

    #[test]
    fn zero_means_no_limit() {
        let places = Places::new(0);
        let taken: Vec<_> = (0..1000).map(|_| places.take(&()).expect("no limit")).collect();
        drop(taken);
        assert!(lock(&places.taken).is_empty());
    }
}
