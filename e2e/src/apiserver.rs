//! A real kube-apiserver with its etcd, run from `KUBEBUILDER_ASSETS` the way envtest runs them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::kubeconfig;
use crate::kubectl::Kubectl;
use crate::process::{Process, free_addr};

/// It is ready within 8 s when nothing else runs; a busy machine with two cores takes several times that.
const READY_MAX: Duration = Duration::from_secs(120);

/// The admin's bearer token; it opens one loopback port for the length of a test.
const ADMIN_TOKEN: &str = "end-to-end-admin";

/// A running API server; ends with this value.
pub(crate) struct ApiServer {
    pub(crate) addr: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) admin: Kubectl,
    pub(crate) processes: Vec<Process>,
}

impl ApiServer {
    /// Starts etcd and kube-apiserver (with `flags` more) from `assets` with all their files in `dir`, and waits until it is ready.
    pub(crate) fn start(assets: &Path, kubectl: &Path, dir: &Path, flags: &[&str]) -> Result<Self> {
        let etcd_addr = free_addr()?;
        let etcd = Process::start(dir, "etcd", etcd(assets, dir, etcd_addr)?)?;
        let ca_pem = write_material(dir)?;
        let addr = free_addr()?;
        let mut command = kube_apiserver(assets, dir, etcd_addr, addr);
        command.args(flags);
        let mut apiserver = Process::start(dir, "kube-apiserver", command)?;
        let config = dir.join("admin.kubeconfig");
        kubeconfig::write(&config, &format!("https://{addr}"), &ca_pem, ADMIN_TOKEN)?;
        let admin = Kubectl::new(kubectl, &config, "");
        apiserver.wait_until("readiness", READY_MAX, |_| admin.raw("/readyz").ok().filter(|answer| answer == "ok"))?;
        let processes = vec![apiserver, etcd];
        Ok(Self { addr, ca_pem, admin, processes })
    }
}

fn etcd(assets: &Path, dir: &Path, addr: SocketAddr) -> Result<Command> {
    let url = format!("http://{addr}");
    let mut command = Command::new(assets.join("etcd"));
    command.arg(format!("--data-dir={}", dir.join("etcd-data").display()));
    command.args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")]);
    command.args([format!("--listen-peer-urls=http://{}", free_addr()?), "--unsafe-no-fsync".to_owned()]);
    Ok(command)
}

fn kube_apiserver(assets: &Path, dir: &Path, etcd: SocketAddr, addr: SocketAddr) -> Command {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut command = Command::new(assets.join("kube-apiserver"));
    command.args([
        format!("--etcd-servers=http://{etcd}"),
        format!("--bind-address={}", addr.ip()),
        format!("--advertise-address={}", addr.ip()),
        format!("--secure-port={}", addr.port()),
        format!("--tls-cert-file={}", file("apiserver.pem")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--cert-dir={}", file("certs")),
        format!("--token-auth-file={}", file("tokens.csv")),
        format!("--service-account-key-file={}", file("service-account.pub")),
        format!("--service-account-signing-key-file={}", file("service-account.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // No controller manager runs here that would make the tokens this admission waits for.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]);
    command
}

/// Writes certificate, keys and admin token; gives the CA.
fn write_material(dir: &Path) -> Result<String> {
    let ca_key = KeyPair::generate()?;
    let mut ca_params = CertificateParams::default();
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = ca_params.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = CertificateParams::new(names)?.signed_by(&key, &Issuer::new(ca_params, ca_key))?;
    fs::write(dir.join("apiserver.pem"), cert.pem())?;
    fs::write(dir.join("apiserver.key"), key.serialize_pem())?;
    // As two files: older API servers do not find the public half in a PKCS #8 key.
    let accounts = KeyPair::generate()?;
    fs::write(dir.join("service-account.key"), accounts.serialize_pem())?;
    fs::write(dir.join("service-account.pub"), accounts.public_key_pem())?;
    fs::write(dir.join("tokens.csv"), format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"))?;
    Ok(ca.pem())
}
