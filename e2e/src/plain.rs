//! A server and an agent as processes, plain on all sides, in front of a far end of the test's own.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::process::{Process, free_addr};
use crate::{get, product};

/// A debug build on a busy machine takes a few seconds to start.
const READY_MAX: Duration = Duration::from_secs(20);

/// Both programs; they end with this value. Their cluster is `edge-1`.
pub struct Plain {
    /// Where callers arrive.
    pub internal: SocketAddr,
    /// Where agents arrive.
    pub public: SocketAddr,
    /// Where the agent tells of itself.
    pub health: SocketAddr,
    /// The server and the agent.
    pub processes: Vec<Process>,
    dir: TempDir,
}

impl Plain {
    /// What the agent presents at the far end.
    pub const TOKEN: &str = "of-the-agent";

    /// Starts both, with flags of their own, and waits until they are ready.
    pub fn start(target: SocketAddr, of_server: &[&str], of_agent: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
        let (public, internal, health) = (free_addr()?, free_addr()?, free_addr()?);
        let (clusters, token) = (dir.path().join("clusters.json"), dir.path().join("token"));
        fs::write(&clusters, format!(r#"[{{"id": "edge-1", "token": "of-the-tunnel", "targetAddr": "{target}"}}]"#))?;
        fs::write(&token, Self::TOKEN)?;
        let is_ready = |addr, path| move |_: &str| get(addr, path).ok().filter(|answer| answer.status == 200).map(drop);
        let mut command = Command::new(product("postern-server")?);
        command.args(["--addr", &public.to_string(), "--internal-addr", &internal.to_string(), "--clusters"]).arg(&clusters);
        // What arrives is counted, and the server's own questions are not meant.
        command.arg("--probe-interval=0").args(of_server);
        let mut server = Process::start(dir.path(), "server", command)?;
        server.wait_until("health", READY_MAX, is_ready(internal, "/healthz"))?;
        let mut command = Command::new(product("postern-agent")?);
        command.args(["--server", &format!("ws://{public}/connect"), "--allow-insecure-server", "--token", "of-the-tunnel"]);
        command.args(["--target", &target.to_string(), "--plain-target", "--sa-token-path"]).arg(&token);
        command.args(["--health-addr", &health.to_string()]).args(of_agent);
        let mut agent = Process::start(dir.path(), "agent", command)?;
        agent.wait_until("readiness", READY_MAX, is_ready(health, "/readyz"))?;
        Ok(Self { internal, public, health, processes: vec![server, agent], dir })
    }

    /// Where files and logs go.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The ends of both logs.
    pub fn log_tails(&self, n_lines: usize) -> String {
        self.processes.iter().map(|process| process.log_tail(n_lines)).collect()
    }
}
