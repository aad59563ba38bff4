//! Who may be who: what a security team does while the world runs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;

use super::Story;
use crate::certs::Pem;
use crate::fabric::place_of;
use crate::host::Disk;
use crate::pki::{self, Issue};
use crate::world::{CLUSTERS_PATH, tunnel_token};

/// A token that no agent has.
const NOBODYS: &str = "nobodys";

/// What the hub's clusters file lists: clusters and their tokens.
pub(crate) struct Listed(Mutex<BTreeMap<String, Vec<String>>>);

impl Listed {
    /// Each cluster with the token of its agents, written to the hub's disk.
    pub(crate) fn new<'a>(clusters: impl Iterator<Item = &'a String>, hub: &Disk) -> Self {
        let listed = Self(Mutex::new(clusters.map(|id| (id.clone(), vec![tunnel_token(id)])).collect()));
        hub.write(CLUSTERS_PATH, listed.change(|_| {}).as_bytes());
        listed
    }

    /// The file's text after a change.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<String>>)) -> String {
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut clusters);
        let entries: Vec<_> = clusters.iter().map(|(id, tokens)| json!({ "id": id, "tokens": tokens })).collect();
        json!(entries).to_string()
    }
}

impl Story {
    /// The tokens of a cluster's agents are good no longer, until [`Story::admit`].
    pub fn revoke(&self, cluster: &str) {
        self.note(&format!("revoke {cluster}"));
        self.list_with(cluster, format!("{}{NOBODYS}", tunnel_token(cluster)));
    }

    /// The tokens of a cluster's agents are good again.
    pub fn admit(&self, cluster: &str) {
        self.note(&format!("admit {cluster}"));
        self.list_with(cluster, tunnel_token(cluster));
    }

    /// The hub's clusters file has a cluster no longer, until [`Story::enlist`].
    pub fn delist(&self, cluster: &str) {
        self.note(&format!("delist {cluster}"));
        self.list(|clusters| drop(clusters.remove(cluster)));
    }

    /// The hub's clusters file has a cluster again, with the token of its agents.
    pub fn enlist(&self, cluster: &str) {
        self.note(&format!("enlist {cluster}"));
        self.list_with(cluster, tunnel_token(cluster));
    }

    /// The hub accepts one more token of a cluster: both are good while agents change over.
    pub fn add_token(&self, cluster: &str, token: &str) {
        self.note(&format!("add a token of {cluster}"));
        self.list(|clusters| clusters.entry(cluster.to_owned()).or_default().push(token.to_owned()));
    }

    /// The hub accepts all tokens of a cluster but the last no longer.
    pub fn drop_old_tokens(&self, cluster: &str) {
        self.note(&format!("drop the old tokens of {cluster}"));
        self.list(|clusters| {
            let tokens = clusters.entry(cluster.to_owned()).or_default();
            tokens.drain(..tokens.len().saturating_sub(1));
        });
    }

    /// A machine gets another certificate with its key, both at once.
    pub fn certify(&self, machine: &str, pem: &Pem) {
        self.note(&format!("certify {machine}"));
        let disk = self.machine(machine).disk();
        disk.write(pki::CERT, pem.certificate.as_bytes());
        disk.write(pki::KEY, pem.key.as_bytes());
    }

    /// A machine believes these authorities and no others.
    pub fn trust(&self, machine: &str, authorities: &[&Issue]) {
        self.note(&format!("have {machine} trust {} authorities", authorities.len()));
        let bundle: String = authorities.iter().map(|issue| issue.ca.as_str()).collect();
        self.machine(machine).disk().write(pki::CA, bundle.as_bytes());
    }

    /// What the health listener of an agent, where `AgentConfig::health_addr` has it, answers its kubelet.
    pub async fn probe(&self, agent: &str, port: u16, path: &str) -> anyhow::Result<StatusCode> {
        let kubelet = self.stage().caller(&format!("{}/api", place_of(agent)));
        let (mut sender, connection) = http1::handshake(TokioIo::new(kubelet.dial(agent, port).await?)).await?;
        kubelet.spawn("probe", async move { drop(connection.await) });
        let request = Request::get(path).header(HOST, agent).body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?.status())
    }

    fn list_with(&self, cluster: &str, token: String) {
        self.list(|clusters| drop(clusters.insert(cluster.to_owned(), vec![token])));
    }

    fn list(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<String>>)) {
        let text = self.stage().listed.change(change);
        self.machine("hub/server").disk().write(CLUSTERS_PATH, text.as_bytes());
    }
}
