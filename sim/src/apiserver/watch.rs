//! WATCH: a cursor over the store's history, turned into a body that never ends by itself.
//!
//! A watch keeps nothing but its position: a slow reader costs no memory, and one that falls behind the history is told
//! 410 and ended, as by a real API server.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::Drain;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ApiServer;
use super::body::{self, Body};
use super::form::Form;
use super::gauge::Counted;
use super::list::{Scope, asked_revision};
use super::misbehavior::Misbehavior;
use super::query::Query;
use super::status::Status;
use super::store::{Change, Store};

/// How much history one look at the store may copy: keeps the lock short beside a long history.
const CHANGES_PER_LOOK: usize = 256;

/// How far apart bookmarks and the end of time are when nobody asked for them.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long before the end of its time a watch gets a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

struct Watch {
    server: ApiServer,
    scope: Scope,
    form: Form,
    /// Every change up to this revision was looked at.
    cursor: u64,
    /// Objects that existed when the watch began, and changes found by the last look.
    pending: Events,
    bookmark_every: Duration,
    bookmark_at: Instant,
    ends_at: Instant,
    /// It began at a revision that its server calls too old.
    is_gone: bool,
    /// Set after an `ERROR` event: the body ends.
    over: bool,
    drain: Drain,
    _open: Counted,
}

/// Events with the objects that they tell of, oldest first.
type Events = VecDeque<(Event, Arc<Value>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Added,
    Modified,
    Deleted,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// Begins the watch that `query` asks for.
pub(crate) fn start(server: &ApiServer, scope: Scope, query: &Query, form: Form) -> Result<Response<Body>, Status> {
    if query.get("sendInitialEvents").is_some() || query.get("resourceVersionMatch").is_some() {
        let what =
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Status::unprocessable(format!("ListOptions.meta.k8s.io \"\" is invalid: {what}")));
    }
    let now = Instant::now();
    let ends_at =
        now + query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map_or(NEVER, Duration::from_secs).min(NEVER);
    let bookmarks = query.flag("allowWatchBookmarks");
    let bookmark_every = if bookmarks { server.options().bookmark_every } else { NEVER };
    // A watch with a time limit gets one before its end (`cacheWatcher.nextBookmarkTime`).
    let last_bookmark = ends_at.checked_sub(LAST_BOOKMARK).filter(|at| bookmarks && *at > now);
    let (cursor, pending) = server.with_store(|store| begin(store, &scope, query))?;
    let is_gone = pending.is_empty()
        && asked_revision(query)?.is_some_and(|asked| asked > 0)
        && server.misbehaviors().has(Misbehavior::Gone);
    let watch = Watch {
        server: server.clone(),
        scope,
        form,
        cursor,
        pending,
        bookmark_every,
        bookmark_at: last_bookmark.unwrap_or(now + bookmark_every).min(now + bookmark_every),
        ends_at,
        is_gone,
        over: false,
        drain: server.drain(),
        _open: server.open_watches().enter(),
    };
    let frames = futures_util::stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<_, io::Error>(Frame::data(line)), watch))
    });
    let mut response = body::with_type(StatusCode::OK, "application/json", "");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

/// Where a watch begins: without a revision, or with 0, every object is `ADDED` first.
fn begin(store: &Store, scope: &Scope, query: &Query) -> Result<(u64, Events), Status> {
    match asked_revision(query)? {
        Some(revision) if revision > 0 => Ok((revision, Events::new())),
        _ => {
            let objects = store.objects(scope.kind).into_values().filter(|object| scope.contains(object));
            Ok((store.revision(), objects.map(|object| (Event::Added, object)).collect()))
        }
    }
}

impl Watch {
    /// The next line; none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.server.misbehaviors().wait_until_over(Misbehavior::WatchesSilent).await;
            if let Some((event, object)) = self.pending.pop_front() {
                let object = self.form.one(self.scope.kind, &object, self.server.now());
                return Some(line(event.name(), &object));
            }
            if self.over {
                return None;
            }
            // Before the look, so that a change between the two is not missed.
            let changed = self.server.changed().notified();
            let look = |store: &Store| {
                if self.is_gone { Err(too_old(store, self.cursor)) } else { look(store, &self.scope, self.cursor) }
            };
            match self.server.with_store(look) {
                Ok((cursor, found)) if cursor > self.cursor => {
                    (self.cursor, self.pending) = (cursor, found);
                    continue;
                }
                Ok(_) => {}
                Err(gone) => {
                    self.over = true;
                    return Some(line("ERROR", &gone.to_json()));
                }
            }
            tokio::select! {
                biased;
                () = self.drain.started() => return None,
                () = tokio::time::sleep_until(self.ends_at) => return None,
                () = changed => {}
                () = tokio::time::sleep_until(self.bookmark_at) => {
                    self.bookmark_at = Instant::now() + self.bookmark_every;
                    return Some(line("BOOKMARK", &self.form.bookmark(self.scope.kind, self.cursor)));
                }
            }
        }
    }
}

/// What happened in `scope` after `cursor`, and how far the look went.
fn look(store: &Store, scope: &Scope, cursor: u64) -> Result<(u64, Events), Status> {
    let mut seen = cursor;
    let mut found = Events::new();
    for change in store.changes_since(cursor).map_err(|_| too_old(store, cursor))?.take(CHANGES_PER_LOOK) {
        seen = change.revision;
        found.extend(event(scope, change));
    }
    Ok((seen, found))
}

fn too_old(store: &Store, cursor: u64) -> Status {
    Status::expired(format!("too old resource version: {cursor} ({})", store.revision()))
}

/// What a change is to one who sees only `scope`: an object may enter and leave it without being made or deleted.
fn event(scope: &Scope, change: &Change) -> Option<(Event, Arc<Value>)> {
    if change.kind.plural != scope.kind.plural {
        return None;
    }
    let before = change.before.as_ref().filter(|object| scope.contains(object));
    let after = change.after.as_ref().filter(|object| scope.contains(object));
    match (before, after) {
        (None, None) => None,
        (None, Some(after)) => Some((Event::Added, after.clone())),
        (Some(_), Some(after)) => Some((Event::Modified, after.clone())),
        (Some(before), None) => {
            let mut last = Value::clone(before);
            last["metadata"]["resourceVersion"] = change.revision.to_string().into();
            Some((Event::Deleted, Arc::new(last)))
        }
    }
}

fn line(event: &str, object: &Value) -> Bytes {
    let mut line = json!({ "type": event, "object": object }).to_string();
    line.push('\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::super::select::Selector;
    use super::*;

    #[test]
    fn an_object_that_enters_or_leaves_the_selection_is_added_or_deleted() {
        let mut store = Store::new(100);
        let start = store.revision();
        for app in ["db", "web", "web", "db"] {
            let object = json!({ "metadata": { "name": "a", "namespace": "default", "labels": { "app": app } } });
            store.put(configmaps(), ("default".to_owned(), "a".to_owned()), object);
        }
        assert_eq!(events(&store, "labelSelector=app=web", start), ["ADDED 3", "MODIFIED 4", "DELETED 5"]);
        assert_eq!(events(&store, "labelSelector=app=web", start + 2), ["MODIFIED 4", "DELETED 5"]);
        assert_eq!(events(&store, "", start), ["ADDED 2", "MODIFIED 3", "MODIFIED 4", "MODIFIED 5"]);
    }

    #[test]
    fn a_deletion_carries_its_own_revision() {
        let mut store = Store::new(100);
        let key = ("default".to_owned(), "a".to_owned());
        store.put(configmaps(), key.clone(), json!({ "metadata": { "name": "a", "namespace": "default" } }));
        store.remove(configmaps(), &key);
        assert_eq!(events(&store, "", 1), ["ADDED 2", "DELETED 3"]);
    }

    #[test]
    fn a_watch_from_a_forgotten_revision_is_told_that_it_is_gone() {
        let mut store = Store::new(1);
        let start = store.revision();
        for _ in 0..2 {
            let object = json!({ "metadata": { "name": "a", "namespace": "default" } });
            store.put(configmaps(), ("default".to_owned(), "a".to_owned()), object);
        }
        assert_eq!(look(&store, &scope(""), start).map(|_| ()).map_err(|status| status.code()), Err(410));
    }

    #[test]
    fn a_watch_without_a_revision_begins_with_what_is_there() {
        let mut store = Store::new(100);
        store.put(configmaps(), ("default".to_owned(), "a".to_owned()), json!({ "metadata": { "namespace": "default" } }));
        for (query, wanted) in [("", 1), ("resourceVersion=0", 1), ("resourceVersion=2", 0)] {
            let (cursor, pending) = begin(&store, &scope(""), &Query::parse(Some(query))).expect(query);
            assert_eq!((cursor, pending.len()), (2, wanted), "{query}");
        }
    }

    fn events(store: &Store, query: &str, cursor: u64) -> Vec<String> {
        let (_, found) = look(store, &scope(query), cursor).expect("remembered");
        let text = |(event, object): &(Event, Arc<Value>)| {
            format!("{} {}", event.name(), object["metadata"]["resourceVersion"].as_str().unwrap_or_default())
        };
        found.iter().map(text).collect()
    }

    fn scope(query: &str) -> Scope {
        let selector = Selector::parse(configmaps(), &Query::parse(Some(query))).expect(query);
        Scope { kind: configmaps(), namespace: Some("default".to_owned()), selector }
    }

    fn configmaps() -> &'static kinds::Kind {
        kinds::by_plural("configmaps").expect("a row")
    }
}
