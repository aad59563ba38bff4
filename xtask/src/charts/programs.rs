//! The programs take the command lines and files that the charts give them.
//!
//! What a chart renders for a Secret or ConfigMap of its own is given to the program as a file. Other files are missing here, as
//! the program says; it must miss them where the chart mounts something.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::objects::{documents, list, word};
use super::{CHARTS, Problems, field, golden, scratch};
use crate::workspace::bin_dir;

/// What a program says of a file that is not there.
const MISSING: &str = "No such file or directory";

/// Whether somebody has built the programs.
pub(crate) fn are_there() -> bool {
    bin_dir().is_ok_and(|folder| CHARTS.iter().all(|chart| folder.join(format!("postern-{chart}")).is_file()))
}

pub(crate) fn check() -> Result<Problems> {
    let mut all = field::renderings()?;
    for case in golden::cases()? {
        all.push((case.chart, format!("{}/{}", case.chart, case.name), case.known()?));
    }
    let mut problems = Problems::new();
    for (chart, name, text) in all {
        let objects = documents(&text)?;
        for pod in objects.iter().filter(|object| object["kind"] == "Deployment") {
            let container = &pod["spec"]["template"]["spec"]["containers"][0];
            let mounts: Vec<&str> = list(&container["volumeMounts"]).map(|mount| word(&mount["mountPath"])).collect();
            let args = with_files(container, &files(&objects))?;
            let told = told(chart, &args)?;
            // A missing CA counts as none.
            let has_ca = args.iter().any(|arg| arg.starts_with("--tls-client-ca="));
            let follows = |line: &str| has_ca && line.contains("needs --tls-client-ca");
            let found = told.lines().filter(|line| !follows(line)).filter_map(|line| mistake(line, &mounts));
            problems.extend(found.map(|line| format!("{name}: {line}")));
        }
    }
    Ok(problems)
}

/// What the charts put into files, by their names.
fn files(objects: &[Value]) -> BTreeMap<&str, &str> {
    let parts = objects.iter().flat_map(|object| ["stringData", "data"].map(|part| &object[part]));
    parts.filter_map(Value::as_object).flatten().map(|(name, content)| (name.as_str(), word(content))).collect()
}

/// The command line with those files where they lie here.
fn with_files(container: &Value, files: &BTreeMap<&str, &str>) -> Result<Vec<String>> {
    let folder = scratch()?;
    let mut args = Vec::new();
    for arg in list(&container["args"]).map(word) {
        let name = arg.rsplit('/').next().unwrap_or_default();
        match (arg.split_once('='), files.get(name)) {
            // A token is not for files of this machine.
            (Some((flag, _)), Some(content)) if name != "token" => {
                std::fs::write(folder.join(name), content)?;
                args.push(format!("{flag}={}", folder.join(name).display()));
            }
            _ => args.push(arg.to_owned()),
        }
    }
    Ok(args)
}

/// What the program says of a command line without doing what it says: both look at the configuration first, and an agent whose
/// token is missing goes no further.
fn told(chart: &str, args: &[String]) -> Result<String> {
    let look = if chart == "server" { "check" } else { "doctor" };
    let mut command = Command::new(bin_dir()?.join(format!("postern-{chart}")));
    let output = command.arg(look).args(args).env_clear().output().with_context(|| format!("postern-{chart}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The line if it tells a mistake of the chart's.
fn mistake<'a>(line: &'a str, mounts: &[&str]) -> Option<&'a str> {
    let said = line.trim_start_matches("FAIL").trim();
    let is_missing = said.contains(MISSING) && mounts.iter().any(|mount| said.contains(&format!(" {mount}/")));
    let is_mistake = said.starts_with("--") && !is_missing;
    (is_mistake || said.contains("is no known key")).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_missing_where_something_is_mounted_and_nothing_else_may_be_wrong() {
        let mistake = |line| mistake(line, &["/tls"]).is_some();
        assert!(!mistake("FAIL  --tls-cert: /tls/tls.crt cannot be read: No such file or directory (os error 2)"));
        assert!(mistake("FAIL  --tls-cert: /tsl/tls.crt cannot be read: No such file or directory (os error 2)"));
        assert!(mistake("                       --drain: \"never\" is not a duration"));
        assert!(mistake("warn  --clusters /config/clusters.json:3: [0].tokn is no known key, it has no effect"));
        assert!(!mistake("warn  --callers is not given"));
        assert!(!mistake("ok    clusters: 2"));
    }
}
