//! A server and its agents as processes on loopback, with mutual TLS between them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::kubectl::{Kubectl, Output, call};
use crate::mount::Mount;
use crate::process::{Process, free_addr};
use crate::upstream::Upstream;
use crate::{get, product};

/// The cluster's name at the server.
pub const CLUSTER_ID: &str = "edge-1";

/// What the agent proves itself with.
pub const TUNNEL_TOKEN: &str = "end-to-end-tunnel-token";

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
    /// What the server finds: `clusters.json`, `tls.crt`, `tls.key`, `ca.crt`, `revoked`.
    pub hub: Mount,
    /// What its agents find: `token`, `tls.crt`, `tls.key`, `ca.crt`, `guard.yaml`.
    pub edge: Mount,
    server: Process,
    agents: Vec<(String, Process)>,
}

impl Pair {
    /// What stands under this name where a pair is started is the server's callers file.
    pub const CALLERS_FILE: &str = "callers.yaml";

    /// Where this stands, both programs keep an audit log that it signs.
    pub const AUDIT_KEY: &str = "audit.key";

    /// Starts a server and one agent, `agent-1`, in front of `upstream`, and waits until both are ready.
    pub fn start(upstream: &Upstream, dir: &Path) -> Result<Self> {
        let certs = dir.join("certs");
        write_certs(&certs, &[])?;
        let (public, internal) = (free_addr()?, free_addr()?);
        let clusters = json!([{"id": CLUSTER_ID, "token": TUNNEL_TOKEN, "targetAddr": upstream.target}]).to_string();
        let pem = |name: &str| fs::read(certs.join(name)).with_context(|| name.to_owned());
        let (ca, cert, key) = (pem("ca.pem")?, pem("server.pem")?, pem("server.key")?);
        let files = [("clusters.json", clusters.as_bytes()), ("tls.crt", &cert), ("tls.key", &key), ("ca.crt", &ca)];
        let hub = Mount::new(&dir.join("hub"), &[&files[..], &[("revoked", b"# nobody\n")]].concat())?;
        let (cert, key) = (pem("agent.pem")?, pem("agent.key")?);
        let files = [("token", TUNNEL_TOKEN.as_bytes()), ("tls.crt", &cert), ("tls.key", &key), ("ca.crt", &ca)];
        let files = [&files[..], &[("guard.yaml", b"{}")]].concat();
        let edge = Mount::new(&dir.join("edge"), &files)?;
        let server = start_server(dir, &hub, (public, internal), None)?;
        let Upstream { target, ca, token, .. } = upstream;
        let (target, ca, token) = (target.clone(), ca.clone(), token.clone());
        let mut pair = Self { dir: dir.to_owned(), public, internal, target, ca, token, hub, edge, server, agents: Vec::new() };
        pair.start_agent("agent-1")?;
        Ok(pair)
    }

    /// The server's public listener.
    pub fn public(&self) -> SocketAddr {
        self.public
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
        self.server = start_server(&self.dir, &self.hub, (self.public, self.internal), None)?;
        Ok(())
    }

    /// The same with an audit log on a disk of its own for a few records; the folder is how this process sees that disk.
    pub fn restart_server_on_small_disk(&mut self) -> Result<PathBuf> {
        let disk = self.dir.join("small");
        fs::create_dir_all(&disk)?;
        self.server = start_server(&self.dir, &self.hub, (self.public, self.internal), Some(&disk))?;
        let seen = disk.strip_prefix("/").unwrap_or(&disk);
        Ok(PathBuf::from(format!("/proc/{}/root", self.server.id())).join(seen))
    }

    /// The audit log of `server` or of an agent, where [`Pair::AUDIT_KEY`] stands.
    pub fn audit_log(&self, name: &str) -> PathBuf {
        audit_log(&self.dir, name)
    }

    /// What signs it.
    pub fn audit_key(&self) -> PathBuf {
        self.dir.join(Self::AUDIT_KEY)
    }

    /// Starts another agent and waits until it is ready.
    pub fn start_agent(&mut self, name: &str) -> Result<()> {
        self.start_agent_with(name, &[])
    }

    /// The same, with more flags.
    pub fn start_agent_with(&mut self, name: &str, more: &[&str]) -> Result<()> {
        let health = free_addr()?;
        let mut command = Command::new(product("postern-agent")?);
        for (flag, value) in self.flags() {
            command.arg(format!("--{flag}")).arg(value);
        }
        command.args(["--health-addr", &health.to_string()]).args(more);
        let state = self.state_dir(name);
        fs::create_dir_all(&state)?;
        command.arg("--state-dir").arg(state);
        audit(&mut command, &self.dir, &self.audit_log(name));
        let mut agent = Process::start(&self.dir, name, command)?;
        agent.wait_until("readiness", READY_MAX, |_| is_ok(health, "/readyz"))?;
        self.agents.push((name.to_owned(), agent));
        Ok(())
    }

    /// What the doctor says beside these agents, with `more` flags.
    pub fn doctor(&self, more: &[&str]) -> Result<Output> {
        self.doctor_but(&[], more)
    }

    /// The same, with none of the agents' own flags that are in `without`.
    pub fn doctor_but(&self, without: &[&str], more: &[&str]) -> Result<Output> {
        let mut command = Command::new(product("postern-agent")?);
        command.arg("doctor");
        for (flag, value) in self.flags() {
            if !without.contains(&flag) {
                command.arg(format!("--{flag}")).arg(value);
            }
        }
        call(with(command, more), b"")
    }

    /// What a check of the server's files says, with `more` flags.
    pub fn check(&self, more: &[&str]) -> Result<Output> {
        let mut command = Command::new(product("postern-server")?);
        command.arg("check").arg("--tls-cert").arg(self.hub.path("tls.crt")).arg("--tls-key").arg(self.hub.path("tls.key"));
        command.arg("--tls-client-ca").arg(self.hub.path("ca.crt")).arg("--clusters").arg(self.hub.path("clusters.json"));
        call(with(command, more), b"")
    }

    /// The flags of all agents.
    fn flags(&self) -> [(&'static str, PathBuf); 9] {
        let server = format!("wss://localhost:{}/connect", self.public.port());
        [
            ("server", server.into()),
            ("target", self.target.clone().into()),
            ("ca-cert", self.ca.clone()),
            ("sa-token-path", self.token.clone()),
            ("token-file", self.edge.path("token")),
            ("server-ca-cert", self.edge.path("ca.crt")),
            ("client-cert", self.edge.path("tls.crt")),
            ("client-key", self.edge.path("tls.key")),
            ("guard", self.edge.path("guard.yaml")),
        ]
    }

    /// An agent's process.
    pub fn agent(&mut self, name: &str) -> Result<&mut Process> {
        let agent = self.agents.iter_mut().find(|(agent, _)| agent == name);
        agent.map(|(_, process)| process).with_context(|| format!("no agent {name}"))
    }

    /// Takes an agent out, to end it one way or another; it is killed when dropped.
    pub fn take_agent(&mut self, name: &str) -> Result<Process> {
        let place = self.agents.iter().position(|(agent, _)| agent == name).with_context(|| format!("no agent {name}"))?;
        Ok(self.agents.remove(place).1)
    }

    /// Gives an agent an order by its admin socket.
    pub fn order(&self, agent: &str, order: &str) -> Result<Output> {
        let mut command = Command::new(product("postern-agent")?);
        command.args([order, "--state-dir"]).arg(self.state_dir(agent));
        call(command, b"")
    }

    fn state_dir(&self, agent: &str) -> PathBuf {
        self.dir.join(format!("{agent}.state"))
    }

    /// The address of `path` at the internal listener, as a request through the tunnel has it.
    pub fn tunnel_path(path: &str) -> String {
        format!("/tunnel/{CLUSTER_ID}{path}")
    }

    /// Asks through the tunnel, with the kubeconfig that the server itself prints.
    pub fn kubectl(&self, program: &Path) -> Result<Kubectl> {
        self.configured(program, "tunnel", &["--url", &format!("http://{}", self.internal)], &[])
    }

    /// The same over TLS, with flags of `postern-server kubeconfig` that name files with a credential.
    pub fn kubectl_with(&self, program: &Path, credential: &[(&str, PathBuf)]) -> Result<Kubectl> {
        let url = format!("https://localhost:{}", self.internal.port());
        let name = credential.first().map_or("tls", |(flag, _)| flag.trim_start_matches('-'));
        let ca = [("--ca-file", self.dir.join("certs/ca.pem"))];
        self.configured(program, name, &["--url", &url], &[&ca, credential].concat())
    }

    fn configured(&self, program: &Path, name: &str, args: &[&str], files: &[(&str, PathBuf)]) -> Result<Kubectl> {
        let mut command = Command::new(product("postern-server")?);
        command.args(["kubeconfig", CLUSTER_ID]).args(args);
        for (flag, path) in files {
            command.arg(flag).arg(path);
        }
        let output = call(command, b"")?;
        ensure!(output.code == Some(0), "postern-server kubeconfig: {}", output.stderr);
        let config = self.dir.join(format!("{name}.kubeconfig"));
        fs::write(&config, output.stdout)?;
        Ok(Kubectl::new(program, &config, &Self::tunnel_path("")))
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        let agents = self.agents.iter().map(|(_, agent)| agent.log_tail(20));
        std::iter::once(self.server.log_tail(30)).chain(agents).collect()
    }
}

/// Writes the certificates of a pair and of the fake API server into `certs`, once; `names` beside those of loopback.
pub fn write_certs(certs: &Path, names: &[String]) -> Result<()> {
    if certs.is_dir() {
        return Ok(());
    }
    let mut command = Command::new(product("postern-sim")?);
    command.args(["certs", "--out"]).arg(certs).args(names.iter().flat_map(|name| ["--name", name]));
    let output = call(command, b"")?;
    ensure!(output.code == Some(0), "postern-sim certs: {}", output.stderr);
    Ok(())
}

fn with(mut command: Command, more: &[&str]) -> Command {
    command.args(more);
    command
}

/// Flags of an audit log, where one is to be kept.
fn audit(command: &mut Command, dir: &Path, log: &Path) {
    let key = dir.join(Pair::AUDIT_KEY);
    if key.is_file() {
        command.arg("--audit").arg(log).arg("--audit-key").arg(key).args(["--audit-file-max", "64KiB"]);
    }
}

fn audit_log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.audit"))
}

/// A program whose own file system has room for a few records at `disk`.
fn on_small_disk(program: &Path, disk: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=128k none \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(disk).arg(program);
    command
}

fn start_server(dir: &Path, hub: &Mount, (public, internal): (SocketAddr, SocketAddr), disk: Option<&Path>) -> Result<Process> {
    let program = product("postern-server")?;
    let mut command = disk.map_or_else(|| Command::new(&program), |disk| on_small_disk(&program, disk));
    command.args(["--addr", &public.to_string(), "--internal-addr", &internal.to_string()]);
    let files = [
        ("clusters", "clusters.json"),
        ("tls-cert", "tls.crt"),
        ("tls-key", "tls.key"),
        ("tls-client-ca", "ca.crt"),
        ("revoked-certs", "revoked"),
    ];
    for (flag, file) in files {
        command.arg(format!("--{flag}")).arg(hub.path(file));
    }
    let callers = dir.join(Pair::CALLERS_FILE);
    if callers.is_file() {
        command.arg("--callers").arg(callers);
    }
    audit(&mut command, dir, &disk.map_or_else(|| audit_log(dir, "server"), |disk| disk.join("audit.log")));
    let mut server = Process::start(dir, "server", command)?;
    server.wait_until("health", READY_MAX, |_| is_ok(internal, "/healthz"))?;
    Ok(server)
}

fn is_ok(addr: SocketAddr, path: &str) -> Option<()> {
    get(addr, path).ok().filter(|answer| answer.status == 200).map(|_| ())
}
