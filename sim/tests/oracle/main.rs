//! Requests as we read them against requests as a real API server reads them: its audit record is the oracle.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "drives real processes in real time, and says what was compared"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Upstream, requirement};
use host::Host;
use host::tls::{Alpn, ClientFiles, ClientTls};
use http::{Method, Uri};
use proxy::request::RequestInfo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CORPUS: &str = include_str!("corpus.txt");

/// Every request is recorded when it arrives, before anybody decides about it.
const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}"#;

/// An API server that is asked nothing else answers at once; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// So many differences are enough to see what is wrong.
const SHOWN_MAX: usize = 40;

#[test]
fn what_we_make_of_the_corpus_is_as_reviewed() {
    let mut text = String::new();
    for request in corpus() {
        let told = request.ours().unwrap_or_else(|| "is no request for our parser".to_owned());
        writeln!(text, "{} {} -> {told}", request.method, request.target).expect("a string takes all");
    }
    insta::assert_snapshot!("corpus", text);
}

#[test]
fn a_real_api_server_reads_requests_as_we_do() -> Result<()> {
    host::tls::use_provider();
    let (Some(kubectl), Some(assets)) = (requirement::kubectl(), requirement::assets()) else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let (policy, log) = (dir.path().join("audit-policy.json"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY)?;
    let flags = [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let upstream = Upstream::api_server(&assets, &kubectl, dir.path(), &flags)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let statuses = runtime.block_on(ask_all(&upstream))?;
    compare(&statuses, &records(&log)?)
}

/// One line of the corpus.
struct Asked {
    id: String,
    method: &'static str,
    target: &'static str,
}

fn corpus() -> impl Iterator<Item = Asked> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.enumerate().map(|(n, line)| {
        let (method, target) = line.split_once(' ').expect("method and target");
        Asked { id: format!("corpus-{n}"), method, target }
    })
}

impl Asked {
    /// What we make of it: verb, group, resource, subresource, namespace, name. `None` if it is refused unread.
    fn ours(&self) -> Option<String> {
        let (method, uri) = (self.method.parse::<Method>().ok()?, self.target.parse::<Uri>().ok()?);
        let info = RequestInfo::parse(&method, uri.path(), uri.query());
        Some(match info.resource {
            None => format!("{} -", info.verb),
            Some(r) => told(&info.verb, [&r.group, &r.version, &r.resource, &r.subresource, &r.namespace, &r.name]),
        })
    }

    fn bytes(&self, token: &str) -> String {
        let Self { id, method, target } = self;
        format!(
            "{method} {target} HTTP/1.1\r\nHost: oracle\r\nAuthorization: Bearer {token}\r\nAudit-ID: {id}\r\n\
             Content-Type: application/json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }
}

fn without_name(told: &str) -> Option<&str> {
    told.split(" named ").next()
}

fn told(verb: &str, [group, version, resource, subresource, namespace, name]: [&str; 6]) -> String {
    format!("{verb} {resource:?}/{subresource:?} of {group:?} {version:?} in {namespace:?} named {name:?}")
}

/// The status line that each request was answered with.
async fn ask_all(upstream: &Upstream) -> Result<BTreeMap<String, String>> {
    let host = Host::real();
    let addr: SocketAddr = upstream.target.parse()?;
    let token = std::fs::read_to_string(&upstream.token)?;
    let files = ClientFiles { ca: upstream.ca.to_str().map(str::to_owned), ..ClientFiles::default() };
    let tls = ClientTls::new(&host, "oracle", files)?;
    let mut statuses = BTreeMap::new();
    for request in corpus() {
        let asking = async {
            let (mut connection, _) = tls.connect(host.connect(addr).await?, &addr.ip().to_string(), Alpn::Http1).await?;
            connection.write_all(request.bytes(&token).as_bytes()).await?;
            let mut start = vec![0; 64];
            let n = connection.read(&mut start).await?;
            let text = String::from_utf8_lossy(&start[..n]).into_owned();
            Ok::<_, anyhow::Error>(text.lines().next().unwrap_or_default().to_owned())
        };
        let answered = tokio::time::timeout(PATIENCE, asking).await;
        let status = answered.with_context(|| format!("{} {} got no answer", request.method, request.target))??;
        statuses.insert(request.id, status);
    }
    Ok(statuses)
}

/// What the API server made of each request, by its id.
fn records(log: &Path) -> Result<BTreeMap<String, String>> {
    let mut records = BTreeMap::new();
    for line in std::fs::read_to_string(log)?.lines() {
        let event: Value = serde_json::from_str(line)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if event["stage"] != "RequestReceived" {
            continue;
        }
        let object = &event["objectRef"];
        let parts = ["apiGroup", "apiVersion", "resource", "subresource", "namespace", "name"].map(|key| text(&object[key]));
        let verb = text(&event["verb"]);
        let record = if object.is_null() { format!("{verb} -") } else { told(&verb, parts.each_ref().map(String::as_str)) };
        records.insert(text(&event["auditID"]), record);
    }
    Ok(records)
}

fn compare(statuses: &BTreeMap<String, String>, records: &BTreeMap<String, String>) -> Result<()> {
    let (mut n_same, mut n_refused, mut differences) = (0, 0, Vec::new());
    for request in corpus() {
        let (ours, theirs) = (request.ours(), records.get(&request.id));
        let status = statuses.get(&request.id).map(String::as_str).unwrap_or_default();
        let is_answered = |codes: &[&str]| codes.iter().any(|code| status.split(' ').nth(1) == Some(code));
        match (&ours, theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => n_same += 1,
            // What either refuses to read goes nowhere.
            (None, _) => n_refused += 1,
            (Some(_), None) if is_answered(&["400", "500"]) => n_refused += 1,
            // A label selector that is none: the API server reads no name then, and lists nothing.
            (Some(ours), Some(theirs)) if is_answered(&["400"]) && without_name(ours) == without_name(theirs) => n_refused += 1,
            (Some(ours), theirs) => {
                let theirs = theirs.map_or("no record", String::as_str);
                differences.push(format!("{} {}\n  ours   {ours}\n  theirs {theirs} ({status})", request.method, request.target));
            }
        }
    }
    eprintln!("oracle: {n_same} requests are read alike, {n_refused} are refused unread");
    let n_different = differences.len();
    differences.truncate(SHOWN_MAX);
    ensure!(n_different == 0, "{n_different} requests are read differently:\n{}", differences.join("\n"));
    Ok(())
}
