//! Whole clusters: a kind cluster of our own, or one that somebody gave.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
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

/// A kind cluster; deleted when dropped, and when the process is interrupted.
pub(crate) struct KindCluster {
    name: String,
}

impl KindCluster {
    /// Creates a cluster under a name that no other process has, and writes its kubeconfig.
    pub(crate) fn create(image: Option<&str>, kubeconfig: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("postern-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::create_named(&name, image, kubeconfig)
    }

    /// The same under this name.
    pub(crate) fn create_named(name: &str, image: Option<&str>, kubeconfig: &Path) -> Result<Self> {
        // From here on a failure deletes what there is of it.
        let cluster = Self { name: name.to_owned() };
        delete_when_interrupted(name)?;
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

    /// Brings images of the local engine to its node.
    pub(crate) fn load(&self, images: &[&str]) -> Result<()> {
        let mut load = Command::new("kind");
        load.args(["load", "docker-image", "--name", &self.name]).args(images);
        let output = call(load, b"")?;
        ensure!(output.code == Some(0), "kind load docker-image: {}", output.stderr);
        Ok(())
    }

    /// Brings the images of an archive to its node.
    pub(crate) fn load_archive(&self, archive: &Path) -> Result<()> {
        let mut load = Command::new("kind");
        load.args(["load", "image-archive", "--name", &self.name]).arg(archive);
        let output = call(load, b"")?;
        ensure!(output.code == Some(0), "kind load image-archive: {}", output.stderr);
        Ok(())
    }

    /// Runs a command on its node, as root.
    pub(crate) fn on_node(&self, command: &[&str]) -> Result<()> {
        on_node(&self.node(), command)
    }

    /// The container that is its node.
    pub(crate) fn node(&self) -> String {
        format!("{}-control-plane", self.name)
    }
}

/// Runs a command on a node that is a container.
pub(crate) fn on_node(node: &str, command: &[&str]) -> Result<()> {
    let mut exec = Command::new("docker");
    exec.args(["exec", node]).args(command);
    let output = call(exec, b"")?;
    ensure!(output.code == Some(0), "{command:?} on {node}: {}", output.stderr);
    Ok(())
}

impl Drop for KindCluster {
    fn drop(&mut self) {
        if switched_on("E2E_KEEP") {
            eprintln!("kept: the kind cluster {0}; `kind delete cluster --name {0}` ends it", self.name);
            return;
        }
        delete_kind_cluster(&self.name);
    }
}

/// Deletes a kind cluster if it is there.
pub fn delete_kind_cluster(name: &str) {
    let mut delete = Command::new("kind");
    delete.args(["delete", "cluster", "--name", name]);
    match call(delete, b"") {
        Ok(output) if output.code == Some(0) => {}
        Ok(output) => eprintln!("the kind cluster {name} is left over: {}", output.stderr),
        Err(error) => eprintln!("the kind cluster {name} is left over: {error:#}"),
    }
}

/// Destructors do not run when a signal ends a process, and a cluster outlives it. One watch deletes them all.
fn delete_when_interrupted(name: &str) -> Result<()> {
    static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static WATCH: Once = Once::new();
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    WATCH.call_once(move || {
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner).clone();
            thread::scope(|scope| {
                for name in &names {
                    scope.spawn(|| delete_kind_cluster(name));
                }
            });
            std::process::exit(130);
        });
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
