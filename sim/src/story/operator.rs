//! What the operator of a cluster's API server has to live with; each lasts until it is dropped.

use std::time::Duration;

use super::{Fault, Story};
use crate::apiserver::Misbehavior;

/// What `Retry-After` of kube-apiserver says (`retryAfter` of its priority and fairness filter).
const RETRY_AFTER: u32 = 1;

/// The operator of one cluster's API server.
pub struct Operator {
    story: Story,
    cluster: String,
}

impl Story {
    /// The operator of a cluster's API server.
    pub fn apiserver(&self, cluster: &str) -> Operator {
        Operator { story: self.clone(), cluster: cluster.to_owned() }
    }
}

impl Operator {
    /// Everything is answered 429 with `Retry-After: 1`.
    pub fn throttle(&self) -> Fault {
        self.misbehave("throttle", Misbehavior::Throttled { retry_after: RETRY_AFTER })
    }

    /// Everything is answered 500.
    pub fn lose_leader(&self) -> Fault {
        self.misbehave("no leader", Misbehavior::Leaderless)
    }

    /// Every revision that a caller names is too old: etcd was compacted.
    pub fn gone(&self) -> Fault {
        self.misbehave("gone", Misbehavior::Gone)
    }

    /// Lists begin after `first_byte`, and come in pieces of 1 KiB with a `pause` before each.
    pub fn slow_lists(&self, first_byte: Duration, pause: Duration) -> Fault {
        self.misbehave("slow lists", Misbehavior::SlowLists { first_byte, pause })
    }

    /// A webhook does not answer: writes fail after 10 s.
    pub fn silence_webhook(&self) -> Fault {
        self.misbehave("silent webhook", Misbehavior::WebhookSilent)
    }

    /// Writes are carried out and answered 504 after 34 s.
    pub fn time_out_writes(&self) -> Fault {
        self.misbehave("writes time out", Misbehavior::WritesTimeOut)
    }

    /// Answers of known length break off in the middle.
    pub fn break_off(&self) -> Fault {
        self.misbehave("answers break off", Misbehavior::BreaksOff)
    }

    /// Answers of known length stop in the middle, and nobody is told.
    pub fn fall_silent(&self) -> Fault {
        self.misbehave("answers fall silent", Misbehavior::FallsSilent)
    }

    /// Watches tell nothing until this is over, bookmarks neither.
    pub fn silence_watches(&self) -> Fault {
        self.misbehave("silent watches", Misbehavior::WatchesSilent)
    }

    /// Requests are taken in and answered when this is over.
    pub fn hang(&self) -> Fault {
        self.misbehave("hang", Misbehavior::Hangs)
    }

    /// One request in `one_in` is answered with a GOAWAY on its HTTP/2 connection.
    pub fn go_away(&self, one_in: u64) -> Fault {
        self.misbehave("go away", Misbehavior::GoesAway { one_in })
    }

    /// A webhook says no to writes of objects whose names begin so.
    pub fn deny(&self, names: &'static str) -> Fault {
        self.misbehave(&format!("deny {names}*"), Misbehavior::Denies { names, breaks: false })
    }

    /// A webhook breaks over writes of objects whose names begin so: they are answered 500.
    pub fn break_over(&self, names: &'static str) -> Fault {
        self.misbehave(&format!("break over {names}*"), Misbehavior::Denies { names, breaks: true })
    }

    /// A webhook puts a value of its own under a label, wherever that is written.
    pub fn bend(&self, label: &'static str) -> Fault {
        self.misbehave(&format!("bend {label}"), Misbehavior::Bends { label })
    }

    fn misbehave(&self, words: &str, how: Misbehavior) -> Fault {
        self.story.note(&format!("{}/api: {words}", self.cluster));
        let (cluster, number) = (self.cluster.clone(), self.story.api(&self.cluster).misbehave(how));
        let over = format!("{cluster}/api: {words} is over");
        self.story.fault(over, move |story| story.api(&cluster).behave(number))
    }
}
