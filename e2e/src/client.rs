//! A caller of our own, on the Rust client for Kubernetes: paths to the byte, and exec over WebSocket.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::Kubectl;

/// A caller with the kubeconfig and namespace of a [`Kubectl`].
pub struct Client {
    runtime: Runtime,
    client: kube::Client,
    pods: Api<Pod>,
}

impl Client {
    /// Asks whom `kubectl` asks.
    pub fn new(kubectl: &Kubectl) -> Result<Self> {
        let runtime = Runtime::new()?;
        let client = runtime.block_on(connect(kubectl.kubeconfig()))?;
        let pods = Api::namespaced(client.clone(), kubectl.namespace());
        Ok(Self { runtime, client, pods })
    }

    /// GETs `path`, every byte of it as given: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.runtime.block_on(async {
            let answer = self.client.send(Request::get(path).body(Body::empty())?).await?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect_bytes().await?;
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        })
    }

    /// Whether exec settles on WebSocket v5 (v4 otherwise) when both are offered.
    pub fn exec_speaks_v5(&self, pod: &str) -> Result<bool> {
        self.runtime.block_on(async {
            let namespace = self.pods.namespace().context("no namespace")?;
            let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/exec?command=true&stdout=true");
            let connection = self.client.connect(Request::get(path).body(Vec::new())?).await?;
            Ok(connection.supports_stream_close())
        })
    }

    /// Runs `cat` in a pod and sends `message` through it `n_times`, each after the one before has come back.
    ///
    /// One at a time, because the client neither reads while it writes nor can it end the input in WebSocket v4.
    pub fn exec_echoes(&self, pod: &str, message: &[u8], n_times: u32) -> Result<()> {
        self.runtime.block_on(async {
            let mut process = self.pods.exec(pod, ["cat"], &AttachParams::default().stdin(true).stderr(false)).await?;
            let mut stdin = process.stdin().context("no stdin")?;
            let mut stdout = process.stdout().context("no stdout")?;
            for n in 0..n_times {
                let mut back = vec![0; message.len()];
                let (sent, received) = tokio::join!(stdin.write_all(message), stdout.read_exact(&mut back));
                sent.with_context(|| format!("send message {n}"))?;
                received.with_context(|| format!("receive message {n}"))?;
                ensure!(back == message, "message {n} came back different");
            }
            process.abort();
            Ok(())
        })
    }

    /// Runs a command in a pod: its standard output and the reason of its end (`None` after success).
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<(String, Option<String>)> {
        self.runtime.block_on(async {
            let mut process = self.pods.exec(pod, command.iter().copied(), &AttachParams::default().stderr(false)).await?;
            let mut said = String::new();
            process.stdout().context("no stdout")?.read_to_string(&mut said).await?;
            Ok((said, end(process).await?))
        })
    }
}

async fn end(mut process: AttachedProcess) -> Result<Option<String>> {
    let status = process.take_status().context("no status")?.await.context("the stream ended without a status")?;
    Ok(if status.status.as_deref() == Some("Success") { None } else { status.message })
}

async fn connect(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A test wants to see each answer, not the last of sixteen.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}
