//! A scene: an upstream, a pair in front of it, and a kubectl on either side.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::Source;
use crate::kubectl::Kubectl;
use crate::pair::Pair;
use crate::requirement::switched_on;
use crate::upstream::{Kind, Upstream};
use crate::{product, wait_for};

/// The controller that makes the `default` service account takes about a second.
const NAMESPACE_MAX: Duration = Duration::from_secs(60);

/// Everything a suite needs. Taken down when dropped, callers first.
pub struct Scene {
    /// Asks through the tunnel, in the scene's own namespace.
    pub through: Kubectl,
    /// Asks the upstream itself, in the same namespace.
    pub admin: Kubectl,
    /// The server and its agents; none with `E2E_DIRECT=1`, which shows whether a failing step is Postern's fault.
    pub pair: Option<Pair>,
    /// What stands behind them.
    pub upstream: Upstream,
    dir: TempDir,
}

impl Scene {
    /// In front of `postern-sim apiserver`.
    pub fn fake(kubectl: &Path) -> Result<Self> {
        Self::build(|dir| Upstream::fake(kubectl, dir))
    }

    /// In front of `postern-sim apiserver`, with a callers file.
    pub fn fake_with_callers(kubectl: &Path, callers: &str) -> Result<Self> {
        Self::build(|dir| {
            fs::write(dir.join(Pair::CALLERS_FILE), callers)?;
            Upstream::fake(kubectl, dir)
        })
    }

    /// In front of `postern-sim apiserver`, with audit logs at both ends.
    pub fn fake_with_audit(kubectl: &Path) -> Result<Self> {
        Self::build(|dir| {
            fs::write(dir.join(Pair::AUDIT_KEY), "a key of more than sixteen bytes")?;
            Upstream::fake(kubectl, dir)
        })
    }

    /// In front of a kube-apiserver from `assets`.
    pub fn api_server(assets: &Path, kubectl: &Path) -> Result<Self> {
        Self::build(|dir| Upstream::api_server(assets, kubectl, dir, &[]))
    }

    /// In front of a cluster.
    pub fn cluster(source: &Source, kubectl: &Path) -> Result<Self> {
        Self::build(|dir| Upstream::cluster(source, kubectl, dir))
    }

    fn build(upstream: impl FnOnce(&Path) -> Result<Upstream>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
        let direct = switched_on("E2E_DIRECT");
        if !direct {
            // Missing programs are reported before anything slow is started.
            ["postern-server", "postern-agent", "postern-sim"].map(product).into_iter().collect::<Result<Vec<_>>>()?;
        }
        let upstream = upstream(dir.path())?;
        let pair = if direct { None } else { Some(Pair::start(&upstream, dir.path())?) };
        let through = match &pair {
            Some(pair) => pair.kubectl(upstream.admin.program())?,
            None => upstream.admin.clone(),
        };
        let namespace = format!("postern-e2e-{}", std::process::id());
        upstream.admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
        let (through, admin) = (through.in_namespace(&namespace), upstream.admin.in_namespace(&namespace));
        if upstream.kind == Kind::Cluster {
            // Pods are refused until a controller has made it.
            wait_for("the default service account", NAMESPACE_MAX, || Ok(admin.ok(&["get", "serviceaccount", "default"]).ok()))?;
        }
        Ok(Self { through, admin, pair, upstream, dir })
    }

    /// The pair of a scene that cannot do without.
    pub fn pair(&mut self) -> Result<&mut Pair> {
        self.pair.as_mut().context("this takes a pair, and E2E_DIRECT says to have none")
    }

    /// Where files and logs go.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The namespace made for this scene.
    pub fn namespace(&self) -> &str {
        self.admin.namespace()
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        let pair = self.pair.as_ref().map(Pair::log_tails).unwrap_or_default();
        format!("{pair}{}", self.upstream.log_tails())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if switched_on("E2E_KEEP") {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}, with logs and kubeconfigs", self.dir().display());
            return;
        }
        // A given cluster stays: what was made in it goes.
        let _ = self.upstream.admin.run(&["delete", "namespace", self.namespace(), "--wait=false"], b"");
    }
}
