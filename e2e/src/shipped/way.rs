//! A way through the tunnel for kubectl: a port-forward to the server's internal Service, and a kubeconfig for it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Place, SERVER};
use crate::kubectl::Kubectl;
use crate::pair::CLUSTER_ID;
use crate::process::Process;

/// kubectl says within a second or two where it listens.
const FORWARD_MAX: Duration = Duration::from_secs(30);

/// kubectl through the tunnel, until the pod that it leads to ends.
pub struct Way {
    /// Asks through the tunnel, in the namespace of the agent.
    pub kubectl: Kubectl,
    /// The port here that leads to the server's internal listener.
    pub port: u16,
    process: Process,
}

impl Way {
    pub(super) fn open(hub: &Place, edge: &Place, dir: &Path, at: u16) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let service = format!("service/{SERVER}-internal");
        // The Service's own port, whatever the values made it.
        let found = hub.admin.json(&["get", &service])?;
        let port = found["spec"]["ports"][0]["port"].as_u64().context("a Service without a port")?;
        let mut process = hub.admin.start(dir, &format!("way-{n}"), &["port-forward", &service, &format!("{at}:{port}")])?;
        let said = process.wait_for_line("Forwarding from 127.0.0.1:", FORWARD_MAX)?;
        let port = said.split(':').nth(1).and_then(|rest| rest.split(' ').next()).context("a port")?.parse()?;
        let server = format!("http://127.0.0.1:{port}/tunnel/{CLUSTER_ID}");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it", "users": [{"name": "it", "user": {}}],
            "clusters": [{"name": "it", "cluster": {"server": server}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        let file = dir.join(format!("way-{n}.kubeconfig"));
        fs::write(&file, config.to_string())?;
        let kubectl = Kubectl::new(edge.admin.program(), &file, &format!("/tunnel/{CLUSTER_ID}"));
        Ok(Self { kubectl: kubectl.in_namespace(edge.admin.namespace()), port, process })
    }

    /// Whether it still leads anywhere.
    pub fn is_open(&mut self) -> bool {
        // kubectl ends, or says so and lingers, when the pod is gone.
        !self.process.has_ended() && !self.process.log().contains("lost connection")
    }
}
