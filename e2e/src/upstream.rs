//! What stands behind an agent: the fake API server, a real one, or a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::apiserver::ApiServer;
use crate::cluster::{AgentAccount, KindCluster, Source};
use crate::kubectl::Kubectl;
use crate::pair::write_certs;
use crate::process::{Process, free_addr};
use crate::{kubeconfig, product};

/// The fake is one small process.
const FAKE_READY_MAX: Duration = Duration::from_secs(20);

/// The bearer token that the fake wants to see.
const FAKE_TOKEN: &str = "end-to-end-fake";

/// How much an upstream can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `postern-sim apiserver`.
    Fake,
    /// kube-apiserver and etcd: all of the API, no pods.
    ApiServer,
    /// Nodes, pods, controllers.
    Cluster,
}

/// A running upstream: how an agent reaches it, and how its admin does.
pub struct Upstream {
    /// How much it can do.
    pub kind: Kind,
    /// `HOST:PORT` of the API server.
    pub target: String,
    /// The CA of its certificate.
    pub ca: PathBuf,
    /// The agent's bearer token.
    pub token: PathBuf,
    /// Asks it directly, as admin.
    pub admin: Kubectl,
    // Dropped in this order: the account is removed while its API server still answers.
    _account: Option<AgentAccount>,
    processes: Vec<Process>,
    _kind_cluster: Option<KindCluster>,
}

impl Upstream {
    /// Starts the fake API server with a certificate of the pair's authority.
    pub fn fake(kubectl: &Path, dir: &Path) -> Result<Self> {
        write_certs(&dir.join("certs"), &[])?;
        let certs = dir.join("certs");
        let token = dir.join("fake.token");
        fs::write(&token, FAKE_TOKEN)?;
        let addr = free_addr()?;
        let mut command = Command::new(product("postern-sim")?);
        command.args(["apiserver", "--addr", &addr.to_string(), "--cert"]).arg(certs.join("apiserver.pem"));
        command.arg("--key").arg(certs.join("apiserver.key")).arg("--token-file").arg(&token);
        let mut process = Process::start(dir, "apiserver", command)?;
        let config = dir.join("admin.kubeconfig");
        let ca = certs.join("ca.pem");
        kubeconfig::write(&config, &format!("https://{addr}"), &fs::read_to_string(&ca)?, FAKE_TOKEN)?;
        let admin = Kubectl::new(kubectl, &config, "");
        process.wait_until("an answer", FAKE_READY_MAX, |_| admin.raw("/version").ok())?;
        let target = addr.to_string();
        Ok(Self { kind: Kind::Fake, target, ca, token, admin, _account: None, processes: vec![process], _kind_cluster: None })
    }

    /// Starts kube-apiserver from `assets`, with `flags` more.
    pub fn api_server(assets: &Path, kubectl: &Path, dir: &Path, flags: &[&str]) -> Result<Self> {
        let ApiServer { addr, ca_pem, admin, processes } = ApiServer::start(assets, kubectl, dir, flags)?;
        let (account, token) = AgentAccount::create(&admin)?;
        let (ca, token) = agent_files(dir, ca_pem.as_bytes(), &token)?;
        let target = addr.to_string();
        Ok(Self { kind: Kind::ApiServer, target, ca, token, admin, _account: Some(account), processes, _kind_cluster: None })
    }

    /// Takes a cluster, or makes one.
    pub fn cluster(source: &Source, kubectl: &Path, dir: &Path) -> Result<Self> {
        let (kubeconfig, kind_cluster) = match source {
            Source::Given(kubeconfig) => (kubeconfig.clone(), None),
            Source::Kind { image } => {
                let kubeconfig = dir.join("kind.kubeconfig");
                let cluster = KindCluster::create(image.as_deref(), &kubeconfig)?;
                (kubeconfig, Some(cluster))
            }
        };
        // A copy: kubectl keeps its cache beside the kubeconfig.
        let given =
            Kubectl::new(kubectl, &kubeconfig, "").ok(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])?;
        let config = dir.join("admin.kubeconfig");
        fs::write(&config, &given)?;
        let admin = Kubectl::new(kubectl, &config, "");
        let (target, ca_pem) = kubeconfig::endpoint(&serde_json::from_str(&given).context("kubeconfig")?)?;
        let (account, token) = AgentAccount::create(&admin)?;
        let (ca, token) = agent_files(dir, &ca_pem, &token)?;
        let kind = Kind::Cluster;
        Ok(Self { kind, target, ca, token, admin, _account: Some(account), processes: Vec::new(), _kind_cluster: kind_cluster })
    }

    /// The ends of the logs of its processes.
    pub fn log_tails(&self) -> String {
        self.processes.iter().map(|process| process.log_tail(20)).collect()
    }
}

fn agent_files(dir: &Path, ca_pem: &[u8], token: &str) -> Result<(PathBuf, PathBuf)> {
    let (ca, token_file) = (dir.join("upstream-ca.pem"), dir.join("agent.token"));
    fs::write(&ca, ca_pem)?;
    fs::write(&token_file, token)?;
    Ok((ca, token_file))
}
