//! Trail: what one request leaves in the log, at either end.

use std::sync::Arc;

use tokio::time::Instant;

use super::log::{Log, Running};
use super::record::{Asked, Kind, Outcome};
use crate::request::{Class, RequestInfo};

/// The records of one request.
pub struct Trail {
    running: Running,
    asked: Arc<Asked>,
    began: Instant,
    /// Whether its `open` is in the log.
    is_open: bool,
    /// Whether what goes on has a trail of its own.
    is_continued: bool,
    stays_open: bool,
}

impl Trail {
    /// The trail of a request that begins now.
    pub fn begin(log: &Arc<Log>, info: &RequestInfo, asked: Asked) -> Self {
        Self {
            running: log.enter(),
            asked: Arc::new(asked),
            began: Instant::now(),
            is_open: false,
            is_continued: false,
            stays_open: info.class(false) == Class::Watch,
        }
    }

    /// The answer's head is there; what stays open by its nature has a record of that.
    pub fn answered(&mut self, status: u16) {
        if self.stays_open && status == 200 {
            self.open(status);
        }
    }

    /// The connection was switched, and goes on for as long as the result.
    pub fn continued(&mut self, status: u16) -> Self {
        self.open(status);
        self.is_continued = true;
        Self { running: self.running.clone(), asked: self.asked.clone(), is_continued: false, ..*self }
    }

    /// The request has ended: `outcome` says how, but for its duration.
    pub fn ended(&self, outcome: Outcome<'_>) {
        if self.is_continued {
            return;
        }
        let kind = if self.is_open { Kind::Close } else { Kind::Request };
        self.running.record(kind, &self.asked, &Outcome { duration: self.began.elapsed(), ..outcome });
    }

    fn open(&mut self, status: u16) {
        self.is_open = true;
        let outcome = Outcome { status, duration: self.began.elapsed(), ..Outcome::default() };
        self.running.record(Kind::Open, &self.asked, &outcome);
    }
}
