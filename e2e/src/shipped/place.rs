//! One cluster of a pair, as its admin sees it: kubectl, helm, and the node where it is ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{KindCluster, Source, on_node};
use crate::image::Images;
use crate::kubectl::{Kubectl, call};
use crate::{Fault, wait_for};

/// The controller that makes the `default` service account takes about a second.
const NAMESPACE_MAX: Duration = Duration::from_secs(60);

/// How long helm waits for what it has installed: two minutes is what a call may take, and helm wants to say why.
const HELM_WAIT: &str = "100s";

/// A cluster.
pub struct Place {
    /// Asks its API server as admin, in the namespace of the pair.
    pub admin: Kubectl,
    helm: PathBuf,
    dir: PathBuf,
    kind: Option<KindCluster>,
}

impl Place {
    /// Takes a cluster, or makes one that is called `name`; files go to `dir`.
    pub(crate) fn take(source: &Source, name: &str, programs: (&Path, &Path), dir: &Path) -> Result<Self> {
        let (kubectl, helm) = programs;
        fs::create_dir_all(dir)?;
        let made = dir.join("made.kubeconfig");
        let (given, kind) = match source {
            Source::Given(kubeconfig) => (kubeconfig.clone(), None),
            Source::Kind { image } => (made.clone(), Some(KindCluster::create_named(name, image.as_deref(), &made)?)),
        };
        // A copy: kubectl keeps its cache beside the kubeconfig.
        let config = dir.join("kubeconfig");
        let flat = Kubectl::new(kubectl, &given, "").ok(&["config", "view", "--raw", "--minify", "--flatten"])?;
        fs::write(&config, flat)?;
        Ok(Self { admin: Kubectl::new(kubectl, &config, ""), helm: helm.to_owned(), dir: dir.to_owned(), kind })
    }

    /// Whether its node is a container of this machine.
    pub fn is_ours(&self) -> bool {
        self.kind.is_some()
    }

    /// Brings those images there that the local engine has, where that is our business.
    pub(crate) fn load(&self, images: &[&str]) -> Result<()> {
        let here: Vec<_> = images.iter().copied().filter(|image| Images::inspect(image).is_ok()).collect();
        match &self.kind {
            Some(kind) if !here.is_empty() => kind.load(&here),
            _ => Ok(()),
        }
    }

    /// Brings the images of an archive there, as `docker save` writes it, where that is our business.
    pub fn load_archive(&self, archive: &Path) -> Result<()> {
        self.kind.as_ref().map_or(Ok(()), |kind| kind.load_archive(archive))
    }

    /// Kills a program where it runs on the node (SIGKILL), with nobody told; its container starts again.
    pub fn kill(&self, program: &str) -> Result<()> {
        let Some(kind) = &self.kind else { bail!("only on the node of a kind cluster can a program be killed") };
        kind.on_node(&["pkill", "-KILL", "-x", program])
    }

    /// Makes a namespace, and waits until pods may be made in it.
    pub(crate) fn make_namespace(&self, namespace: &str) -> Result<()> {
        self.admin.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
        let admin = self.admin.in_namespace(namespace);
        let made = || Ok(admin.ok(&["get", "serviceaccount", "default"]).ok());
        wait_for("the default service account", NAMESPACE_MAX, made).map(drop)
    }

    /// Works in `namespace` from here on.
    pub(crate) fn settle(&mut self, namespace: &str) {
        self.admin = self.admin.in_namespace(namespace);
    }

    /// Applies an object.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.admin.ok_with(&["apply", "-f", "-"], object.to_string().as_bytes()).map(drop)
    }

    /// Makes a Secret, or gives it another content.
    pub fn set_secret(&self, name: &str, kind: &str, content: &[(&str, &str)]) -> Result<()> {
        let data: serde_json::Map<_, _> = content.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": data,
        }))
    }

    /// Installs a chart of this repository as `release`, or upgrades it, and waits until it is ready.
    pub fn helm_upgrade(&self, release: &str, chart: &str, values: &Value) -> Result<()> {
        let file = self.dir.join(format!("{release}.values.json"));
        fs::write(&file, format!("{values:#}"))?;
        let (chart, file) = (chart_dir(chart), file.display().to_string());
        self.helm(&["upgrade", "--install", release, &chart, "-f", &file, "--wait", "--timeout", HELM_WAIT]).map(drop)
    }

    /// Runs helm and gives what it says.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.arg("--kubeconfig").arg(self.admin.kubeconfig()).args(["--namespace", self.admin.namespace()]).args(args);
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            command.env(name, self.dir.join("helm").join(folder));
        }
        let output = call(command, b"")?;
        ensure!(output.code == Some(0), "helm {}: {}{}", args.join(" "), output.text(), output.stderr);
        Ok(output.text())
    }

    /// The address at which other clusters reach its nodes.
    pub fn node_addr(&self) -> Result<String> {
        let nodes = self.admin.json(&["get", "nodes"])?;
        let addresses = nodes["items"][0]["status"]["addresses"].as_array().context("a node without addresses")?;
        let internal = addresses.iter().find(|address| address["type"] == "InternalIP").context("a node without an address")?;
        internal["address"].as_str().map(str::to_owned).context("a node's address")
    }

    /// Nothing passes between its pods and `address`, and nobody is told, until the fault is dropped.
    pub fn cut(&self, address: &str) -> Result<Fault> {
        let Some(kind) = &self.kind else { bail!("only the node of a kind cluster can be cut off") };
        let node = kind.node();
        let rules = ["-s", "-d"].map(|side| ["FORWARD", side, address, "-j", "DROP"].map(str::to_owned));
        for rule in &rules {
            let rule = rule.each_ref().map(String::as_str);
            kind.on_node(&[&["iptables", "-I"], &rule[..]].concat())?;
        }
        Ok(Fault::new(move || {
            for rule in &rules {
                let rule = rule.each_ref().map(String::as_str);
                if let Err(error) = on_node(&node, &[&["iptables", "-D"], &rule[..]].concat()) {
                    eprintln!("a cut stays: {error:#}");
                }
            }
        }))
    }

    /// The running pods of a release: name, uid and restarts, which stay as they are while no pod restarts.
    pub fn pods(&self, release: &str) -> Result<Vec<(String, String, u64)>> {
        let label = format!("app.kubernetes.io/instance={release}");
        let found = self.admin.json(&["get", "pods", "-l", &label])?;
        let items = found["items"].as_array().context("a list of pods")?;
        let alive = items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let alive = alive.filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(alive
            .map(|pod| {
                let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
                (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]), restarts)
            })
            .collect())
    }

    /// Lets the kubelet bring changed Secrets and ConfigMaps to the pods of a release now, and not within a minute or two: it looks
    /// after the volumes of a pod whenever the pod's object changes.
    pub fn hasten_volumes(&self, release: &str) -> Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let note = format!("postern-e2e/looked-at={}", COUNT.fetch_add(1, Ordering::Relaxed));
        let label = format!("app.kubernetes.io/instance={release}");
        self.admin.ok(&["annotate", "pods", "--overwrite", "-l", &label, &note]).map(drop)
    }
}

/// The chart of this repository, or one of the folder that `E2E_CHARTS` names.
fn chart_dir(chart: &str) -> String {
    let folder = std::env::var("E2E_CHARTS").ok().filter(|folder| !folder.is_empty());
    format!("{}/{chart}", folder.as_deref().unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../charts")))
}
