//! The overview as JSON: keys in a fixed order, clusters by their names.

use jiff::{Timestamp, Unit};
use serde::Serialize;
use tunnel::Sums;

use super::chosen;
use super::wanted::Wanted;
use crate::foreign;
use crate::registry::{Serving, Standing};

/// Bytes of the words by which an agent calls itself, program and version each.
const AGENT_BYTES_MAX: usize = 64;

#[derive(Serialize)]
struct Document<'a> {
    time: String,
    server: Server,
    clusters: Vec<Cluster<'a>>,
}

#[derive(Serialize)]
struct Server {
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster<'a> {
    id: &'a str,
    state: &'static str,
    why: Option<&'a str>,
    since: String,
    connected_since: Option<String>,
    agent: Option<Agent>,
    kubernetes: Option<&'a str>,
    round_trip_ms: Option<f64>,
    probe: Option<Probe>,
    streams: Streams,
    bytes: Bytes,
    last_error: Option<LastError<'a>>,
    sessions: usize,
}

/// How an agent calls itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Agent {
    pub(super) program: String,
    pub(super) version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    age_ms: u64,
    took_ms: u64,
}

#[derive(Serialize)]
struct Streams {
    interactive: usize,
    watch: usize,
    small: usize,
    bulk: usize,
}

#[derive(Serialize)]
struct Bytes {
    received: u64,
    sent: u64,
}

#[derive(Serialize)]
struct LastError<'a> {
    text: &'a str,
    time: String,
}

/// All that is asked for.
pub(super) fn write(now: Timestamp, wanted: &Wanted, standings: &[Standing]) -> String {
    let document = Document {
        time: now.round(Unit::Millisecond).unwrap_or(now).to_string(),
        server: Server { version: env!("CARGO_PKG_VERSION") },
        clusters: chosen(wanted, standings).map(Cluster::of).collect(),
    };
    let mut text = serde_json::to_string(&document).expect("strings and numbers always serialize");
    text.push('\n');
    text
}

impl<'a> Cluster<'a> {
    fn of(standing: &'a Standing) -> Self {
        let Standing { cluster, state, why, since, last_error, serving, sums } = standing;
        let probe = serving.as_ref().and_then(|serving| serving.probe.as_ref());
        let Sums { sessions, streams: [interactive, watch, small, bulk], totals, .. } = *sums;
        Self {
            id: cluster.as_str(),
            state: state.word(),
            why: why.as_deref(),
            since: since.to_string(),
            connected_since: serving.as_ref().map(|serving| serving.connected_since.to_string()),
            agent: serving.as_ref().and_then(Agent::of),
            kubernetes: probe.and_then(|probe| probe.outcome.as_deref().ok()),
            round_trip_ms: serving
                .as_ref()
                .and_then(|serving| serving.round_trip)
                .map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            probe: probe.map(|probe| Probe { age_ms: milliseconds(probe.at.elapsed()), took_ms: milliseconds(probe.took) }),
            streams: Streams { interactive, watch, small, bulk },
            bytes: Bytes { received: totals.bytes_received, sent: totals.bytes_sent },
            last_error: last_error.as_ref().map(|error| LastError { text: &error.text, time: error.time.to_string() }),
            sessions,
        }
    }
}

impl Agent {
    /// From `PROGRAM/VERSION` and what follows behind a blank, which is nobody's business; none for version 1.
    pub(super) fn of(serving: &Serving) -> Option<Self> {
        let told = serving.agent.split(' ').next().filter(|told| !told.is_empty())?;
        let (program, version) = told.split_once('/').unwrap_or((told, ""));
        let shown = |text| foreign::shown(text, AGENT_BYTES_MAX);
        Some(Self { program: shown(program), version: shown(version) })
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
