//! Record: what a line says, bounded whatever callers send. Never a header, a body, a query or a secret.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::chain::{Head, stamp};
use super::key::Key;
use crate::request::{RequestInfo, Resource};

/// The longest text of a record: names of Kubernetes have up to 253 characters, paths of discovery fewer. What is longer is cut.
const TEXT_BYTES_MAX: usize = 512;

/// The longest name of a peer's program, which the peer chooses: so a checkpoint of many stays short.
const NAME_BYTES_MAX: usize = 64;

/// What stands where a text was cut.
const CUT: char = '…';

/// One request, as far as both ends know it. What is `None` or empty does not stand in its records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// The same in the records of both ends, and the API server's `Audit-ID`.
    pub request_id: String,
    /// Who asks.
    pub caller: String,
    /// The address that it came from.
    pub peer: Option<SocketAddr>,
    /// Where to.
    pub cluster: String,
    /// As the API server reads it.
    pub verb: String,
    /// What of.
    pub resource: Option<Resource>,
    /// Of what is no resource, and of what goes through the API server to something else; without its query.
    pub path: String,
}

impl Asked {
    /// What `info` says of a request for `path`.
    pub fn new(request_id: &str, info: &RequestInfo, path: &str) -> Self {
        let says_more = info.resource.is_none() || info.goes_through();
        let path = if says_more { bounded(path, TEXT_BYTES_MAX).into_owned() } else { String::new() };
        Self {
            request_id: request_id.to_owned(),
            verb: info.verb.clone(),
            resource: info.resource.clone(),
            path,
            ..Self::default()
        }
    }
}

/// How a request ended, or goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome<'a> {
    /// The answer's; 499 when there was none because the caller left.
    pub status: u16,
    /// Of the answer's body, or to the caller.
    pub bytes: u64,
    /// From the caller, once an upgraded connection has ended.
    pub bytes_from_caller: Option<u64>,
    /// Since the request's head was there.
    pub duration: Duration,
    /// `whole`, or what cut it short; empty while it goes on.
    pub end: &'a str,
    /// Why it was refused: a label of the reference, and words.
    pub refused: Option<(&'a str, &'a str)>,
}

/// What becomes of a request in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has ended: its one record.
    Request,
    /// An upgrade or a watch goes on.
    Open,
    /// What went on has ended.
    Close,
}

/// A line without what makes it a part of its chain: the rest of its object behind the first brace.
pub(super) struct Body {
    pub(super) time: SystemTime,
    pub(super) json: String,
    pub(super) is_checkpoint: bool,
    /// Whether it stands at a file's begin, where no other may come before it.
    pub(super) begins_file: bool,
    /// What signs it.
    pub(super) key: Option<Arc<Key>>,
}

impl Body {
    fn new(time: SystemTime, said: &impl Serialize) -> Self {
        // Texts and numbers always serialize; a line that says so little would be seen as a gap in what it should say.
        let mut json = serde_json::to_string(said).unwrap_or_else(|_| "{}".to_owned());
        json.remove(0);
        Self { time, json, is_checkpoint: false, begins_file: false, key: None }
    }

    pub(super) fn request(time: SystemTime, kind: Kind, asked: &Asked, outcome: &Outcome<'_>) -> Self {
        let kind = match kind {
            Kind::Request => "request",
            Kind::Open => "open",
            Kind::Close => "close",
        };
        Self::new(time, &RequestLine::new(kind, asked, outcome))
    }

    pub(super) fn chain(time: SystemTime, chain: String, program: &Program, recovered: Option<&Recovered>) -> Self {
        Self::new(time, &ChainLine { kind: "chain", chain, program, recovered })
    }

    pub(super) fn file(time: SystemTime, chain: String, after: &str) -> Self {
        Self { begins_file: true, ..Self::new(time, &FileLine { kind: "file", chain, after }) }
    }

    pub(super) fn start(time: SystemTime, chain: String, program: &Program) -> Self {
        Self::new(time, &ChainLine { kind: "start", chain, program, recovered: None })
    }

    pub(super) fn checkpoint(time: SystemTime, chain: String, peers: &[PeerHead], key: Option<Arc<Key>>) -> Self {
        let peers = peers.iter().map(PeerLine::new).collect();
        let id = key.as_ref().map(|key| key.id.as_str());
        let said = Self::new(time, &CheckpointLine { kind: "checkpoint", chain, peers, key: id });
        Self { is_checkpoint: true, key, ..said }
    }

    pub(super) fn lost(time: SystemTime, n: u64, from: SystemTime, to: SystemTime) -> Self {
        Self::new(time, &LostLine { kind: "lost", n, from: stamp(from), to: stamp(to) })
    }

    pub(super) fn removed(time: SystemTime, file: &str, through: u64) -> Self {
        Self { begins_file: true, ..Self::new(time, &RemovedLine { kind: "removed", file, through }) }
    }

    pub(super) fn end(time: SystemTime, chain: String, n_running: usize, key: Option<Arc<Key>>) -> Self {
        let id = key.as_ref().map(|key| key.id.as_str());
        let said = Self::new(time, &EndLine { kind: "end", chain, n_running, key: id });
        Self { key, ..said }
    }
}

/// Which program writes.
#[derive(Debug, Clone, Serialize)]
pub struct Program {
    /// `postern-server` or `postern-agent`.
    #[serde(rename = "program")]
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// What was found of a chain that had no end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Recovered {
    /// Where its last records are.
    pub(super) file: String,
    pub(super) chain: String,
    /// Of its last whole record.
    pub(super) seq: u64,
    pub(super) hash: String,
    /// Bytes behind it that are no whole record.
    pub(super) torn_bytes: u64,
}

/// Another end's head, as it told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHead {
    /// Whose: empty at an agent, which has a hub alone.
    pub cluster: String,
    /// The other program, by its own word.
    pub name: String,
    /// What it told: `CHAIN:SEQ:HASH`; anything else is not kept.
    pub note: String,
}

impl PeerHead {
    pub(super) fn head(&self) -> Option<Head> {
        self.note.parse().ok()
    }
}

#[derive(Serialize)]
struct RequestLine<'a> {
    kind: &'static str,
    request_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    caller: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: Cow<'a, str>,
    verb: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceLine<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: Cow<'a, str>,
    status: u16,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_from_caller: Option<u64>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    end: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedLine<'a>>,
}

impl<'a> RequestLine<'a> {
    fn new(kind: &'static str, asked: &'a Asked, outcome: &Outcome<'a>) -> Self {
        let text = |text: &'a str| bounded(text, TEXT_BYTES_MAX);
        Self {
            kind,
            request_id: text(&asked.request_id),
            caller: text(&asked.caller),
            peer: asked.peer,
            cluster: text(&asked.cluster),
            verb: text(&asked.verb),
            resource: asked.resource.as_ref().map(|resource| ResourceLine {
                group: text(&resource.group),
                version: text(&resource.version),
                resource: text(&resource.resource),
                subresource: text(&resource.subresource),
                namespace: text(&resource.namespace),
                name: text(&resource.name),
            }),
            path: text(&asked.path),
            status: outcome.status,
            bytes: outcome.bytes,
            bytes_from_caller: outcome.bytes_from_caller,
            duration_ms: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
            end: text(outcome.end),
            refused: outcome.refused.map(|(label, why)| RefusedLine { label: text(label), why: text(why) }),
        }
    }
}

#[derive(Serialize)]
struct ResourceLine<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    group: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: Cow<'a, str>,
    resource: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: Cow<'a, str>,
}

#[derive(Serialize)]
struct RefusedLine<'a> {
    label: Cow<'a, str>,
    why: Cow<'a, str>,
}

#[derive(Serialize)]
struct ChainLine<'a> {
    kind: &'static str,
    chain: String,
    #[serde(flatten)]
    program: &'a Program,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<&'a Recovered>,
}

#[derive(Serialize)]
struct FileLine<'a> {
    kind: &'static str,
    chain: String,
    after: &'a str,
}

#[derive(Serialize)]
struct CheckpointLine<'a> {
    kind: &'static str,
    chain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<PeerLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct PeerLine<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: Cow<'a, str>,
    head: &'a str,
}

impl<'a> PeerLine<'a> {
    fn new(peer: &'a PeerHead) -> Self {
        let cluster = bounded(&peer.cluster, NAME_BYTES_MAX);
        Self { cluster, name: bounded(&peer.name, NAME_BYTES_MAX), head: &peer.note }
    }
}

#[derive(Serialize)]
struct LostLine {
    kind: &'static str,
    n: u64,
    from: String,
    to: String,
}

#[derive(Serialize)]
struct RemovedLine<'a> {
    kind: &'static str,
    file: &'a str,
    through: u64,
}

#[derive(Serialize)]
struct EndLine<'a> {
    kind: &'static str,
    chain: String,
    #[serde(skip_serializing_if = "is_zero")]
    n_running: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// At most `bytes_max` bytes of a text, cut between two characters and marked so.
fn bounded(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(bytes_max - CUT.len_utf8());
    Cow::Owned(format!("{}{CUT}", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::line::LINE_BYTES_MAX;
    use http::Method;

    fn told(asked: &Asked, outcome: &Outcome<'_>) -> String {
        Body::request(SystemTime::UNIX_EPOCH, Kind::Request, asked, outcome).json
    }

    #[test]
    fn a_record_says_what_was_asked_and_what_came_of_it() {
        let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/default/pods/web-0/log", Some("follow=1"));
        let mut asked = Asked::new("00ff", &info, "/api/v1/namespaces/default/pods/web-0/log");
        asked.caller = "kubectl".into();
        asked.peer = Some(([10, 0, 0, 1], 4711).into());
        asked.cluster = "edge-1".into();
        let outcome = Outcome { status: 200, bytes: 12, duration: Duration::from_millis(7), end: "whole", ..Outcome::default() };
        let refused = Outcome { status: 403, refused: Some(("Denied", "no \"such\" thing")), ..Outcome::default() };
        let info = RequestInfo::parse(&Method::GET, "/healthz", Some("secret=1"));
        let health = Asked::new("0100", &info, "/healthz");
        let path = "/api/v1/namespaces/default/services/web/proxy/admin/users/7";
        let proxied = Asked::new("0101", &RequestInfo::parse(&Method::GET, path, Some("secret=1")), path);
        insta::assert_snapshot!([told(&asked, &outcome), told(&health, &refused), told(&proxied, &outcome)].join("\n"));
    }

    #[test]
    fn whatever_callers_send_a_record_is_a_short_line_of_json() {
        let long = "\u{1}\u{10ffff}é\n\r\u{2028}\"\\".repeat(10_000);
        let resource = Resource {
            group: long.clone(),
            version: long.clone(),
            namespace: long.clone(),
            resource: long.clone(),
            name: long.clone(),
            subresource: long.clone(),
        };
        let asked = Asked {
            request_id: long.clone(),
            caller: long.clone(),
            peer: None,
            cluster: long.clone(),
            verb: long.clone(),
            resource: Some(resource),
            path: long.clone(),
        };
        let outcome = Outcome { end: &long, refused: Some((&long, &long)), ..Outcome::default() };
        let json = told(&asked, &outcome);
        assert!(json.len() < LINE_BYTES_MAX / 2, "{}", json.len());
        assert!(!json.contains(['\n', '\r']));
        let value: serde_json::Value = serde_json::from_str(&format!("{{{json}")).expect("JSON");
        let name = value["resource"]["name"].as_str().expect("a text");
        assert!(name.len() <= TEXT_BYTES_MAX && name.ends_with(CUT), "{name}");
        let peer = PeerHead { cluster: long.clone(), name: long.clone(), note: "x".repeat(98) };
        let checkpoint = Body::checkpoint(SystemTime::UNIX_EPOCH, "c".into(), &vec![peer; super::super::PEERS_MAX], None);
        assert!(checkpoint.json.len() < LINE_BYTES_MAX, "{}", checkpoint.json.len());
    }
}
