//! What the processes of the benchmark tell each other: tasks as JSON on a command line, outcomes as JSON on standard output.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The way to the upstream that a load takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Way {
    /// `http://host:port/prefix` or `https://…`, without a slash at the end; paths of the upstream follow it. `{cluster}` in it
    /// stands for the cluster's name, where a load asks many.
    pub(crate) base: String,
    /// CA of an `https` base, in PEM.
    pub(crate) ca: Option<String>,
    /// Speak HTTP/2 (prior knowledge without TLS).
    pub(crate) http2: bool,
}

/// What a load process does. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Closed loop: each of `callers` asks `path` again as soon as it is answered, on a connection of its own (HTTP/1.1).
    Closed { way: Way, path: String, callers: usize, warm_ms: u64, ms: u64 },
    /// Open loop: `rate` requests per second at fixed times, whether or not earlier ones were answered; latency counts from the
    /// time at which a request was due. At most `callers` at once; what finds no free caller waits, and its waiting counts.
    Open { way: Way, path: String, rate: f64, callers: usize, warm_ms: u64, ms: u64 },
    /// One GET, read to its end or for `max_ms`.
    Fetch { way: Way, path: String, max_ms: u64 },
    /// One POST of `bytes`, for at most `max_ms`.
    Upload { way: Way, path: String, bytes: u64, max_ms: u64 },
    /// `sessions` upgraded connections; on each `size` bytes are echoed every `every_ms`, open loop.
    Echo { way: Way, path: String, sessions: usize, size: usize, every_ms: u64, warm_ms: u64, ms: u64 },
    /// `sessions` upgraded connections, each read at full rate to its end or for `max_ms`.
    Pipes { way: Way, path: String, sessions: usize, max_ms: u64 },
    /// Those who get in the way of others until killed: `lists` GETs of `list_path` one after another each, and `stalled` readers
    /// of `stalled_path` that never read. Prints one line `{}` when all have begun.
    Crowd { way: Way, lists: usize, list_path: String, stalled: usize, stalled_path: String },
    /// `watches` watches on each of `clusters`, for `idle_ms` without events and then `ms` with `rate` events per second and
    /// cluster. It prints a line `{}` when all watches are open, and one when events begin; with `hold` none begin, and it stays
    /// until killed.
    Watches { way: Way, clusters: usize, watches: usize, idle_ms: u64, rate: f64, ms: u64, hold: bool },
    /// Callers who come and go in every way for `ms`: connections, cancelled requests, resets, slow readers, watches, execs,
    /// uploads. `failed` counts the kinds of which none went well; `more` has the numbers of each.
    Churn { way: Way, ms: u64 },
    /// `kinds` lists, each `objects` objects in pages of `page`, `parallel` at once; gzip is asked for.
    Relist { way: Way, kinds: usize, objects: usize, page: usize, parallel: usize },
    /// Asks `path` of every cluster, again and again, until each has answered once with 200 or `max_ms` are over.
    Reach { way: Way, path: String, clusters: usize, parallel: usize, max_ms: u64 },
}

/// What came of a load. A request that fails counts in `failed`, and among the latencies as one that took [`TIMEOUT_MS`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests, echoes or events that went well.
    pub(crate) ok: u64,
    /// Those that did not: refused, broken, late, lost.
    pub(crate) failed: u64,
    /// The first failures, in words.
    pub(crate) errors: Vec<String>,
    /// From the first byte asked for to the last, in seconds; the warming left out.
    pub(crate) seconds: f64,
    /// Payload bytes received, or sent by an upload.
    pub(crate) bytes: u64,
    /// Latency in microseconds by percentile: `p50`, `p90`, `p99`, `p999`, `max`. Empty if nothing was timed.
    pub(crate) latency_us: BTreeMap<String, f64>,
    /// What only some loads tell: `bytes_per_second_after_first` (rate from the first second on), `first_byte_us`, …
    pub(crate) more: BTreeMap<String, f64>,
}

/// What a request counts as that failed, and after which it has failed.
pub(crate) const TIMEOUT_MS: u64 = 10_000;

/// A link: each connection to `listen` is carried to `to`, each direction on its own. When it ends it prints [`Carried`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Relay {
    pub(crate) listen: SocketAddr,
    pub(crate) to: SocketAddr,
    /// One way, in milliseconds.
    pub(crate) latency_ms: f64,
    /// Bits per second and direction, shared by all connections; none = as fast as it goes.
    pub(crate) bits_per_second: Option<u64>,
    /// Bytes that may wait in front of the link, per direction; beyond them nothing is read. A router's queue.
    pub(crate) queue_bytes: usize,
}

/// Bytes of TCP that a link has carried: towards `to`, and back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) there: u64,
    pub(crate) back: u64,
}

/// Agents in one process, one for each cluster `first..first + count`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Agents {
    /// `wss://…/connect`.
    pub(crate) server: String,
    pub(crate) server_ca: String,
    pub(crate) client_cert: String,
    pub(crate) client_key: String,
    /// `host:port` of the upstream.
    pub(crate) target: String,
    pub(crate) target_ca: String,
    pub(crate) sa_token: String,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// The name of the n-th cluster.
pub(crate) fn cluster(n: usize) -> String {
    format!("c{n}")
}

/// What the agents of the n-th cluster present.
pub(crate) fn token(n: usize) -> String {
    format!("bench-token-{n}")
}
