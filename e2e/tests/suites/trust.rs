//! Trust while everything runs: every file is replaced as the kubelet does it, and a certificate is revoked.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{CLUSTER_ID, Pair, Process, Scene, Suite, TUNNEL_TOKEN, write_certs};
use serde_json::json;

use crate::api::config_map;
use crate::streams::start_pod;

/// For what takes a program a moment; the stories say exactly how long.
const SOON: Duration = Duration::from_secs(20);

/// Watches that are open while every file is replaced.
const N_WATCHES: usize = 50;

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    if !suite.must("a pod runs", || start_pod(scene)) {
        return;
    }
    suite.step("every file is replaced under 50 watches and an exec, and none breaks", || rotation(scene));
    suite.step("a revoked certificate cuts an open exec", || revocation(scene));
}

fn rotation(scene: &mut Scene) -> Result<()> {
    let certs = scene.dir().join("new-certs");
    write_certs(&certs, &[])?;
    let pem = |name: &str| std::fs::read(certs.join(name)).with_context(|| name.to_owned());
    let mut exec = open_exec(scene)?;
    says_back(&mut exec, "before")?;
    let path = Pair::tunnel_path(&format!("/api/v1/namespaces/{}/configmaps?watch=1", scene.namespace()));
    let pair = scene.pair()?;
    let mut watches = (0..N_WATCHES).map(|_| Watch::open(pair.internal(), &path)).collect::<Result<Vec<_>>>()?;

    // What is new is made known first, then shown, and what is old is forgotten last.
    let new_token = format!("{TUNNEL_TOKEN}-new");
    let clusters = |tokens: &[&str]| json!([{"id": CLUSTER_ID, "tokens": tokens}]).to_string();
    let both = [pair.hub.content("ca.crt"), &pem("ca.pem")?].concat();
    let tokens = clusters(&[TUNNEL_TOKEN, &new_token]);
    pair.hub.replace(&[("ca.crt", &both), ("clusters.json", tokens.as_bytes())])?;
    pair.edge.replace(&[("ca.crt", &both)])?;
    told(pair.server(), "trust has changed", 1)?;
    told(pair.agent("agent-1")?, "connected to the hub", 2)?;

    pair.hub.replace(&[("tls.crt", &pem("server.pem")?), ("tls.key", &pem("server.key")?)])?;
    pair.edge.replace(&[("tls.crt", &pem("agent.pem")?), ("tls.key", &pem("agent.key")?), ("token", new_token.as_bytes())])?;
    told(pair.agent("agent-1")?, "connected to the hub", 3)?;

    let tokens = clusters(&[&new_token]);
    pair.hub.replace(&[("ca.crt", &pem("ca.pem")?), ("clusters.json", tokens.as_bytes()), ("revoked", b"# still nobody\n")])?;
    pair.edge.replace(&[("ca.crt", &pem("ca.pem")?)])?;
    told(pair.server(), "trust has changed", 2)?;
    told(pair.agent("agent-1")?, "connected to the hub", 4)?;

    scene.admin.create(&config_map("late", &[]))?;
    for (n, watch) in watches.iter_mut().enumerate() {
        watch.hear("\"late\"").with_context(|| format!("watch {n}"))?;
    }
    says_back(&mut exec, "after")
}

fn revocation(scene: &mut Scene) -> Result<()> {
    let mut exec = open_exec(scene)?;
    says_back(&mut exec, "hello")?;
    let pair = scene.pair()?;
    let log = pair.server().log();
    let up = log.lines().rev().find(|line| line.contains("session up")).context("no session")?;
    let up: serde_json::Value = serde_json::from_str(up)?;
    let fingerprint = up["certificate"].as_str().or(up["fields"]["certificate"].as_str()).context("no certificate")?.to_owned();
    pair.hub.replace(&[("revoked", fingerprint.as_bytes())])?;
    let status = exec.wait_for_exit(SOON)?;
    ensure!(!status.success(), "the exec ended as if it were whole");
    told(pair.agent("agent-1")?, "the client certificate is revoked", 1)
}

fn open_exec(scene: &Scene) -> Result<Process> {
    scene.through.start(scene.dir(), "exec", &["exec", "-i", "talker", "--", "cat"])
}

fn says_back(exec: &mut Process, word: &str) -> Result<()> {
    exec.send(format!("{word}\n").as_bytes())?;
    exec.wait_for_line(word, SOON).map(drop)
}

/// Waits until a program has said something so many times.
fn told(process: &mut Process, what: &str, times: usize) -> Result<()> {
    let said = |log: &str| (log.lines().filter(|line| line.contains(what)).count() >= times).then_some(());
    process.wait_until(&format!("{what:?}, {times} times"), SOON, said)
}

/// An open watch; its answer is read as it comes, chunk framing included.
struct Watch(BufReader<TcpStream>);

impl Watch {
    fn open(addr: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n")?;
        let mut watch = Self(BufReader::new(stream));
        ensure!(watch.line()?.contains(" 200 "), "no watch");
        Ok(watch)
    }

    fn hear(&mut self, needle: &str) -> Result<()> {
        while !self.line()?.contains(needle) {}
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).context("read a watch")? > 0, "the watch has ended");
        Ok(line)
    }
}
