//! The overview as a page: no script, one style that its hash allows, and nothing of what others chose but as text.

mod moment;

use std::sync::LazyLock;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::chosen;
use super::document::Agent;
use super::wanted::Wanted;
use crate::health::PROBE_MAX;
use crate::registry::{Standing, State};
use moment::{Moment, ago, size, span};

/// How often a browser asks anew, in seconds: what has changed shows within 15 s of it, and a wall of screens costs nothing.
pub(super) const REFRESH_SECONDS: &str = "5";

/// Rows of one page: more than anybody reads, and a megabyte at most. The worst come first; a filter shows the others.
const ROWS_MAX: usize = 500;

/// What stands between `<style>` and `</style>`.
const STYLE: &str = include_str!("../../templates/clusters.css");

/// What a browser may do with the page (CSP level 3): show it, with that style, and send its form here.
pub(super) fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        format!("default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
    });
    &POLICY
}

#[derive(Template)]
#[template(path = "clusters.html")]
struct Page<'a> {
    style: &'static str,
    version: &'static str,
    now: Moment,
    refresh_seconds: &'static str,
    refreshes: bool,
    counts: Vec<Count>,
    n_clusters: usize,
    n_chosen: usize,
    n_more: usize,
    /// What is looked for.
    name: &'a str,
    cluster: Option<&'a str>,
    is_filtered: bool,
    /// The question for the same page with its refreshing turned.
    turned: String,
    /// What other questions keep of this one: that nothing is refreshed.
    kept: &'static str,
    rows: Vec<Row<'a>>,
}

/// How many clusters stand so.
struct Count {
    state: State,
    n: usize,
    is_wanted: bool,
}

/// One cluster, in words.
struct Row<'a> {
    id: &'a str,
    state: State,
    why: Option<&'a str>,
    since: Moment,
    connected: Option<Moment>,
    agent: Option<Agent>,
    kubernetes: Option<&'a str>,
    round_trip: Option<String>,
    probe: Option<Probe>,
    streams: Vec<String>,
    received: String,
    sent: String,
    error: Option<(&'a str, Moment)>,
    n_sessions: usize,
}

struct Probe {
    took: String,
    age: String,
}

/// All that is asked for.
pub(super) fn write(now: Timestamp, wanted: &Wanted, standings: &[Standing]) -> String {
    let mut listed: Vec<_> = chosen(wanted, standings).collect();
    listed.sort_by_key(|standing| standing.state);
    let count = |state| Count {
        state,
        n: standings.iter().filter(|standing| standing.state == state).count(),
        is_wanted: wanted.state == Some(state),
    };
    let page = Page {
        style: STYLE,
        version: env!("CARGO_PKG_VERSION"),
        now: Moment::new(now, now),
        refresh_seconds: REFRESH_SECONDS,
        refreshes: wanted.refreshes,
        counts: State::ALL.into_iter().map(count).collect(),
        n_clusters: standings.len(),
        n_chosen: listed.len(),
        n_more: listed.len().saturating_sub(ROWS_MAX),
        name: &wanted.name,
        cluster: wanted.cluster.as_deref(),
        is_filtered: wanted.state.is_some() || !wanted.name.is_empty() || wanted.cluster.is_some(),
        turned: turned(wanted),
        kept: if wanted.refreshes { "" } else { "&amp;refresh=off" },
        rows: listed.into_iter().take(ROWS_MAX).map(|standing| Row::of(standing, now)).collect(),
    };
    page.render().expect("a template without filters of its own renders into memory")
}

/// The query that asks the same, refreshed or not as it is not now.
fn turned(wanted: &Wanted) -> String {
    let mut query = String::from("?");
    let mut add = |key: &str, value: &str| {
        query.push_str(key);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => query.push(char::from(byte)),
                _ => query.push_str(&format!("%{byte:02X}")),
            }
        }
        query.push('&');
    };
    add("format", "html");
    wanted.state.iter().for_each(|state| add("state", state.word()));
    add("name", &wanted.name);
    wanted.cluster.iter().for_each(|cluster| add("cluster", cluster));
    add("refresh", if wanted.refreshes { "off" } else { "" });
    query.pop();
    query
}

impl State {
    /// A shape for each, for who sees no colours.
    fn shape(self) -> &'static str {
        match self {
            Self::Unhealthy => "▲",
            Self::Offline => "■",
            Self::Unknown => "◆",
            Self::Healthy => "●",
        }
    }
}

impl<'a> Row<'a> {
    fn of(standing: &'a Standing, now: Timestamp) -> Self {
        let serving = standing.serving.as_ref();
        let probe = serving.and_then(|serving| serving.probe.as_ref());
        let classes = ["interactive", "watch", "small", "bulk"].into_iter().zip(standing.sums.streams);
        Self {
            id: standing.cluster.as_str(),
            state: standing.state,
            why: standing.why.as_deref(),
            since: Moment::new(standing.since, now),
            connected: serving.map(|serving| Moment::new(serving.connected_since, now)),
            agent: serving.and_then(Agent::of),
            kubernetes: probe.and_then(|probe| probe.outcome.as_deref().ok()),
            round_trip: serving.and_then(|serving| serving.round_trip).map(span),
            probe: probe.map(|probe| Probe {
                took: if probe.took >= PROBE_MAX { "no answer".to_owned() } else { span(probe.took) },
                age: ago(probe.at.elapsed().as_secs()),
            }),
            streams: classes.filter(|(_, n)| *n > 0).map(|(class, n)| format!("{n} {class}")).collect(),
            received: size(standing.sums.totals.bytes_received),
            sent: size(standing.sums.totals.bytes_sent),
            error: standing.last_error.as_ref().map(|error| (error.text.as_str(), Moment::new(error.time, now))),
            n_sessions: standing.sums.sessions,
        }
    }
}

#[cfg(test)]
mod tests;
