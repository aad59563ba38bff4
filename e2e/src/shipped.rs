//! What is shipped, on two clusters: images and charts, installed by helm, with certificates of an authority of our own.
//!
//! ```text
//!   hub                                                    edge
//!   argocd (the caller of sim) ──▶ server-internal         agent ──▶ kubernetes.default.svc
//!   kubectl ── port-forward ─────▶ server ◀── NodePort ──────┘
//! ```

mod authority;
mod caller;
mod census;
mod evidence;
mod place;
mod policy;
mod way;

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Source;
use crate::image::Images;
use crate::pair::CLUSTER_ID;
use crate::requirement::switched_on;

pub use authority::Authority;
pub use caller::{ASKED, Counts};
pub use census::Census;
pub use place::Place;
pub use policy::allows;
pub use way::Way;

/// The release of the server, and so the name of its objects.
pub const SERVER: &str = "proxy-server";

/// The release of the agent.
pub const AGENT: &str = "proxy-agent";

/// The agent's first token.
pub(crate) const TOKEN: &str = "end-to-end-shipped-token";

/// How long what runs may go on after an upgrade: the caller's watches do for all of it, and nobody wants to wait half a minute.
const DRAIN: &str = "10s";

/// How things are called that would otherwise be in somebody's way.
#[derive(Debug, Clone)]
pub struct Names {
    /// What the two kind clusters' names begin with.
    pub clusters: String,
    /// The namespace of the server in the hub and of the agent in the edge.
    pub namespace: String,
    /// The namespace of Argo CD in the hub.
    pub argocd: String,
}

impl Names {
    /// Those of this process alone.
    pub fn of_this_process() -> Self {
        let name = format!("postern-e2e-{}", std::process::id());
        Self { clusters: name.clone(), namespace: name.clone(), argocd: format!("{name}-argocd") }
    }

    /// Those that documents use, for a pair that people look at.
    pub fn for_people() -> Self {
        Self { clusters: "postern-dev".to_owned(), namespace: "proxy-system".to_owned(), argocd: "argocd".to_owned() }
    }

    /// The names of the kind clusters.
    pub fn kind_clusters(&self) -> [String; 2] {
        ["hub", "edge"].map(|role| format!("{}-{role}", self.clusters))
    }
}

/// A hub and an edge. Taken down when dropped: kind clusters are deleted, namespaces of given clusters too.
pub struct Shipped {
    /// Where the server is.
    pub hub: Place,
    /// Where the agent is.
    pub edge: Place,
    /// What has signed the certificates in the Secrets.
    pub authority: Authority,
    /// The values of the server's chart.
    pub server_values: Value,
    /// The values of the agent's chart.
    pub agent_values: Value,
    /// What there was in hub and edge before anything was installed.
    pub before: (Census, Census),
    names: Names,
    images: Images,
    hub_addr: String,
    dir: TempDir,
}

impl Shipped {
    /// Takes or makes two clusters with images, namespaces and Secrets; nothing is installed yet. `tell` hears of each step.
    pub fn prepare(
        sources: &(Source, Source),
        (kubectl, helm): (&Path, &Path),
        (names, images): (Names, Images),
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
        let take = |role: &str, source: &Source, wanted: &[&str]| {
            let place = Place::take(source, &format!("{}-{role}", names.clusters), (kubectl, helm), &dir.path().join(role))?;
            tell(&format!("{role}: the cluster is there"));
            if place.is_ours() {
                place.load(wanted)?;
                tell(&format!("{role}: it has the images"));
            }
            anyhow::Ok(place)
        };
        // Side by side: each mostly waits for its own processes.
        let (hub, edge) = thread::scope(|scope| {
            let hub = scope.spawn(|| take("hub", &sources.0, &[&images.server, &images.sim]));
            let edge = take("edge", &sources.1, &[&images.agent]);
            (hub.join().unwrap_or_else(|_| Err(anyhow!("making the hub panicked"))), edge)
        });
        let (mut hub, mut edge) = (hub.context("the hub")?, edge.context("the edge")?);
        let hub_addr = std::env::var("E2E_HUB_ADDR").ok().filter(|addr| !addr.is_empty());
        let hub_addr = hub_addr.map_or_else(|| hub.node_addr(), Ok)?;
        hub.make_namespace(&names.namespace)?;
        hub.make_namespace(&names.argocd)?;
        edge.make_namespace(&names.namespace)?;
        hub.settle(&names.namespace);
        edge.settle(&names.namespace);
        let authority = Authority::new("postern-e2e")?;
        let (server_values, agent_values) = (server_values(&names, &images), agent_values(&images, &hub_addr));
        let before = (Census::default(), Census::default());
        let mut shipped = Self { hub, edge, authority, server_values, agent_values, before, names, images, hub_addr, dir };
        shipped.give_certificates(&shipped.authority, &shipped.authority.pem)?;
        shipped.give_argocd_a_certificate()?;
        tell("certificates are in their Secrets");
        shipped.before = (Census::take(&shipped.hub)?, Census::take(&shipped.edge)?);
        Ok(shipped)
    }

    /// Replaces all four Secrets: certificates that `authority` signs, and `trusted` as what both ends trust.
    pub fn give_certificates(&self, authority: &Authority, trusted: &str) -> Result<()> {
        let service = |name: &str| format!("{name}.{}.svc", self.names.namespace);
        let names = [service(SERVER), service(&format!("{SERVER}-internal")), self.hub_addr.clone(), "localhost".to_owned()];
        let (server, agent) = (authority.server(&names)?, authority.client(CLUSTER_ID)?);
        let tls = "kubernetes.io/tls";
        self.hub.set_secret("proxy-server-tls", tls, &[("tls.crt", &server.certificate), ("tls.key", &server.key)])?;
        self.hub.set_secret("proxy-ca", "Opaque", &[("ca.crt", trusted)])?;
        self.edge.set_secret("proxy-client-tls", tls, &[("tls.crt", &agent.certificate), ("tls.key", &agent.key)])?;
        self.edge.set_secret("proxy-server-ca", "Opaque", &[("ca.crt", trusted)])
    }

    /// Puts into the server's values what Argo CD shows and trusts, as the authority of this moment signs it.
    pub fn give_argocd_a_certificate(&mut self) -> Result<()> {
        let client = self.authority.client("argocd")?;
        for (key, pem) in
            [("caData", &self.authority.pem), ("clientCertData", &client.certificate), ("clientKeyData", &client.key)]
        {
            self.server_values["argocd"][key] = BASE64_STANDARD.encode(pem).into();
        }
        Ok(())
    }

    /// Installs the server as its values say, or upgrades it; the agent is told where it is.
    pub fn upgrade_server(&mut self) -> Result<()> {
        self.hub.helm_upgrade(SERVER, "server", &self.server_values)?;
        if self.agent_values["serverURL"].is_null() {
            let addr = std::env::var("E2E_HUB_URL").ok().filter(|url| !url.is_empty());
            let url = addr.map_or_else(|| Ok(format!("wss://{}:{}/connect", self.hub_addr, self.node_port()?)), anyhow::Ok)?;
            self.agent_values["serverURL"] = url.into();
        }
        Ok(())
    }

    /// Installs the agent as its values say, or upgrades it.
    pub fn upgrade_agent(&self) -> Result<()> {
        self.edge.helm_upgrade(AGENT, "agent", &self.agent_values)
    }

    /// A way for kubectl through the tunnel, which lasts as long as the server's pod that serves now.
    pub fn way(&self) -> Result<Way> {
        self.way_at(0)
    }

    /// The same at a port of this machine; 0 takes any free one.
    pub fn way_at(&self, port: u16) -> Result<Way> {
        Way::open(&self.hub, &self.edge, self.dir.path(), port)
    }

    /// The namespace of Argo CD in the hub.
    pub fn argocd_namespace(&self) -> &str {
        &self.names.argocd
    }

    /// The images in use.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The address at which agents reach the hub's nodes.
    pub fn hub_addr(&self) -> &str {
        &self.hub_addr
    }

    /// The port there that leads to the server's public listener.
    pub fn node_port(&self) -> Result<u16> {
        let service = self.hub.admin.json(&["get", "service", SERVER])?;
        let ports = service["spec"]["ports"].as_array().context("a Service without ports")?;
        let port = ports.first().and_then(|port| port["nodePort"].as_u64()).context("the Service has no node port")?;
        Ok(port.try_into()?)
    }

    /// Where files and logs go.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes down all that may say why `what` failed; gives the folder.
    pub fn gather(&self, what: &str) -> Result<PathBuf> {
        evidence::gather(self, what)
    }
}

impl Drop for Shipped {
    fn drop(&mut self) {
        if switched_on("E2E_KEEP") {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}, with logs and kubeconfigs", self.dir().display());
            return;
        }
        for (place, release) in [(&self.edge, AGENT), (&self.hub, SERVER)] {
            if place.is_ours() {
                continue;
            }
            // A given cluster stays: what was made in it goes. What is gone already is no loss.
            let _ = place.helm(&["uninstall", release]);
            for namespace in [&self.names.namespace, &self.names.argocd] {
                let _ = place.admin.run(&["delete", "namespace", namespace, "--ignore-not-found", "--wait=false"], b"");
            }
        }
    }
}

fn server_values(names: &Names, images: &Images) -> Value {
    json!({
        "image": image(&images.server),
        "service": {"type": "NodePort"},
        "clusters": [{"id": CLUSTER_ID, "token": TOKEN}],
        "tls": {"enabled": true, "certSecret": "proxy-server-tls", "clientCASecret": "proxy-ca"},
        "argocd": {"enabled": true, "namespace": names.argocd},
        "networkPolicy": {"enabled": true},
        "pdb": {"enabled": true},
        "drain": DRAIN,
    })
}

fn agent_values(images: &Images, hub_addr: &str) -> Value {
    // A host's name says nothing to a policy, which then must let the agent go anywhere.
    let is_addr = hub_addr.parse::<std::net::IpAddr>().is_ok();
    let cidr = if hub_addr.contains(':') { format!("{hub_addr}/128") } else { format!("{hub_addr}/32") };
    json!({
        "image": image(&images.agent),
        "serverURL": null,
        "token": TOKEN,
        "tls": {"serverCASecret": "proxy-server-ca", "clientCertSecret": "proxy-client-tls"},
        "networkPolicy": {"enabled": is_addr, "proxyServerCIDR": cidr},
        "drain": DRAIN,
    })
}

/// An image's name as both charts' values have it.
fn image(name: &str) -> Value {
    let (repository, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((name, ""));
    json!({"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"})
}
