//! Registration in Argo CD at a real API server, by an account with the rights that the reference names and no others.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Kubectl, Process, Scene, Suite, free_addr, get, product, requirement, wait_for};
use serde_json::{Value, json};

/// Where Argo CD would have its Secrets.
const NAMESPACE: &str = "argocd";

/// What the reference says is needed.
const VERBS: &str = "--verb=get,list,create,patch,delete";

/// A look at a file, a second in which changes are gathered, and a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What others did shows at the next list.
const LISTED: Duration = Duration::from_secs(90);

/// The shortest retention that a server takes, and a list.
const RETAINED: Duration = Duration::from_secs(300 + 90);

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &Scene) {
    let mut hub = None;
    let began = suite.must("a server registers its clusters with the rights of the reference", || {
        hub = Some(Hub::start(scene)?);
        Ok(())
    });
    let Some(hub) = hub.filter(|_| began) else { return };
    suite.step("a Secret is what Argo CD reads", || hub.reads());
    suite.step("labels follow the file, and what a person added stays", || hub.follows());
    suite.step("a Secret that somebody else made is left alone", || hub.leaves_alone());
    suite.step("rights that are taken away are told, and nothing is lost", || hub.is_refused());
    if requirement::everything() {
        // Five minutes at least.
        suite.step("a cluster that left the file is deleted once its retention is over", || hub.deletes());
    }
    eprintln!("{}", hub.server.log_tail(20));
}

/// A server without agents.
struct Hub {
    admin: Kubectl,
    clusters: PathBuf,
    internal: SocketAddr,
    server: Process,
}

impl Hub {
    fn start(scene: &Scene) -> Result<Self> {
        let admin = scene.upstream.admin.in_namespace(NAMESPACE);
        admin.ok(&["create", "namespace", NAMESPACE])?;
        admin.ok(&["create", "serviceaccount", "postern-server"])?;
        let token = admin.ok(&["create", "token", "postern-server"])?;
        let token_path = scene.dir().join("registration.token");
        fs::write(&token_path, token)?;
        let (clusters, internal) = (scene.dir().join("registered.json"), free_addr()?);
        list(&clusters, &[("edge-1", json!({ "env": "prod" })), ("Odd One", json!({}))])?;
        let mut command = Command::new(product("postern-server")?);
        command
            .args(["--addr", &free_addr()?.to_string(), "--internal-addr", &internal.to_string(), "--clusters"])
            .arg(&clusters);
        command.args(["--argocd-namespace", NAMESPACE, "--argocd-url", "http://hub.example:8080", "--argocd-retention", "5m"]);
        command.arg("--argocd-api-server").arg(&scene.upstream.target).arg("--argocd-api-ca-cert").arg(&scene.upstream.ca);
        command.arg("--argocd-api-token-path").arg(&token_path);
        let mut server = Process::start(scene.dir(), "registering-server", command)?;
        // Until there is a Role it is refused, and says so.
        server.wait_for_line("registration in Argo CD fails", SOON)?;
        bind(&admin, VERBS)?;
        server.wait_for_line("registration in Argo CD works again", LISTED)?;
        Ok(Self { admin, clusters, internal, server })
    }

    fn reads(&self) -> Result<()> {
        let secret = self.secret("postern-cluster-edge-1")?.context("edge-1 is not registered")?;
        ensure!(secret["metadata"]["labels"]["argocd.argoproj.io/secret-type"] == "cluster", "{secret}");
        ensure!(secret["metadata"]["labels"]["env"] == "prod", "{secret}");
        ensure!(plain(&secret, "name")? == "edge-1" && plain(&secret, "server")? == "http://hub.example:8080/tunnel/edge-1");
        ensure!(plain(&secret, "config")? == r#"{"tlsClientConfig":{"insecure":true}}"#, "{secret}");
        let odd = self.secret("postern-cluster-odd-one")?.context("the odd one is not registered")?;
        ensure!(plain(&odd, "server")? == "http://hub.example:8080/tunnel/Odd%20One", "{odd}");
        self.metric("argocd_secrets{state=\"registered\"} 2", SOON)?;
        self.metric("argocd_secret_writes_total{verb=\"create\"} 2", SOON)
    }

    fn follows(&self) -> Result<()> {
        self.admin.ok(&["label", "secret", "postern-cluster-edge-1", "team=payments"])?;
        // The odd one's retention begins here.
        list(&self.clusters, &[("edge-1", json!({ "tier": "1" }))])?;
        let labels = wait_for("the labels of the file", SOON, || {
            let secret = self.secret("postern-cluster-edge-1")?.context("it is gone")?;
            Ok(Some(secret["metadata"]["labels"].clone()).filter(|labels| labels["tier"] == "1"))
        })?;
        ensure!(labels["env"].is_null() && labels["team"] == "payments", "{labels}");
        self.metric("argocd_secrets{state=\"removed\"} 1", SOON)
    }

    fn leaves_alone(&self) -> Result<()> {
        self.admin.ok(&["create", "secret", "generic", "postern-cluster-edge-3", "--from-literal=server=theirs"])?;
        let before = self.secret("postern-cluster-edge-3")?;
        list(&self.clusters, &[("edge-1", json!({ "tier": "1" })), ("edge-3", json!({}))])?;
        self.metric("argocd_secrets{state=\"taken\"} 1", SOON)?;
        ensure!(self.secret("postern-cluster-edge-3")? == before);
        ensure!(self.server.log().contains("its Secret's name is taken"), "{}", self.server.log());
        Ok(())
    }

    fn deletes(&self) -> Result<()> {
        wait_for("the deletion", RETAINED, || Ok(self.secret("postern-cluster-odd-one")?.is_none().then_some(())))?;
        ensure!(self.secret("postern-cluster-edge-1")?.is_some() && self.secret("postern-cluster-edge-3")?.is_some());
        self.metric("argocd_secret_writes_total{verb=\"delete\"} 1", SOON)
    }

    fn is_refused(&self) -> Result<()> {
        bind(&self.admin, "--verb=get,list,delete")?;
        list(&self.clusters, &[("edge-1", json!({ "tier": "2" })), ("edge-4", json!({}))])?;
        self.metric("argocd_registration_failing 1", SOON)?;
        let told = "cannot create resource \\\"secrets\\\"";
        ensure!(self.server.log().contains(told), "{}", self.server.log());
        ensure!(self.secret("postern-cluster-edge-1")?.is_some());
        bind(&self.admin, VERBS)?;
        self.metric("argocd_registration_failing 0", LISTED)?;
        ensure!(self.secret("postern-cluster-edge-4")?.is_some());
        Ok(())
    }

    fn secret(&self, name: &str) -> Result<Option<Value>> {
        let found = self.admin.ok(&["get", "secret", name, "--ignore-not-found", "-o", "json"])?;
        Ok(if found.trim().is_empty() { None } else { Some(serde_json::from_str(&found)?) })
    }

    fn metric(&self, line: &str, limit: Duration) -> Result<()> {
        wait_for(line, limit, || Ok(get(self.internal, "/metrics")?.text().lines().any(|has| has == line).then_some(())))
    }
}

/// Gives the server's account these verbs on the Secrets of the namespace, and no others.
fn bind(admin: &Kubectl, verbs: &str) -> Result<()> {
    admin.run(&["delete", "role,rolebinding", "postern-server", "--ignore-not-found"], b"")?;
    admin.ok(&["create", "role", "postern-server", verbs, "--resource=secrets"])?;
    let subject = format!("--serviceaccount={NAMESPACE}:postern-server");
    admin.ok(&["create", "rolebinding", "postern-server", "--role=postern-server", &subject]).map(drop)
}

/// Puts a clusters file in place; one with a blank in its id has an alias.
fn list(path: &Path, clusters: &[(&str, Value)]) -> Result<()> {
    let entry = |(id, labels): &(&str, Value)| {
        let alias = id.to_lowercase().replace(' ', "-");
        json!({ "id": id, "alias": alias, "token": format!("token-{id}"), "labels": labels })
    };
    let next = path.with_extension("next");
    fs::write(&next, json!(clusters.iter().map(entry).collect::<Vec<_>>()).to_string())?;
    fs::rename(&next, path).context("the clusters file")
}

fn plain(secret: &Value, key: &str) -> Result<String> {
    use base64::Engine;
    let text = secret["data"][key].as_str().with_context(|| format!("no data.{key} in {secret}"))?;
    Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text)?)?)
}
