//! First contact: two charts installed, and what Argo CD and people find then.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::{CLUSTER_ID, SERVER, Shipped, get, wait_for};
use serde_json::{Value, json};

use crate::Stage;

/// For what takes a program a moment, on two cores that run two clusters.
const SOON: Duration = Duration::from_secs(30);

/// Objects of one `kubectl apply`: what a large application has.
const N_OBJECTS: usize = 500;

/// Objects that one of several kubectl applies: each stays below the burst (300) after which it slows itself down.
const N_SIDES: usize = 4;

/// Runs all of it; tells whether anything else can.
pub(crate) fn run(stage: &mut Stage, all: bool) -> bool {
    let installed = stage.must("helm installs the server", Shipped::upgrade_server)
        && stage.must("helm installs the agent", |shipped| shipped.upgrade_agent())
        && stage.must("a first request goes all the way round", first_request)
        && stage.must("Argo CD's part lists and watches all kinds", |shipped| shipped.start_caller());
    if !installed {
        return false;
    }
    stage.step("Argo CD's Secret leads to the cluster", argocd_secret);
    stage.step("the server's own kubeconfig leads to the cluster", own_kubeconfig);
    stage.step("apply of 500 objects", apply);
    if all {
        stage.step("get, list and what is not there", reads);
    }
    true
}

fn first_request(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let direct: Value = serde_json::from_str(&shipped.edge.admin.raw("/version")?)?;
    let through: Value = serde_json::from_str(&way.kubectl.raw("/version")?)?;
    ensure!(direct == through, "{through} instead of {direct}");
    state(way.port, CLUSTER_ID, "healthy")
}

/// Waits until the list of clusters says so of one.
pub(crate) fn state(port: u16, cluster: &str, wanted: &str) -> Result<()> {
    state_within(SOON, port, cluster, wanted)
}

/// The same for as long as it may take.
pub(crate) fn state_within(limit: Duration, port: u16, cluster: &str, wanted: &str) -> Result<()> {
    let told = || {
        let text = get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "/clusters")?.text();
        let told: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let found = told["clusters"].as_array().into_iter().flatten().find(|found| found["id"] == cluster).cloned();
        Ok(found.filter(|found| found["state"] == wanted))
    };
    wait_for(&format!("{cluster} to be {wanted}"), limit, told).map(drop)
}

/// By TLS with the certificate and the authority that are in it, at the address that is in it.
pub(crate) fn argocd_secret(shipped: &mut Shipped) -> Result<()> {
    let hub = shipped.hub.admin.in_namespace(shipped.argocd_namespace());
    leads_to_the_cluster(shipped, &hub.json(&["get", "secret", &format!("{SERVER}-cluster-{CLUSTER_ID}")])?)
}

/// Whether Argo CD would get through with this Secret.
pub(crate) fn leads_to_the_cluster(shipped: &Shipped, secret: &Value) -> Result<()> {
    let label = &secret["metadata"]["labels"]["argocd.argoproj.io/secret-type"];
    ensure!(label == "cluster", "its label is {label}");
    let field = |name: &str| -> Result<String> {
        let encoded = secret["data"][name].as_str().with_context(|| format!("no {name}"))?;
        Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
    };
    let (server, config) = (field("server")?, serde_json::from_str::<Value>(&field("config")?)?);
    let (address, path) = server.strip_prefix("https://").and_then(|rest| rest.split_once('/')).context(server.clone())?;
    ensure!(path == format!("tunnel/{CLUSTER_ID}"), "it leads to {server}");
    let name = address.split(':').next().unwrap_or_default();
    ensure!(name.starts_with(&format!("{SERVER}-internal.{}", shipped.hub.admin.namespace())), "it leads to {server}");
    let tls = &config["tlsClientConfig"];
    ensure!(tls["insecure"] != true, "it trusts anybody");
    // As Argo CD is not here to resolve the Service's name, the way to it is, and the name is asked for in the handshake.
    let way = shipped.way()?;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it", "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {
            "server": format!("https://127.0.0.1:{}/{path}", way.port), "tls-server-name": name,
            "certificate-authority-data": tls["caData"],
        }}],
        "users": [{"name": "it", "user": {"client-certificate-data": tls["certData"], "client-key-data": tls["keyData"]}}],
    });
    let file = shipped.dir().join("argocd.kubeconfig");
    std::fs::write(&file, kubeconfig.to_string())?;
    let kubectl = e2e::Kubectl::new(way.kubectl.program(), &file, "").in_namespace(way.kubectl.namespace());
    ensure!(kubectl.ok(&["get", "pods", "-o", "name"])?.contains("pod/web-0"), "the agent's namespace has no pod web-0");
    Ok(())
}

/// What README.md tells people to do.
fn own_kubeconfig(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let deployment = format!("deployment/{SERVER}");
    let url = format!("http://127.0.0.1:{}", way.port);
    let printed =
        shipped.hub.admin.ok(&["exec", &deployment, "--", "/postern-server", "kubeconfig", CLUSTER_ID, "--url", &url])?;
    let file = shipped.dir().join("printed.kubeconfig");
    std::fs::write(&file, printed)?;
    let kubectl = e2e::Kubectl::new(way.kubectl.program(), &file, "").in_namespace(way.kubectl.namespace());
    ensure!(kubectl.ok(&["get", "pods", "-o", "name"])?.contains("pod/web-0"), "the agent's namespace has no pod web-0");
    Ok(())
}

fn reads(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let list = |kubectl: &e2e::Kubectl| kubectl.ok(&["get", "configmaps,secrets,services", "-A", "-o", "name"]);
    let (through, direct) = (list(&way.kubectl)?, list(&shipped.edge.admin)?);
    ensure!(through == direct, "through the tunnel:\n{through}\ndirect:\n{direct}");
    let missing = way.kubectl.run(&["get", "configmap", "no-such"], b"")?;
    ensure!(missing.code == Some(1) && missing.stderr.contains("NotFound"), "{missing:?}");
    let nowhere = get(SocketAddr::from((Ipv4Addr::LOCALHOST, way.port)), "/tunnel/no-such-cluster/version")?;
    // As the servers of the field answer.
    ensure!(nowhere.status == 502 && nowhere.text().contains("no-such-cluster"), "{}: {}", nowhere.status, nowhere.text());
    Ok(())
}

fn apply(shipped: &mut Shipped) -> Result<()> {
    let way = shipped.way()?;
    let side = |side: usize| {
        let numbers = (side * N_OBJECTS / N_SIDES)..((side + 1) * N_OBJECTS / N_SIDES);
        let items: Vec<_> = numbers.map(object).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        way.kubectl.ok_with(&["apply", "--validate=false", "-o", "name", "-f", "-"], list.as_bytes())
    };
    let n_applied = thread::scope(|scope| {
        let sides: Vec<_> = (0..N_SIDES).map(|n| scope.spawn(move || side(n))).collect();
        sides.into_iter().try_fold(0, |n, side| {
            let said = side.join().unwrap_or_else(|_| bail!("a side panicked"))?;
            anyhow::Ok(n + said.lines().count())
        })
    })?;
    ensure!(n_applied == N_OBJECTS, "{n_applied} objects were applied");
    let found = shipped.edge.admin.ok(&["get", "configmaps", "-l", "e2e=applied", "-o", "name"])?;
    ensure!(found.lines().count() == N_OBJECTS, "{} objects are there", found.lines().count());
    // One request: kubectl would ask for each, five times a second.
    let home = format!("/api/v1/namespaces/{}/configmaps", shipped.edge.admin.namespace());
    way.kubectl.ok(&["delete", "--raw", &format!("/tunnel/{CLUSTER_ID}{home}?labelSelector=e2e%3Dapplied")])?;
    let left = shipped.edge.admin.ok(&["get", "configmaps", "-l", "e2e=applied", "-o", "name"])?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

fn object(n: usize) -> Value {
    let meta = json!({"name": format!("applied-{n:03}"), "labels": {"e2e": "applied"}});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": n.to_string()}})
}
