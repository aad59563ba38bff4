//! What the charts render is valid for the API of Kubernetes, by `kubernetes-validate`, which has its schemas with it.
//!
//! It has none for kinds that come with others (Gateway API, cert-manager, the Prometheus operator): these it passes by, and
//! says so in its own output.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Problems, golden};

/// The oldest that anybody supports, one between, and the newest that it has.
const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];

pub(crate) fn check() -> Result<Problems> {
    let mut problems = Problems::new();
    let cases = golden::cases()?;
    for version in VERSIONS {
        let mut command = Command::new("kubernetes-validate");
        command.args(["-k", version, "--strict"]).args(cases.iter().map(|case| &case.golden));
        let output = command.output().context("kubernetes-validate")?;
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let n_passed = told.lines().filter(|line| line.contains(" passed ")).count();
        if !output.status.success() {
            let findings = told.lines().filter(|line| !line.starts_with("INFO") && !line.starts_with("WARN"));
            problems.push(format!("Kubernetes {version}: {}", findings.collect::<Vec<_>>().join("\n")));
        } else if n_passed < cases.len() {
            // Each case has a Deployment at least.
            problems.push(format!("Kubernetes {version}: kubernetes-validate looked at {n_passed} objects only: {told}"));
        }
    }
    Ok(problems)
}
