//! Log: where requests leave their records. Never waits; what is left is for the writer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use host::Host;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::record::{Asked, Body, Kind, Outcome};
use crate::request::RequestInfo;

/// Records that wait to be written: a second of twenty thousand requests, while a slow disk syncs. Beyond it they are lost,
/// which is counted, told in the log and, where so set, has writes refused.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// How long requests that were cut at the end of a drain may take to tell so: they have only to be polled once more.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// How long the last records may take: a disk that syncs slowly, while Kubernetes still waits for the process.
const END_MAX: Duration = Duration::from_secs(5);

/// Name, labels and meaning of the metrics of a log, as references print them.
pub const METRICS: [(&str, &str, &str); 3] = [
    ("audit_records", "", "Records written to the audit log"),
    ("audit_lost", "", "Records that the audit log has no room for while it cannot be written"),
    ("audit_failing", "", "1 while the audit log cannot be written"),
];

/// Takes the records of a process. Shared by all that runs.
pub struct Log {
    host: Host,
    /// Whether writes are refused while nothing can be written.
    refuses: bool,
    queue: Mutex<Queue>,
    pub(super) ready: Notify,
    ended: Notify,
    settled: Notify,
    is_failing: AtomicBool,
    n_running: AtomicUsize,
    n_records: AtomicU64,
    n_lost: AtomicU64,
    head: Mutex<String>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Body>,
    /// Of what waits, and of what the writer has taken and not written yet.
    n_bytes: usize,
    lost: Option<Lost>,
    is_closed: bool,
    has_ended: bool,
}

struct Lost {
    n: u64,
    from: SystemTime,
    to: SystemTime,
}

impl Log {
    pub(super) fn new(host: &Host, refuses: bool) -> Arc<Self> {
        Arc::new(Self {
            host: host.clone(),
            refuses,
            queue: Mutex::default(),
            ready: Notify::new(),
            ended: Notify::new(),
            settled: Notify::new(),
            is_failing: AtomicBool::new(false),
            n_running: AtomicUsize::new(0),
            n_records: AtomicU64::new(0),
            n_lost: AtomicU64::new(0),
            head: Mutex::default(),
        })
    }

    /// Keeps the log open for the records of a request until the result is dropped.
    pub fn enter(self: &Arc<Self>) -> Running {
        self.n_running.fetch_add(1, Ordering::Relaxed);
        Running { log: self.clone() }
    }

    /// Leaves a record.
    pub fn record(&self, kind: Kind, asked: &Asked, outcome: &Outcome<'_>) {
        let now = self.host.wall_clock();
        self.leave(Body::request(now, kind, asked, outcome));
    }

    /// Whether a request must not go on, since what it does could not be told: it is no mere reading, the log cannot be
    /// written, and the setting says so.
    pub fn forbids(&self, info: &RequestInfo, is_upgrade: bool) -> bool {
        self.refuses && self.is_failing.load(Ordering::Relaxed) && !only_reads(info, is_upgrade)
    }

    /// Where the chain has come to, as far as a loss of power would leave it: what the other end is told.
    pub fn head(&self) -> String {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for requests that end at this moment, and then until the log has its end on the disk, if that can be had.
    pub async fn close(&self) {
        let settled = async {
            loop {
                let settled = self.settled.notified();
                if self.n_running.load(Ordering::Acquire) == 0 {
                    return;
                }
                settled.await;
            }
        };
        // What still runs then is counted in the end's record.
        let _ = timeout(SETTLE_MAX, settled).await;
        self.queue().is_closed = true;
        self.ready.notify_one();
        let ended = async {
            loop {
                let ended = self.ended.notified();
                if self.queue().has_ended {
                    return;
                }
                ended.await;
            }
        };
        if timeout(END_MAX, ended).await.is_err() {
            tracing::warn!("the audit log has no end: the disk takes too long");
        }
    }

    fn leave(&self, body: Body) {
        {
            let mut queue = self.queue();
            let has_room = queue.n_bytes + body.json.len() <= WAITING_BYTES_MAX;
            if !has_room || queue.has_ended {
                let time = body.time;
                let lost = queue.lost.get_or_insert(Lost { n: 0, from: time, to: time });
                lost.n += 1;
                lost.to = time;
                self.n_lost.fetch_add(1, Ordering::Relaxed);
                self.is_failing.store(true, Ordering::Relaxed);
            } else {
                // In their order: what was lost was lost before this.
                queue.tell_lost();
                queue.n_bytes += body.json.len();
                queue.waiting.push_back(body);
            }
        }
        self.ready.notify_one();
    }

    /// All that waits, and whether anything more is to come.
    pub(super) fn take(&self, into: &mut VecDeque<Body>) -> bool {
        let mut queue = self.queue();
        queue.tell_lost();
        into.append(&mut queue.waiting);
        queue.is_closed
    }

    /// `n` records with so many bytes are written.
    pub(super) fn wrote(&self, n: u64, n_bytes: usize) {
        self.n_records.fetch_add(n, Ordering::Relaxed);
        let mut queue = self.queue();
        queue.n_bytes = queue.n_bytes.saturating_sub(n_bytes);
    }

    /// What the writer adds itself has room too, and is given back by [`Log::wrote`].
    pub(super) fn add(&self, n_bytes: usize) {
        self.queue().n_bytes += n_bytes;
    }

    /// Whether the log can be written, by the last attempt.
    pub(super) fn set_failing(&self, is_failing: bool) -> bool {
        self.is_failing.swap(is_failing, Ordering::Relaxed)
    }

    pub(super) fn set_head(&self, head: String) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    pub(super) fn n_running(&self) -> usize {
        self.n_running.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue().is_closed
    }

    pub(super) fn set_ended(&self) {
        self.queue().has_ended = true;
        self.ended.notify_waiters();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn tell_lost(&mut self) {
        if let Some(Lost { n, from, to }) = self.lost.take() {
            let body = Body::lost(to, n, from, to);
            self.n_bytes += body.json.len();
            self.waiting.push_back(body);
        }
    }
}

/// Whether a request changes nothing and opens no way into a pod, nor to whatever the API server leads it on to.
fn only_reads(info: &RequestInfo, is_upgrade: bool) -> bool {
    const READS: [&str; 5] = ["get", "list", "watch", "head", "options"];
    let reads = info.is_safe() && !info.goes_through() && READS.contains(&info.verb.as_str());
    reads && (!is_upgrade || info.verb == "watch")
}

/// A request whose records are still to come.
pub struct Running {
    log: Arc<Log>,
}

impl Running {
    /// Leaves a record.
    pub fn record(&self, kind: Kind, asked: &Asked, outcome: &Outcome<'_>) {
        self.log.record(kind, asked, outcome);
    }
}

impl Clone for Running {
    fn clone(&self) -> Self {
        self.log.enter()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.log.n_running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.log.settled.notify_waiters();
        }
    }
}

/// The metrics of a log, read at each scrape.
pub struct Metered(pub Arc<Log>);

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metered")
    }
}

impl Collector for Metered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let [(records, _, about_records), (lost, _, about_lost), (failing, _, about_failing)] = METRICS;
        let counted = [(records, about_records, &self.0.n_records), (lost, about_lost, &self.0.n_lost)];
        for (name, about, count) in counted {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, about, None, counter.metric_type())?)?;
        }
        let gauge = ConstGauge::new(i64::from(self.0.is_failing.load(Ordering::Relaxed)));
        gauge.encode(encoder.encode_descriptor(failing, about_failing, None, gauge.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn reading_is_all_that_an_unwritable_log_lets_pass() {
        let log = Log::new(&Host::real(), true);
        let asked = |method: Method, path: &str| RequestInfo::parse(&method, path, None);
        let pods = "/api/v1/namespaces/default/pods";
        let writes = [
            (asked(Method::POST, pods), false),
            (asked(Method::PUT, "/api/v1/namespaces/default/pods/web-0"), false),
            (asked(Method::PATCH, "/api/v1/namespaces/default/pods/web-0"), false),
            (asked(Method::DELETE, pods), false),
            (asked(Method::POST, "/odd"), false),
            (asked(Method::GET, "/api/v1/namespaces/default/pods/web-0/exec"), true),
            (asked(Method::GET, "/api/v1/proxy/nodes/one"), false),
            (asked(Method::GET, "/api/v1/nodes/one/proxy/run/default/web-0/main"), false),
            (asked(Method::GET, "/api/v1/namespaces/default/pods/web-0/proxy/reset"), false),
            (asked(Method::HEAD, "/api/v1/namespaces/default/services/web/proxy"), false),
            (asked(Method::GET, "/apis/cluster.karmada.io/v1alpha1/clusters/far/proxy/api/v1/pods"), false),
            (asked(Method::POST, "/apis/apps/v1/watch/deployments"), false),
            (asked(Method::DELETE, "/api/v1/watch/namespaces/default/pods"), false),
            (asked(Method::from_bytes(b"BREW").expect("a token"), pods), false),
        ];
        let watch = RequestInfo::parse(&Method::GET, pods, Some("watch=1"));
        let reads = [(asked(Method::GET, pods), false), (asked(Method::HEAD, "/version"), false), (watch, true)];
        assert!(!writes.iter().any(|(info, is_upgrade)| log.forbids(info, *is_upgrade)));
        log.set_failing(true);
        for (info, is_upgrade) in &writes {
            assert!(log.forbids(info, *is_upgrade), "{info:?}");
        }
        assert!(!reads.iter().any(|(info, is_upgrade)| log.forbids(info, *is_upgrade)));
        let goes_on = Log::new(&Host::real(), false);
        goes_on.set_failing(true);
        assert!(!writes.iter().any(|(info, is_upgrade)| goes_on.forbids(info, *is_upgrade)));
    }

    #[test]
    fn what_has_no_room_is_counted_and_told_before_what_comes_after() {
        let log = Log::new(&Host::real(), true);
        let asked = Asked { request_id: "x".repeat(500), ..Asked::default() };
        while !log.is_failing.load(Ordering::Relaxed) {
            log.record(Kind::Request, &asked, &Outcome::default());
        }
        log.record(Kind::Request, &asked, &Outcome::default());
        let mut taken = VecDeque::new();
        log.take(&mut taken);
        assert!(taken.back().is_some_and(|last| last.json.starts_with("\"kind\":\"lost\",\"n\":2,")));
        let n_bytes: usize = taken.iter().map(|body| body.json.len()).sum();
        assert!(n_bytes <= WAITING_BYTES_MAX + 200);
        // What was taken still counts until it is written.
        log.record(Kind::Request, &asked, &Outcome::default());
        log.wrote(taken.len() as u64, n_bytes);
        log.record(Kind::Request, &asked, &Outcome::default());
        taken.clear();
        log.take(&mut taken);
        let kinds: Vec<_> = taken.iter().map(|body| body.json.split(',').next().unwrap_or_default()).collect();
        assert_eq!(kinds, ["\"kind\":\"lost\"", "\"kind\":\"request\""]);
        assert_eq!(log.n_lost.load(Ordering::Relaxed), 3);
    }
}
