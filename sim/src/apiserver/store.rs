//! Objects, their one counter of revisions, and the recent history that watches and paged lists are answered from.
//!
//! Every change counts the revision up by one, so the history's position says which revision it holds, and the past
//! state of a kind is its present one with the later changes undone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::kinds::Kind;

/// Namespace (empty for cluster-scoped kinds) and name; sorts as a real API server lists.
pub(crate) type ObjectKey = (String, String);

/// The objects of one kind.
pub(crate) type Objects = BTreeMap<ObjectKey, Arc<Value>>;

/// All objects, and what happened to them lately.
pub(crate) struct Store {
    revision: u64,
    objects: BTreeMap<&'static str, Objects>,
    history: VecDeque<Change>,
    history_len: usize,
}

/// One change of one object; at most one of `before` and `after` is absent.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: &'static Kind,
    pub(crate) key: ObjectKey,
    pub(crate) before: Option<Arc<Value>>,
    /// Absent after a deletion; `before` then carries the revision of the deletion.
    pub(crate) after: Option<Arc<Value>>,
}

/// The history does not reach back that far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compacted;

impl Store {
    /// An empty store that remembers `history_len` changes.
    pub(crate) fn new(history_len: usize) -> Self {
        // Clients read 0 as "any", so the first revision is a later one, as behind a real API server.
        Self { revision: 1, objects: BTreeMap::new(), history: VecDeque::new(), history_len }
    }

    /// The revision of the latest change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, kind: &Kind, key: &ObjectKey) -> Option<&Arc<Value>> {
        self.objects.get(kind.plural)?.get(key)
    }

    /// The objects of a kind as they are.
    pub(crate) fn objects(&self, kind: &Kind) -> Objects {
        self.objects.get(kind.plural).cloned().unwrap_or_default()
    }

    /// The objects of a kind as they were at `revision`.
    pub(crate) fn objects_at(&self, kind: &Kind, revision: u64) -> Result<Objects, Compacted> {
        let mut objects = self.objects(kind);
        for change in self.changes_since(revision)?.rev().filter(|change| change.kind.plural == kind.plural) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }

    /// The changes after `revision`, oldest first.
    pub(crate) fn changes_since(&self, revision: u64) -> Result<impl DoubleEndedIterator<Item = &Change>, Compacted> {
        let oldest = self.revision - self.history.len() as u64;
        let skip = revision.checked_sub(oldest).ok_or(Compacted)?;
        Ok(self.history.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)))
    }

    /// Puts `object` in place of what was there and gives it the next revision.
    pub(crate) fn put(&mut self, kind: &'static Kind, key: ObjectKey, mut object: Value) -> Arc<Value> {
        let revision = self.next_revision(&mut object);
        let object = Arc::new(object);
        let before = self.objects.entry(kind.plural).or_default().insert(key.clone(), object.clone());
        self.remember(Change { revision, kind, key, before, after: Some(object.clone()) });
        object
    }

    /// Removes an object; what it was, with the revision of its deletion.
    pub(crate) fn remove(&mut self, kind: &'static Kind, key: &ObjectKey) -> Option<Arc<Value>> {
        let before = self.objects.get_mut(kind.plural)?.remove(key)?;
        let mut last = Value::clone(&before);
        let revision = self.next_revision(&mut last);
        let last = Arc::new(last);
        self.remember(Change { revision, kind, key: key.clone(), before: Some(last.clone()), after: None });
        Some(last)
    }

    /// Forgets the history, as etcd does every few minutes.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
    }

    fn next_revision(&mut self, object: &mut Value) -> u64 {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.revision
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        if self.history.len() > self.history_len {
            self.history.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds;
    use super::*;

    #[test]
    fn the_past_is_the_present_with_later_changes_undone() {
        let kind = kinds::by_plural("configmaps").expect("a row");
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let mut store = Store::new(10);
        store.put(kind, key("a"), json!({ "data": "1" }));
        store.put(kind, key("b"), json!({ "data": "1" }));
        let then = store.revision();
        store.put(kind, key("a"), json!({ "data": "2" }));
        store.remove(kind, &key("b"));
        store.put(kind, key("c"), json!({ "data": "1" }));

        let past = store.objects_at(kind, then).expect("remembered");
        assert_eq!(past.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(past[&key("a")]["data"], "1");
    }

    #[test]
    fn a_history_that_is_gone_is_said_to_be_gone() {
        let kind = kinds::by_plural("configmaps").expect("a row");
        let mut store = Store::new(2);
        let first = store.revision();
        for data in 0..3 {
            store.put(kind, ("default".to_owned(), "a".to_owned()), json!({ "data": data }));
        }
        assert_eq!(store.changes_since(first).map(Iterator::count), Err(Compacted));
        assert_eq!(store.changes_since(first + 1).map(Iterator::count), Ok(2));
        store.compact();
        assert_eq!(store.changes_since(first + 1).map(Iterator::count), Err(Compacted));
        assert_eq!(store.changes_since(store.revision()).map(Iterator::count), Ok(0));
    }
}
