//! The folder of one run: certificates, tokens, logs; and the command lines of the programs that use them.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tempfile::TempDir;

use super::process::Process;
use super::stop::Stop;
use crate::task::Agents;

/// Everything that the processes of a run share. It is gone when the run is over.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) stop: Stop,
}

impl Place {
    /// Makes the folder, and the certificates in it.
    pub(crate) fn prepare(bins: &Path, stop: Stop) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("postern-bench-").tempdir()?;
        let certs = dir.path().join("certs");
        let mut command = Command::new(bins.join("postern-sim"));
        let output = command.args(["certs", "--out"]).arg(&certs).output();
        let output = output.with_context(|| format!("no postern-sim in {}; `cargo xtask bench` builds it", bins.display()))?;
        if !output.status.success() {
            bail!("postern-sim certs: {}", String::from_utf8_lossy(&output.stderr));
        }
        // What an agent shows the upstream, which does not look at it.
        fs::write(dir.path().join("sa-token"), "bench")?;
        Ok(Self { dir, stop })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn cert(&self, name: &str) -> PathBuf {
        self.dir.path().join("certs").join(name)
    }

    /// Starts `command` under `name`.
    pub(crate) fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::start(name, command, self.dir(), &self.stop)
    }

    /// A part of the benchmark as a process of its own, with its task.
    pub(crate) fn part(&self, verb: &str, task: &impl Serialize) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(verb).arg(serde_json::to_string(task)?);
        Ok(command)
    }

    /// The upstream on `address`, with the certificate of an API server.
    pub(crate) fn upstream(&self, address: SocketAddr) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["upstream", "--addr", &address.to_string()]);
        command.arg("--cert").arg(self.cert("apiserver.pem")).arg("--key").arg(self.cert("apiserver.key"));
        Ok(command)
    }

    /// A server with the given listeners and the clusters of `clusters` (a file that [`Place::clusters`] wrote).
    pub(crate) fn server(&self, bins: &Path, public: SocketAddr, internal: SocketAddr, clusters: &Path) -> Command {
        let mut command = Command::new(bins.join("postern-server"));
        command.args(["--addr", &public.to_string(), "--internal-addr", &internal.to_string()]);
        command.arg("--clusters").arg(clusters);
        command.arg("--tls-cert").arg(self.cert("server.pem")).arg("--tls-key").arg(self.cert("server.key"));
        command.arg("--tls-client-ca").arg(self.cert("ca.pem"));
        // As nginx: no line per request, and no limit that a scenario would meet.
        command.args(["--log-level", "warn", "--request-body-max", "1GiB", "--drain", "100ms"]);
        command
    }

    /// An agent that dials `public` and sends to `upstream`; its metrics are on `health`, if that is given.
    pub(crate) fn agent(
        &self,
        bins: &Path,
        public: SocketAddr,
        upstream: SocketAddr,
        token: &str,
        health: Option<SocketAddr>,
    ) -> Command {
        let mut command = Command::new(bins.join("postern-agent"));
        command.env("TOKEN", token);
        command.args(["--server", &connect_url(public), "--target", &upstream.to_string()]);
        command.arg("--ca-cert").arg(self.cert("ca.pem")).arg("--sa-token-path").arg(self.file("sa-token"));
        command.arg("--server-ca-cert").arg(self.cert("ca.pem"));
        command.arg("--client-cert").arg(self.cert("agent.pem")).arg("--client-key").arg(self.cert("agent.key"));
        let health = health.map(|addr| addr.to_string()).unwrap_or_default();
        command.args(["--health-addr", &health, "--log-level", "warn", "--drain", "100ms"]);
        command
    }

    /// Agents of the clusters `first..first + count` in one process; else as [`Place::agent`].
    pub(crate) fn agents(&self, public: SocketAddr, upstream: SocketAddr, first: usize, count: usize) -> Result<Command> {
        let cert = |name: &str| self.cert(name).display().to_string();
        let task = Agents {
            server: connect_url(public),
            server_ca: cert("ca.pem"),
            client_cert: cert("agent.pem"),
            client_key: cert("agent.key"),
            target: upstream.to_string(),
            target_ca: cert("ca.pem"),
            sa_token: self.file("sa-token").display().to_string(),
            first,
            count,
        };
        self.part("agents", &task)
    }

    /// Writes a clusters file for `--clusters`: names with the tokens of their agents.
    pub(crate) fn clusters(&self, file: &str, clusters: impl IntoIterator<Item = (String, String)>) -> Result<PathBuf> {
        let list: Vec<_> = clusters.into_iter().map(|(id, token)| serde_json::json!({ "id": id, "token": token })).collect();
        let path = self.file(file);
        fs::write(&path, serde_json::to_vec(&list)?)?;
        Ok(path)
    }
}

/// Where agents dial a server whose public listener is `public`.
pub(crate) fn connect_url(public: SocketAddr) -> String {
    format!("wss://{public}/connect")
}

/// Addresses on loopback that were free a moment ago.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    // All are held before the first is let go, or the kernel may name one twice.
    let held = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for (address, listener) in addresses.iter_mut().zip(held) {
        *address = listener?.local_addr()?;
    }
    Ok(addresses)
}

#[cfg(test)]
impl Place {
    /// A folder without certificates, for tests that start nothing.
    pub(crate) fn fake(stop: Stop) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), stop }
    }
}
