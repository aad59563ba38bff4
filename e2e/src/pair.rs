//! A server and its agents as processes on loopback, with mutual TLS between them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::kubectl::{Kubectl, call};
use crate::process::{Process, free_addr};
use crate::upstream::Upstream;
use crate::{get, product};

/// The cluster's name at the server.
pub const CLUSTER_ID: &str = "edge-1";

/// What the agent proves itself with.
const TUNNEL_TOKEN: &str = "end-to-end-tunnel-token";

/// Starting takes well under a second; a debug build on a busy machine takes a few.
const READY_MAX: Duration = Duration::from_secs(20);

/// One server and the agents it was given; all end with this value.
pub struct Pair {
    dir: PathBuf,
    public: SocketAddr,
    internal: SocketAddr,
    target: String,
    ca: PathBuf,
    token: PathBuf,
    server: Process,
    agents: Vec<(String, Process)>,
}

impl Pair {
    /// Starts a server and one agent, `agent-1`, in front of `upstream`, and waits until both are ready.
    pub fn start(upstream: &Upstream, dir: &Path) -> Result<Self> {
        write_certs(dir, &[])?;
        let (public, internal) = (free_addr()?, free_addr()?);
        let clusters = json!([{"id": CLUSTER_ID, "token": TUNNEL_TOKEN, "targetAddr": upstream.target}]);
        fs::write(dir.join("clusters.json"), clusters.to_string())?;
        let server = start_server(dir, public, internal)?;
        let Upstream { target, ca, token, .. } = upstream;
        let (target, ca, token) = (target.clone(), ca.clone(), token.clone());
        let mut pair = Self { dir: dir.to_owned(), public, internal, target, ca, token, server, agents: Vec::new() };
        pair.start_agent("agent-1")?;
        Ok(pair)
    }

    /// The server's internal listener.
    pub fn internal(&self) -> SocketAddr {
        self.internal
    }

    /// The server's process.
    pub fn server(&mut self) -> &mut Process {
        &mut self.server
    }

    /// Starts the server again at its addresses, after it has ended.
    pub fn restart_server(&mut self) -> Result<()> {
        self.server = start_server(&self.dir, self.public, self.internal)?;
        Ok(())
    }

    /// Starts another agent and waits until it is ready.
    pub fn start_agent(&mut self, name: &str) -> Result<()> {
        let health = free_addr()?;
        let certs = self.dir.join("certs");
        let mut command = Command::new(product("postern-agent")?);
        command.args(["--server", &format!("wss://localhost:{}/connect", self.public.port()), "--token", TUNNEL_TOKEN]);
        command.args(["--target", &self.target, "--ca-cert"]).arg(&self.ca).arg("--sa-token-path").arg(&self.token);
        command.arg("--server-ca-cert").arg(certs.join("ca.pem"));
        command.arg("--client-cert").arg(certs.join("agent.pem")).arg("--client-key").arg(certs.join("agent.key"));
        command.args(["--health-addr", &health.to_string()]);
        let mut agent = Process::start(&self.dir, name, command)?;
        agent.wait_until("readiness", READY_MAX, |_| is_ok(health, "/readyz"))?;
        self.agents.push((name.to_owned(), agent));
        Ok(())
    }

    /// Takes an agent out, to end it one way or another; it is killed when dropped.
    pub fn take_agent(&mut self, name: &str) -> Result<Process> {
        let place = self.agents.iter().position(|(agent, _)| agent == name).with_context(|| format!("no agent {name}"))?;
        Ok(self.agents.remove(place).1)
    }

    /// The address of `path` at the internal listener, as a request through the tunnel has it.
    pub fn tunnel_path(path: &str) -> String {
        format!("/tunnel/{CLUSTER_ID}{path}")
    }

    /// Asks through the tunnel, with the kubeconfig that the server itself prints.
    pub fn kubectl(&self, program: &Path) -> Result<Kubectl> {
        let mut command = Command::new(product("postern-server")?);
        command.args(["kubeconfig", CLUSTER_ID, "--url", &format!("http://{}", self.internal)]);
        let output = call(command, b"")?;
        ensure!(output.code == Some(0), "postern-server kubeconfig: {}", output.stderr);
        let config = self.dir.join("tunnel.kubeconfig");
        fs::write(&config, output.stdout)?;
        Ok(Kubectl::new(program, &config, &Self::tunnel_path("")))
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        let agents = self.agents.iter().map(|(_, agent)| agent.log_tail(20));
        std::iter::once(self.server.log_tail(30)).chain(agents).collect()
    }
}

/// Writes the certificates of a pair and of the fake API server into `DIR/certs`, once; `names` beside those of loopback.
pub(crate) fn write_certs(dir: &Path, names: &[String]) -> Result<()> {
    let certs = dir.join("certs");
    if certs.is_dir() {
        return Ok(());
    }
    let mut command = Command::new(product("postern-sim")?);
    command.args(["certs", "--out"]).arg(certs).args(names.iter().flat_map(|name| ["--name", name]));
    let output = call(command, b"")?;
    ensure!(output.code == Some(0), "postern-sim certs: {}", output.stderr);
    Ok(())
}

fn start_server(dir: &Path, public: SocketAddr, internal: SocketAddr) -> Result<Process> {
    let certs = dir.join("certs");
    let mut command = Command::new(product("postern-server")?);
    command.args(["--addr", &public.to_string(), "--internal-addr", &internal.to_string()]);
    command.arg("--clusters").arg(dir.join("clusters.json"));
    command.arg("--tls-cert").arg(certs.join("server.pem")).arg("--tls-key").arg(certs.join("server.key"));
    command.arg("--tls-client-ca").arg(certs.join("ca.pem"));
    let mut server = Process::start(dir, "server", command)?;
    server.wait_until("health", READY_MAX, |_| is_ok(internal, "/healthz"))?;
    Ok(server)
}

fn is_ok(addr: SocketAddr, path: &str) -> Option<()> {
    get(addr, path).ok().filter(|answer| answer.status == 200).map(|_| ())
}
