//! Whole clusters: a kind cluster of our own, or one that somebody gave.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::kubectl::{Kubectl, call};
use crate::requirement::switched_on;

/// Where a cluster comes from.
#[derive(Debug)]
pub enum Source {
    /// Made with kind for one test; `image` is the node image, kind's own when there is none.
    Kind {
        /// The node image.
        image: Option<String>,
    },
    /// Given by its kubeconfig, whose user may do everything.
    Given(PathBuf),
}

/// A kind cluster; deleted when dropped, and when the test is interrupted.
pub(crate) struct KindCluster {
    name: String,
}

impl KindCluster {
    /// Creates a cluster under a name that no other process has, and writes its kubeconfig.
    pub(crate) fn create(image: Option<&str>, kubeconfig: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("postern-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // From here on a failure deletes what there is of it.
        let cluster = Self { name };
        delete_when_interrupted(cluster.name.clone())?;
        let mut create = Command::new("kind");
        create.args(["create", "cluster", "--name", &cluster.name, "--wait", "120s", "--kubeconfig"]).arg(kubeconfig);
        if let Some(image) = image {
            create.args(["--image", image]);
        }
        // Kind's own limit is the `--wait` above; pulling its image has none that would be right everywhere.
        let output = create.output().context("run kind")?;
        ensure!(output.status.success(), "kind create cluster: {}", String::from_utf8_lossy(&output.stderr));
        Ok(cluster)
    }
}

impl Drop for KindCluster {
    fn drop(&mut self) {
        if switched_on("E2E_KEEP") {
            eprintln!("kept: the kind cluster {0}; `kind delete cluster --name {0}` ends it", self.name);
            return;
        }
        delete(&self.name);
    }
}

fn delete(name: &str) {
    let mut delete = Command::new("kind");
    delete.args(["delete", "cluster", "--name", name]);
    match call(delete, b"") {
        Ok(output) if output.code == Some(0) => {}
        Ok(output) => eprintln!("the kind cluster {name} is left over: {}", output.stderr),
        Err(error) => eprintln!("the kind cluster {name} is left over: {error:#}"),
    }
}

/// Destructors do not run when a signal ends a process, and a cluster outlives it.
fn delete_when_interrupted(name: String) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        delete(&name);
        std::process::exit(130);
    });
    Ok(())
}

/// The agent's rights: a service account that may do everything, removed when dropped.
pub(crate) struct AgentAccount {
    admin: Kubectl,
    name: String,
}

impl AgentAccount {
    /// Creates it in a namespace of its own, and gives a token for it.
    pub(crate) fn create(admin: &Kubectl) -> Result<(Self, String)> {
        let name = format!("postern-e2e-agent-{}", std::process::id());
        let account = Self { admin: admin.in_namespace(&name), name };
        let admin = &account.admin;
        admin.ok(&["create", "namespace", &account.name])?;
        admin.ok(&["create", "serviceaccount", "agent"])?;
        let subject = format!("--serviceaccount={}:agent", account.name);
        admin.ok(&["create", "clusterrolebinding", &account.name, "--clusterrole=cluster-admin", &subject])?;
        let token = admin.ok(&["create", "token", "agent", "--duration=4h"])?.trim().to_owned();
        Ok((account, token))
    }
}

impl Drop for AgentAccount {
    fn drop(&mut self) {
        // What cannot be removed belongs to a cluster that is going away with its API server.
        let _ = self.admin.run(&["delete", "clusterrolebinding", &self.name], b"");
        let _ = self.admin.run(&["delete", "namespace", &self.name, "--wait=false"], b"");
    }
}
