//! The command `helm`, kept from whatever cluster and plugins the machine's user has.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{folder, scratch};
use crate::run::works;

/// For which Kubernetes charts are rendered: any that is served today, so that `policy/v1` and its like are there.
const KUBE_VERSION: &str = "1.33.0";

/// As which release, as in the field.
pub(crate) fn release(chart: &str) -> String {
    format!("proxy-{chart}")
}

/// Into which namespace, as in the field.
pub(crate) const NAMESPACE: &str = "proxy-system";

/// Whether there is a Helm.
pub(crate) fn is_there() -> bool {
    works("helm", &["version", "--short"])
}

/// What a chart renders with some more arguments, or Helm's complaint.
pub(crate) fn template(chart: &str, args: &[OsString]) -> Result<Result<String, String>> {
    let mut command = helm()?;
    command.arg("template").arg(release(chart)).arg(folder(chart));
    command.args(["--namespace", NAMESPACE, "--kube-version", KUBE_VERSION]).args(args);
    said(&mut command)
}

/// What Helm has to say against a chart with these values.
pub(crate) fn lint(chart: &str, values: &Path) -> Result<Option<String>> {
    let mut command = helm()?;
    command.arg("lint").arg(folder(chart)).args(["--strict", "--namespace", NAMESPACE, "--values"]).arg(values);
    // Findings stand on standard output.
    let output = command.output().context("helm lint")?;
    let told = || format!("{}{}", String::from_utf8_lossy(&output.stdout), complaint(&output.stderr));
    Ok((!output.status.success()).then(told))
}

fn helm() -> Result<Command> {
    let home = scratch()?.join("helm");
    let mut command = Command::new("helm");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, &home);
    }
    command.env("KUBECONFIG", "/dev/null");
    Ok(command)
}

fn said(command: &mut Command) -> Result<Result<String, String>> {
    let output = command.output().context("helm")?;
    if output.status.success() { Ok(Ok(String::from_utf8(output.stdout)?)) } else { Ok(Err(complaint(&output.stderr))) }
}

/// Standard error without what Helm says of an empty kubeconfig.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("WARNING: Kubernetes configuration file")).collect();
    lines.join("\n")
}
