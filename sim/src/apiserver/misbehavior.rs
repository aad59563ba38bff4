//! What a real API server does on a bad day, as long as its operator lets it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Collected, StreamBody};
use serde_json::Value;
use tokio::sync::Notify;

use super::body::{self, Body};
use super::probes::FLUSH_TIME;
use super::status::Status;

/// How long kube-apiserver waits for an admission webhook (`timeoutSeconds`, default 10).
const WEBHOOK_MAX: Duration = Duration::from_secs(10);

/// What kube-apiserver says when an admission webhook says no.
const DENIED: &str = "admission webhook \"validate.policy.example.com\" denied the request: not by this name";

/// How long kube-apiserver lets a write take before it answers 504 (the default timeout of a write, 34 s).
const WRITE_MAX: Duration = Duration::from_secs(34);

/// Pieces of a list that dribbles.
const DRIBBLE_BYTES: usize = 1024;

/// Something that goes wrong for a while. Several may at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Misbehavior {
    /// Everything is answered 429 with this `Retry-After`, in seconds, as by API priority and fairness.
    Throttled {
        /// Seconds until the next attempt.
        retry_after: u32,
    },
    /// Everything is answered 500: etcd has no leader.
    Leaderless,
    /// Every revision that a caller names is too old: lists are answered 410, watches are told so and end.
    Gone,
    /// Lists begin late and dribble.
    SlowLists {
        /// Until the head of the answer.
        first_byte: Duration,
        /// Between pieces of 1 KiB.
        pause: Duration,
    },
    /// A webhook does not answer: every write fails after 10 s, and nothing was written.
    WebhookSilent,
    /// A webhook refuses writes of objects whose names begin so.
    Denies {
        /// How they begin.
        names: &'static str,
        /// Whether the webhook breaks over them, and the API server answers 500, where it would say no with a 403.
        breaks: bool,
    },
    /// A webhook puts a value of its own under a label, wherever that is written.
    Bends {
        /// The label's key.
        label: &'static str,
    },
    /// etcd is slow: writes are carried out, and answered 504 after 34 s all the same.
    WritesTimeOut,
    /// Answers of known length break off in the middle: the connection, or over HTTP/2 the stream, is reset.
    BreaksOff,
    /// Answers of known length stop in the middle and nothing more comes.
    FallsSilent,
    /// Watches tell nothing, bookmarks neither; what happened meanwhile is told afterwards.
    WatchesSilent,
    /// Requests are taken in and answered only when this is over.
    Hangs,
    /// One request in this many is answered with a GOAWAY on its HTTP/2 connection (`--goaway-chance`).
    GoesAway {
        /// 1 is after every request.
        one_in: u64,
    },
}

/// What goes wrong now. Not a `watch`, which wakes in an order of its own dice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Misbehaviors {
    all: Arc<Mutex<BTreeMap<u64, Misbehavior>>>,
    changed: Arc<Notify>,
}

impl Misbehaviors {
    /// Begins one; its number ends it.
    pub(crate) fn begin(&self, what: Misbehavior) -> u64 {
        let mut all = self.all();
        let number = all.keys().next_back().map_or(0, |last| last + 1);
        all.insert(number, what);
        self.changed.notify_waiters();
        number
    }

    pub(crate) fn end(&self, number: u64) {
        self.all().remove(&number);
        self.changed.notify_waiters();
    }

    pub(crate) fn has(&self, what: Misbehavior) -> bool {
        self.find(|one| (*one == what).then_some(())).is_some()
    }

    pub(crate) fn find<T>(&self, wanted: impl Fn(&Misbehavior) -> Option<T>) -> Option<T> {
        self.all().values().find_map(wanted)
    }

    /// Resolves as soon as `what` does not last. Cancel-safe.
    pub(crate) async fn wait_until_over(&self, what: Misbehavior) {
        loop {
            // Before the look, so that a change between the two is not missed.
            let changed = self.changed.notified();
            if !self.has(what) {
                return;
            }
            changed.await;
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Misbehavior>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A refusal, before anything is looked at.
    pub(crate) async fn before_all(&self) -> Option<Response<Body>> {
        self.wait_until_over(Misbehavior::Hangs).await;
        if self.has(Misbehavior::Leaderless) {
            return Some(Status::leaderless().into_response());
        }
        let retry_after = self.find(|one| match one {
            Misbehavior::Throttled { retry_after } => Some(*retry_after),
            Misbehavior::Leaderless
            | Misbehavior::Gone
            | Misbehavior::SlowLists { .. }
            | Misbehavior::WebhookSilent
            | Misbehavior::Denies { .. }
            | Misbehavior::Bends { .. }
            | Misbehavior::WritesTimeOut
            | Misbehavior::BreaksOff
            | Misbehavior::FallsSilent
            | Misbehavior::WatchesSilent
            | Misbehavior::Hangs
            | Misbehavior::GoesAway { .. } => None,
        });
        retry_after.map(throttled)
    }

    /// Refuses a write before it is carried out.
    pub(crate) async fn before_write(&self, name: &str) -> Result<(), Status> {
        let denied = self.find(|one| {
            let Misbehavior::Denies { names, breaks } = one else { return None };
            name.starts_with(names).then_some(*breaks)
        });
        match denied {
            Some(true) => return Err(Status::webhook_timed_out()),
            Some(false) => return Err(Status::forbidden(DENIED)),
            None => {}
        }
        if self.has(Misbehavior::WebhookSilent) {
            tokio::time::sleep(WEBHOOK_MAX).await;
            return Err(Status::webhook_timed_out());
        }
        Ok(())
    }

    /// Changes an object on its way in, as a mutating webhook does.
    pub(crate) fn bend(&self, object: &mut Value) {
        let label = self.find(|one| if let Misbehavior::Bends { label } = one { Some(*label) } else { None });
        let value = label.and_then(|label| object["metadata"]["labels"].get_mut(label)).filter(|value| value.is_string());
        value.into_iter().for_each(|value| *value = "bent".into());
    }

    /// Turns the answer of a write that was carried out into another.
    pub(crate) async fn after_write(&self) -> Result<(), Status> {
        if self.has(Misbehavior::WritesTimeOut) {
            tokio::time::sleep(WRITE_MAX).await;
            return Err(Status::timed_out());
        }
        Ok(())
    }

    /// Delays the answer to a list.
    pub(crate) async fn delay_list(&self, answer: Response<Body>) -> Response<Body> {
        let slow = self
            .find(|one| if let Misbehavior::SlowLists { first_byte, pause } = one { Some((*first_byte, *pause)) } else { None });
        let Some((first_byte, pause)) = slow else { return answer };
        tokio::time::sleep(first_byte).await;
        answer.map(|body| dribble(body, pause))
    }

    /// Breaks an answer of known length.
    pub(crate) async fn spoil(&self, answer: Response<Body>) -> Response<Body> {
        let breaks_off = self.has(Misbehavior::BreaksOff);
        let length = answer.body().size_hint().exact().filter(|length| *length > 1);
        let Some(length) = length.filter(|_| breaks_off || self.has(Misbehavior::FallsSilent)) else { return answer };
        let (mut head, body) = answer.into_parts();
        head.headers.insert(CONTENT_LENGTH, length.into());
        // What has a known length lies in memory.
        let mut half = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        half.truncate(half.len() / 2);
        let rest = stream::once(async move {
            if !breaks_off {
                std::future::pending::<()>().await;
            }
            // What is still in the connection's buffer when it breaks is never sent.
            tokio::time::sleep(FLUSH_TIME).await;
            Err(io::Error::other("broken on purpose"))
        });
        let frames = stream::once(async { Ok(Frame::data(half)) }).chain(rest);
        Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
    }

    /// Whether to go away after a request, by the roll of a die.
    pub(crate) fn goes_away(&self, chance: u64) -> bool {
        let one_in = self.find(|one| if let Misbehavior::GoesAway { one_in } = one { Some(*one_in) } else { None });
        one_in.is_some_and(|one_in| chance.is_multiple_of(one_in))
    }
}

/// What API priority and fairness answers: no `Status`, plain text (k8s.io/apiserver, pkg/server/filters/maxinflight.go).
fn throttled(retry_after: u32) -> Response<Body> {
    let mut answer = body::plain_error(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(RETRY_AFTER, retry_after.into());
    answer
}

fn dribble(body: Body, pause: Duration) -> Body {
    let state = (body, Bytes::new());
    let frames = stream::unfold(state, move |(mut body, mut rest)| async move {
        while rest.is_empty() {
            match body.frame().await? {
                Ok(frame) => rest = frame.into_data().unwrap_or_default(),
                Err(error) => return Some((Err(error), (body, rest))),
            }
        }
        tokio::time::sleep(pause).await;
        let piece = rest.split_to(rest.len().min(DRIBBLE_BYTES));
        Some((Ok(Frame::data(piece)), (body, rest)))
    });
    StreamBody::new(frames).boxed_unsync()
}
