//! One whole GET: a caller's bytes through a server and an agent to an API server, and its answer back. No TLS.
//!
//! Caller and API server do next to nothing, so that what is counted is the product's: they send bytes that were made
//! once and look for no more than the end of a head.

use std::time::Duration;

use agent::AgentConfig;
use agent::config::TargetTls;
use anyhow::{Context, Result, ensure};
use host::{DrainSwitch, Host};
use proxy::audit::AuditConfig;
use secrecy::SecretString;
use server::config::TokenDigest;
use server::{ClusterConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::cables::Cables;

/// What the API server answers with: a small object.
const BODY_BYTES: usize = 2048;

/// Where it listens.
const API_PORT: u16 = 443;

const CLUSTER: &str = "edge-1";
const TOKEN: &str = "a-token-of-a-tunnel";

/// What a head ends with.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Longer than any head here.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How often an agent that is not there yet is asked for, and for how long; the clock is a simulated one.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
const ASKS_MAX: usize = 100;

const QUESTION: &str = "GET /tunnel/edge-1/api/v1/namespaces/argocd/configmaps/argocd-cm HTTP/1.1\r\n\
    Host: postern-server.postern.svc:8080\r\n\
    User-Agent: argocd-application-controller/v2.13.2 (linux/amd64) kubernetes/$Format\r\n\
    Accept: application/json\r\n\
    Authorization: Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImFiYyJ9.eyJzdWIiOiJhcmdvY2QifQ.c2lnbmF0dXJl\r\n\
    Accept-Encoding: gzip\r\n\r\n";

const ANSWER_HEAD: &str = "HTTP/1.1 200 OK\r\n\
    Audit-Id: 6f1c3f0a-9d0e-4c52-8f2b-7c1f5a2e9b11\r\n\
    Cache-Control: no-cache, private\r\n\
    Content-Type: application/json\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    X-Kubernetes-Pf-Flowschema-Uid: 1f4c4b1e-3d6a-4b8e-9c1c-0d9e6f5a4b3c\r\n\
    X-Kubernetes-Pf-Prioritylevel-Uid: 7a2d9c3b-5e8f-4a1d-b6c2-1e3f5a7b9d0c\r\n\
    Content-Length: 2048\r\n\r\n";

/// Where an audit log goes that nobody reads.
const OUTPUT: &str = "-";

pub(super) fn run(count: u64) -> Result<()> {
    ask(count, None)
}

/// The same with an audit log at both ends.
pub(super) fn run_audited(count: u64) -> Result<()> {
    ask(count, Some(&AuditConfig::new(OUTPUT)))
}

fn ask(count: u64, audit: Option<&AuditConfig>) -> Result<()> {
    // Timers of the product never fire by chance: time goes on only when nothing else does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let cables = Cables::default();
        // Whoever lets go of a switch starts a drain.
        let _switches =
            [start_api_server(&cables), start_server(&cables.machine(), audit), start_agent(&cables.machine(), audit)?];
        // The server binds its ports in its own time.
        tokio::time::sleep(ASK_INTERVAL).await;
        let io = cables.dial(ServerConfig::default().internal_addr.port()).await?;
        let mut caller = Caller { io, buf: Vec::with_capacity(HEAD_BYTES_MAX) };
        caller.wait_for_agent().await?;
        for _ in 0..count {
            let status = caller.ask().await?;
            ensure!(status == 200, "a request was answered with {status}");
        }
        Ok(())
    })
}

fn start_server(host: &Host, audit: Option<&AuditConfig>) -> Option<DrainSwitch> {
    let (switch, drain) = DrainSwitch::new();
    let cluster = ClusterConfig {
        id: CLUSTER.parse().expect("a good cluster id"),
        route: CLUSTER.to_owned(),
        tokens: vec![TokenDigest::of(&SecretString::from(TOKEN))],
        certificates: Vec::new(),
        impersonate: Default::default(),
        labels: Default::default(),
        annotations: Default::default(),
        target_addr: "kubernetes.default.svc:443".to_owned(),
    };
    let (audit, machine) = (audit.cloned(), host.clone());
    let config = ServerConfig { clusters: vec![cluster], probe_interval: None, audit, ..ServerConfig::default() };
    host.spawn("server", async move {
        if let Err(error) = server::run(config, machine, drain).await {
            eprintln!("the server ended: {error}");
        }
    });
    Some(switch)
}

fn start_agent(host: &Host, audit: Option<&AuditConfig>) -> Result<Option<DrainSwitch>> {
    let (switch, drain) = DrainSwitch::new();
    let url = "ws://hub:8443/connect".parse().map_err(anyhow::Error::msg)?;
    let mut config = AgentConfig::new(url, SecretString::from(TOKEN));
    (config.target_tls, config.health_addr, config.audit) = (TargetTls::Plain, None, audit.cloned());
    let machine = host.clone();
    host.spawn("agent", async move {
        if let Err(error) = agent::run(config, machine, drain).await {
            eprintln!("the agent ended: {error}");
        }
    });
    Ok(Some(switch))
}

fn start_api_server(cables: &Cables) -> Option<DrainSwitch> {
    let mut dialled = cables.listen(API_PORT);
    let answer = [ANSWER_HEAD.as_bytes(), &[b'x'; BODY_BYTES]].concat();
    let host = cables.machine();
    host.clone().spawn("api server", async move {
        while let Some(io) = dialled.recv().await {
            host.spawn("api connection", answer_all(io, answer.clone()));
        }
    });
    None
}

/// Answers until the other side leaves. Nobody asks again before the answer, so a read that ends a head ends a request.
async fn answer_all(mut io: DuplexStream, answer: Vec<u8>) {
    let mut buf = Vec::with_capacity(HEAD_BYTES_MAX);
    while let Ok(1..) = io.read_buf(&mut buf).await {
        if buf.ends_with(HEAD_END) {
            buf.clear();
            if io.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

struct Caller {
    io: DuplexStream,
    buf: Vec<u8>,
}

impl Caller {
    async fn wait_for_agent(&mut self) -> Result<()> {
        for _ in 0..ASKS_MAX {
            if self.ask().await? == 200 {
                return Ok(());
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        anyhow::bail!("no agent has come")
    }

    /// Asks once, reads the whole answer and tells its status.
    async fn ask(&mut self) -> Result<u16> {
        self.io.write_all(QUESTION.as_bytes()).await?;
        self.buf.clear();
        let head = loop {
            ensure!(self.io.read_buf(&mut self.buf).await? > 0, "the server hung up within an answer");
            if let Some(at) = self.buf.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
                break at + HEAD_END.len();
            }
            ensure!(self.buf.len() < HEAD_BYTES_MAX, "an answer without the end of its head");
        };
        let whole = head + content_length(&self.buf[..head])?;
        while self.buf.len() < whole {
            ensure!(self.io.read_buf(&mut self.buf).await? > 0, "the server hung up within an answer");
        }
        let status = self.buf.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        status.and_then(|digits| digits.parse().ok()).context("an answer without a status")
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let value = lines.filter(|line| line.len() > NAME.len()).find(|line| line[..NAME.len()].eq_ignore_ascii_case(NAME));
    let digits = value.and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok()).context("an answer without a length")?;
    digits.trim().parse().context("the length of an answer")
}
