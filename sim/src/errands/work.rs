//! How each errand is run, and what must be right about what it sees.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ATTEMPTS, BEAT, CONFIGMAPS, End, Errand, Shared, Work, lock, number};
use crate::apiserver::pattern;
use crate::caller::{Caller, Reply};
use crate::kubectl::Kubectl;
use crate::moves::PODS;
use crate::story::Story;

impl Errand {
    pub(super) async fn run(self, n: usize, s: &Story, caller: &Caller, kubectl: &Kubectl, told: &Shared) -> anyhow::Result<End> {
        let cluster = self.cluster;
        match self.work {
            Work::Get => get(caller.get(cluster, "/version").await),
            Work::List => list(caller, cluster).await,
            Work::Create => create(n, s, caller, cluster, told).await,
            Work::Put => {
                let body = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "n": n.to_string() } }).to_string();
                let target = format!("/tunnel/{cluster}{CONFIGMAPS}/kube-root-ca.crt");
                answered(caller.request(Method::PUT, &target).header("content-type", "application/json").body(body).await)
            }
            Work::Watch => watch(caller, cluster, told).await,
            Work::Upload { n_bytes } => upload(caller, cluster, n_bytes).await,
            Work::Download { n_bytes, speed } => download(caller, cluster, n_bytes, speed).await,
            Work::Exec { n_bytes } => exec(kubectl, cluster, n_bytes).await,
            Work::Logs => logs(caller, cluster, told).await,
            Work::Broken { n_bytes } => broken(caller, cluster, n_bytes).await,
        }
    }
}

/// What a caller may be told that has done nothing wrong itself. 410 is the API server's own.
fn refused(reply: &Reply) -> anyhow::Result<End> {
    let status = reply.status.as_u16();
    ensure!([410, 429, 502, 503, 504].contains(&status), "answered {status}: {}", reply.text());
    Ok(End::No(format!("{status} {}", reply.text())))
}

/// Any success will do.
fn answered(reply: anyhow::Result<Reply>) -> anyhow::Result<End> {
    match reply {
        Ok(reply) if reply.status.is_success() => Ok(End::Served),
        Ok(reply) => refused(&reply),
        Err(error) => Ok(End::No(format!("{error:#}"))),
    }
}

fn get(reply: anyhow::Result<Reply>) -> anyhow::Result<End> {
    if let Ok(reply) = &reply
        && reply.status.is_success()
    {
        let version: Value = serde_json::from_slice(&reply.body).context("a version that is no JSON")?;
        ensure!(version["gitVersion"].is_string(), "a version without a version: {version}");
    }
    answered(reply)
}

async fn list(caller: &Caller, cluster: &str) -> anyhow::Result<End> {
    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let reply = match caller.get(cluster, &format!("/api/v1/pods?limit=3{next}")).await {
            Ok(reply) if reply.status == StatusCode::OK => reply,
            other => return answered(other),
        };
        let page: Value = serde_json::from_slice(&reply.body).context("a page that is no JSON")?;
        let items = page["items"].as_array().context("a page without items")?;
        names.extend(items.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)));
        match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => next = format!("&continue={token}"),
            None => break,
        }
    }
    let wanted: Vec<_> = (0..PODS).map(|n| format!("web-{n}")).collect();
    ensure!(names == wanted, "the pages together are {names:?}");
    Ok(End::Served)
}

async fn create(n: usize, s: &Story, caller: &Caller, cluster: &str, told: &Shared) -> anyhow::Result<End> {
    let body = json!({ "metadata": { "generateName": format!("once-{n}-") } }).to_string();
    let mut end = End::No(String::new());
    for _ in 0..ATTEMPTS {
        let reply = caller.post(cluster, CONFIGMAPS, body.clone()).header("content-type", "application/json").await;
        let after = reply.as_ref().ok().and_then(|reply| reply.headers.get("retry-after")?.to_str().ok()?.parse().ok());
        let may_repeat = reply.as_ref().is_ok_and(|reply| reply.status.as_u16() == 429 || reply.status.is_server_error());
        end = answered(reply)?;
        lock(told).hinted = after.is_some() && may_repeat;
        match after {
            Some(after) if may_repeat => s.pass(Duration::from_secs(after)).await,
            Some(_) | None => return Ok(end),
        }
    }
    Ok(end)
}

async fn watch(caller: &Caller, cluster: &str, told: &Shared) -> anyhow::Result<End> {
    let path = format!("{CONFIGMAPS}?watch=true&fieldSelector=metadata.name%3D{BEAT}");
    let mut answer = match caller.get(cluster, &path).open().await {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        Ok(answer) => return answered(answer.reply().await),
        Err(error) => return Ok(End::No(format!("{error:#}"))),
    };
    lock(told).has_head = true;
    loop {
        let line = match answer.line().await {
            Ok(Some(line)) => line,
            Ok(None) => anyhow::bail!("a watch that the API server did not end, ended as if whole"),
            Err(error) => return Ok(End::No(format!("{error:#}"))),
        };
        let event: Value = serde_json::from_str(&line).with_context(|| format!("an event that is no JSON: {line}"))?;
        if event["type"] == "ERROR" {
            return Ok(End::No(line));
        }
        let (before, n) = (lock(told).beat, number(&event["object"]));
        ensure!(before == 0 || n == before + 1, "a watch showed {n} after {before}");
        lock(told).beat = n;
    }
}

async fn logs(caller: &Caller, cluster: &str, told: &Shared) -> anyhow::Result<End> {
    let mut answer = match caller.get(cluster, "/api/v1/namespaces/default/pods/web-0/log?follow=true").open().await {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        Ok(answer) => return answered(answer.reply().await),
        Err(error) => return Ok(End::No(format!("{error:#}"))),
    };
    lock(told).has_head = true;
    for n in 0.. {
        match answer.line().await {
            Ok(Some(line)) => ensure!(line == format!("web line {n}"), "a log's line {n} is {line:?}"),
            Ok(None) => anyhow::bail!("a log that the API server did not end, ended as if whole"),
            Err(error) => return Ok(End::No(format!("{error:#}"))),
        }
    }
    Ok(End::Served)
}

async fn upload(caller: &Caller, cluster: &str, n_bytes: usize) -> anyhow::Result<End> {
    let target = format!("/tunnel/{cluster}/upload");
    let reply = match caller.request(Method::POST, &target).upload(n_bytes).await {
        Ok(reply) if reply.status == StatusCode::OK => reply,
        other => return answered(other),
    };
    let told: Value = serde_json::from_slice(&reply.body).context("an answer that is no JSON")?;
    let sent: Vec<u8> = (0..n_bytes as u64).map(pattern).collect();
    let digest = Sha256::digest(&sent).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    ensure!(told["bytes"] == n_bytes && told["sha256"] == digest, "of {n_bytes} bytes there arrived {told}");
    Ok(End::Served)
}

async fn download(caller: &Caller, cluster: &str, n_bytes: usize, speed: Option<u64>) -> anyhow::Result<End> {
    let answer = match caller.get(cluster, &format!("/bulk?bytes={n_bytes}&chunked=1")).open().await {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        Ok(answer) => return answered(answer.reply().await),
        Err(error) => return Ok(End::No(format!("{error:#}"))),
    };
    let got = match answer.read_out(speed).await {
        Ok(got) => got,
        Err(error) => return Ok(End::No(format!("{error:#}"))),
    };
    let wanted: Vec<u8> = (0..n_bytes as u64).map(pattern).collect();
    let right = got.n_bytes == n_bytes && got.sha256[..] == Sha256::digest(&wanted)[..];
    ensure!(right, "a body of {n_bytes} bytes ended as if whole after {}, or is another", got.n_bytes);
    Ok(End::Served)
}

async fn broken(caller: &Caller, cluster: &str, n_bytes: usize) -> anyhow::Result<End> {
    let answer = match caller.get(cluster, &format!("/abort?after={n_bytes}")).open().await {
        Ok(answer) if answer.status == StatusCode::OK => answer,
        // The break overtook the head on a crowded way.
        Ok(answer) if answer.status == StatusCode::BAD_GATEWAY => return Ok(End::Served),
        Ok(answer) => return answered(answer.reply().await),
        Err(error) => return Ok(End::No(format!("{error:#}"))),
    };
    match answer.read_out(None).await {
        Ok(got) => anyhow::bail!("a body that broke off ended as if whole after {} bytes", got.n_bytes),
        // As planned, or by another misfortune.
        Err(_) => Ok(End::Served),
    }
}

async fn exec(kubectl: &Kubectl, cluster: &str, n_bytes: usize) -> anyhow::Result<End> {
    let typed: Vec<u8> = (0..n_bytes as u64).map(pattern).collect();
    let (mut said, mut ending) = (Vec::new(), Vec::new());
    let talk = async {
        let mut exec = kubectl.exec(cluster, "web-0", &["cat"]).await?;
        exec.write(&typed).await?;
        exec.close_stdin().await?;
        while let Some((channel, bytes)) = exec.read().await? {
            if channel == 1 { &mut said } else { &mut ending }.extend_from_slice(&bytes);
        }
        anyhow::Ok(())
    };
    let talked = talk.await;
    ensure!(typed.starts_with(&said), "a command said what it never heard");
    let succeeded = String::from_utf8_lossy(&ending).contains("Success");
    ensure!(!succeeded || said == typed, "a command succeeded and said {} of {n_bytes} bytes", said.len());
    match talked {
        Ok(()) if succeeded => Ok(End::Served),
        Ok(()) => Ok(End::No("the command ended without a word".to_owned())),
        Err(error) => Ok(End::No(format!("{error:#}"))),
    }
}
