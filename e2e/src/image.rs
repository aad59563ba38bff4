//! The images that are shipped, and what a container engine knows of them.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kubectl::call;

/// The names of three images.
#[derive(Debug, Clone)]
pub struct Images {
    /// `postern-server`.
    pub server: String,
    /// `postern-agent`.
    pub agent: String,
    /// `postern-sim`, whose caller plays Argo CD's part.
    pub sim: String,
    are_elsewhere: bool,
}

impl Images {
    /// Those that `E2E_SERVER_IMAGE`, `E2E_AGENT_IMAGE` and `E2E_SIM_IMAGE` name, else those that `cargo xtask image` makes.
    pub fn named() -> Self {
        let given = |name| std::env::var(name).ok().filter(|image| !image.is_empty());
        let ours = |program: &str| format!("{program}:{}", env!("CARGO_PKG_VERSION"));
        let server = given("E2E_SERVER_IMAGE");
        Self {
            are_elsewhere: server.is_some(),
            server: server.unwrap_or_else(|| ours("postern-server")),
            agent: given("E2E_AGENT_IMAGE").unwrap_or_else(|| ours("postern-agent")),
            sim: given("E2E_SIM_IMAGE").unwrap_or_else(|| ours("postern-sim")),
        }
    }

    /// Whether they are in a registry that somebody named, not in the local engine.
    pub fn are_elsewhere(&self) -> bool {
        self.are_elsewhere
    }

    /// All of them.
    pub fn all(&self) -> [&str; 3] {
        [&self.server, &self.agent, &self.sim]
    }

    /// What the engine tells of an image.
    pub fn inspect(image: &str) -> Result<Value> {
        let told: Value = serde_json::from_str(&docker(&["image", "inspect", image])?)?;
        told.get(0).cloned().with_context(|| format!("no image {image}"))
    }

    /// All files in an image, as `tar -tv` lists them: what an empty container of it exports, without what the engine itself
    /// puts there.
    pub fn files(image: &str) -> Result<Vec<String>> {
        let container = docker(&["create", image])?.trim().to_owned();
        let listed = list(&container);
        docker(&["rm", &container])?;
        // Docker and Podman make these in every container, by these names and no others.
        let engines =
            [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "run/.containerenv"];
        let is_ours = |line: &&str| {
            let path = line.split_whitespace().nth(5).unwrap_or_default();
            !path.ends_with('/') && !engines.contains(&path)
        };
        Ok(listed?.lines().filter(is_ours).map(str::to_owned).collect())
    }

    /// Starts an image with `args` and an environment; gives the container's name and address.
    pub fn run(image: &str, env: &[(&str, &str)], args: &[&str]) -> Result<(String, IpAddr)> {
        let env: Vec<_> = env.iter().flat_map(|(name, value)| ["--env".to_owned(), format!("{name}={value}")]).collect();
        let env: Vec<_> = env.iter().map(String::as_str).collect();
        let container = docker(&[&["run", "--detach"], &env[..], &[image], args].concat())?.trim().to_owned();
        let address = docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &container])?;
        Ok((container, address.trim().parse().with_context(|| format!("the address {address:?}"))?))
    }

    /// Ends a container that was run, and removes it.
    pub fn remove(container: &str) -> Result<()> {
        docker(&["rm", "--force", container]).map(drop)
    }
}

fn list(container: &str) -> Result<String> {
    let mut export = Command::new("sh");
    export.args(["-c", "docker export \"$0\" | tar -tv", container]);
    let output = call(export, b"")?;
    ensure!(output.code == Some(0), "docker export: {}", output.stderr);
    Ok(output.text())
}

/// Runs docker and gives what it says.
fn docker(args: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(args);
    let output = call(command, b"")?;
    ensure!(output.code == Some(0), "docker {}: {}", args.join(" "), output.stderr.trim());
    Ok(output.text())
}
