//! A server and clusters, each program on a host of its own, with mutual TLS between server and agents.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::namespaces::{Caller, Namespaces};
use crate::pair::write_certs;
use crate::requirement::switched_on;
use crate::{Answer, Fault, wait_for};

/// The server's host.
pub const HUB: &str = "hub";

/// The server's internal listener.
const INTERNAL_PORT: u16 = 8080;

/// The server's listener for agents.
const PUBLIC_PORT: u16 = 8443;

/// Where API servers listen.
const API_PORT: u16 = 6443;

/// The bearer token that the API servers want to see.
const API_TOKEN: &str = "end-to-end-fake";

/// Starting takes well under a second; a debug build on a busy machine takes a few.
const READY_MAX: Duration = Duration::from_secs(30);

/// For a question that is answered in a few milliseconds, or not at all.
const PROBE_MAX: Duration = Duration::from_secs(4);

/// Beyond the silence limit of the product (45 s), with the time that a request may be parked thereafter: who hears nothing for
/// so long hangs.
const HANG: Duration = Duration::from_secs(75);

/// A server and clusters. A cluster has two hosts: its agent's, of the same name, and its API server's.
pub struct Fleet {
    hosts: Namespaces,
    caller: Caller,
    // By host, to start them again.
    programs: BTreeMap<String, Program>,
    n_clusters: usize,
    // Dropped after everything that writes into it.
    dir: TempDir,
}

#[derive(Clone)]
struct Program {
    name: &'static str,
    args: Vec<String>,
}

impl Fleet {
    /// Starts everything, and waits until all `clusters` are connected.
    pub fn start(clusters: &[&str]) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
        let dir = temp.path();
        let mut hosts = Namespaces::create(dir)?;
        let hub = hosts.add(HUB)?;
        let mut addresses = vec![hub.clone()];
        let mut programs = BTreeMap::from([(HUB.to_owned(), server(dir))]);
        let mut listed = Vec::new();
        fs::write(dir.join("api.token"), API_TOKEN)?;
        for cluster in clusters {
            let api = api_host(cluster);
            let target = format!("{}:{API_PORT}", hosts.add(&api)?);
            hosts.add(cluster)?;
            addresses.extend(target.rsplit_once(':').map(|(address, _)| address.to_owned()));
            listed.push(json!({"id": cluster, "token": tunnel_token(cluster), "targetAddr": target}));
            programs.insert(api, api_server(dir));
            programs.insert((*cluster).to_owned(), agent(dir, &hub, cluster, &target));
        }
        fs::write(dir.join("clusters.json"), Value::Array(listed).to_string())?;
        write_certs(&dir.join("certs"), &addresses)?;
        let caller = hosts.caller(HUB, INTERNAL_PORT)?;
        let mut fleet = Self { hosts, caller, programs, n_clusters: clusters.len(), dir: temp };
        for host in fleet.programs.keys().cloned().collect::<Vec<_>>() {
            fleet.restart(&host)?;
        }
        fleet.all_connected(READY_MAX)?;
        Ok(fleet)
    }

    /// Starts a host's program: after a crash, or for the first time.
    pub fn restart(&mut self, host: &str) -> Result<()> {
        let Program { name, args } = self.programs.get(host).with_context(|| format!("no host {host}"))?;
        self.hosts.start(host, name, args)
    }

    /// Starts the agent of `cluster` on another host, which has another address.
    pub fn move_agent(&mut self, cluster: &str, host: &str) -> Result<()> {
        let program = self.programs.get(cluster).with_context(|| format!("no host {cluster}"))?.clone();
        self.hosts.add(host)?;
        self.programs.insert(host.to_owned(), program);
        self.restart(host)
    }

    /// The program ends at once (SIGKILL), and its peers are reset.
    pub fn crash(&mut self, host: &str) -> Result<()> {
        self.hosts.crash(host)
    }

    /// The host loses its power, for good: the program ends and nobody is told.
    pub fn vanish(&mut self, host: &str) -> Result<()> {
        self.hosts.vanish(host)
    }

    /// Nothing passes between two hosts and nobody is told, until the fault is dropped.
    pub fn cut(&self, a: &str, b: &str) -> Result<Fault> {
        self.hosts.cut(a, b)
    }

    /// The program is stopped where it is (SIGSTOP), its sockets stay, until the fault is dropped.
    pub fn pause(&self, host: &str) -> Result<Fault> {
        self.hosts.pause(host)
    }

    /// GETs `path` of a cluster once.
    pub fn get(&self, cluster: &str, path: &str) -> Result<Answer> {
        (self.caller)(&format!("/tunnel/{cluster}{path}"), PROBE_MAX).with_context(|| format!("GET {path} of {cluster}"))
    }

    /// GETs `path` of a cluster meanwhile.
    pub fn start_get(&self, cluster: &str, path: &str) -> Call {
        let (caller, path) = (self.caller.clone(), format!("/tunnel/{cluster}{path}"));
        let (end, ended) = channel();
        let what = path.clone();
        // A call that nobody waits for any more has nobody to tell.
        thread::spawn(move || drop(end.send(caller(&path, HANG))));
        Call { what, ended }
    }

    /// Waits until a cluster answers.
    pub fn routable(&self, cluster: &str, limit: Duration) -> Result<()> {
        let answers = || Ok(self.get(cluster, "/version").ok().filter(|answer| answer.status == 200).map(drop));
        wait_for(&format!("an answer of {cluster}"), limit, answers)
    }

    /// Waits until each cluster has a session. An older one may stay beside it after a cut, until its kernel repeats what was
    /// lost, which takes about as long as the cut did.
    pub fn all_connected(&self, limit: Duration) -> Result<()> {
        let counted = || {
            let metrics = (self.caller)("/metrics", PROBE_MAX);
            let told = metrics.map(|metrics| metrics.text()).unwrap_or_default();
            let sessions = told.lines().filter(|line| line.starts_with("tunnel_sessions{"));
            Ok((sessions.filter(|line| !line.ends_with(" 0")).count() == self.n_clusters).then_some(()))
        };
        wait_for("a session of each cluster in the metrics", limit, counted)
    }

    /// Waits until the server tells that a cluster stands so; the word is that of `/clusters`.
    pub fn stands(&self, cluster: &str, state: &str, limit: Duration) -> Result<()> {
        wait_for(&format!("{cluster} to be {state}"), limit, || Ok((self.state(cluster)? == state).then_some(())))
    }

    /// How a cluster stands, as the server tells it, which is ready whatever it tells.
    pub fn state(&self, cluster: &str) -> Result<String> {
        let ready = (self.caller)("/readyz/self", PROBE_MAX)?;
        ensure!(ready.status == 200, "the server is not ready: {}", ready.text());
        let told = (self.caller)(&format!("/clusters?cluster={cluster}"), PROBE_MAX)?.text();
        let told: Value = serde_json::from_str(&told).context(told)?;
        told["clusters"][0]["state"].as_str().map(str::to_owned).with_context(|| told.to_string())
    }

    /// How many requests are open at a cluster's API server, as it says through the tunnel; that one not counted.
    pub fn n_open(&self, cluster: &str) -> Result<u64> {
        let answer = self.get(cluster, "/open")?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        answer.text().trim().parse().with_context(|| answer.text())
    }

    /// Waits until nothing is open at a cluster's API server.
    pub fn nothing_open(&self, cluster: &str, limit: Duration) -> Result<()> {
        let empty = || Ok(self.n_open(cluster).is_ok_and(|n_open| n_open == 0).then_some(()));
        wait_for(&format!("nothing to be open at {cluster}"), limit, empty)
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        self.hosts.log_tails()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if switched_on("E2E_KEEP") {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}, with logs", self.dir.path().display());
        }
    }
}

/// A call that goes on.
pub struct Call {
    what: String,
    ended: Receiver<Result<Answer>>,
}

impl Call {
    /// Whether it goes on still.
    ///
    /// # Errors
    /// When it has ended, however.
    pub fn goes_on(&self) -> Result<()> {
        let ended = self.ended.try_recv();
        ensure!(ended.is_err(), "{} ended early: {:?}", self.what, ended.map(|answer| answer.map(|answer| answer.status)));
        Ok(())
    }

    /// Its end: an answer that is whole, or what the caller saw instead.
    ///
    /// # Errors
    /// When there is no end within the limit.
    pub fn end(self, limit: Duration) -> Result<Result<Answer>> {
        self.ended.recv_timeout(limit).with_context(|| format!("{} hangs", self.what))
    }
}

fn api_host(cluster: &str) -> String {
    format!("{cluster}-api")
}

/// What a cluster's agent proves itself with.
fn tunnel_token(cluster: &str) -> String {
    format!("end-to-end-token-of-{cluster}")
}

fn server(dir: &Path) -> Program {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut args = vec![format!("--addr=0.0.0.0:{PUBLIC_PORT}"), format!("--internal-addr=0.0.0.0:{INTERNAL_PORT}")];
    args.push(format!("--clusters={}", file("clusters.json")));
    args.push(format!("--tls-cert={}", file("certs/server.pem")));
    args.push(format!("--tls-key={}", file("certs/server.key")));
    args.push(format!("--tls-client-ca={}", file("certs/ca.pem")));
    Program { name: "postern-server", args }
}

fn agent(dir: &Path, hub: &str, cluster: &str, target: &str) -> Program {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut args = vec![format!("--server=wss://{hub}:{PUBLIC_PORT}/connect"), format!("--token={}", tunnel_token(cluster))];
    args.push(format!("--server-ca-cert={}", file("certs/ca.pem")));
    args.push(format!("--client-cert={}", file("certs/agent.pem")));
    args.push(format!("--client-key={}", file("certs/agent.key")));
    args.push(format!("--target={target}"));
    args.push(format!("--ca-cert={}", file("certs/ca.pem")));
    args.push(format!("--sa-token-path={}", file("api.token")));
    Program { name: "postern-agent", args }
}

fn api_server(dir: &Path) -> Program {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut args = vec!["apiserver".to_owned(), format!("--addr=0.0.0.0:{API_PORT}")];
    args.push(format!("--cert={}", file("certs/apiserver.pem")));
    args.push(format!("--key={}", file("certs/apiserver.key")));
    args.push(format!("--token-file={}", file("api.token")));
    Program { name: "postern-sim", args }
}
