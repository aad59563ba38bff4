//! A real Prometheus that scrapes the programs, and promtool.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kubectl::{Output, call};
use crate::process::{Process, free_addr};
use crate::{get, wait_for};

/// It is ready within a second or two.
const READY_MAX: Duration = Duration::from_secs(30);

/// A few scrapes, on a busy machine.
const SCRAPED_MAX: Duration = Duration::from_secs(20);

/// One series of a result: its labels and its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// A running Prometheus; ends with this value.
pub struct Prometheus {
    addr: SocketAddr,
    process: Process,
}

impl Prometheus {
    /// Starts one that scrapes each of `targets`, by the name of its job, once a second, and evaluates the rules of a file.
    pub fn start(dir: &Path, targets: &[(&str, SocketAddr)], rules: &Path) -> Result<Self> {
        let job = |(name, addr): &(&str, SocketAddr)| {
            format!("- job_name: {name}\n  static_configs:\n  - targets: [\"{addr}\"]\n    labels: {{instance: {name}}}\n")
        };
        let jobs: String = targets.iter().map(job).collect();
        let times = "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}";
        let config = dir.join("prometheus.yaml");
        fs::write(&config, format!("{times}\nrule_files: ['{}']\nscrape_configs:\n{jobs}", rules.display()))?;
        let addr = free_addr()?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
        command.args([&format!("--web.listen-address={addr}"), "--log.level=warn"]);
        let mut process = Process::start(dir, "prometheus", command)?;
        let is_ready = |_: &str| get(addr, "/-/ready").ok().filter(|answer| answer.status == 200).map(drop);
        process.wait_until("readiness", READY_MAX, is_ready)?;
        Ok(Self { addr, process })
    }

    /// What a query gives at this moment.
    ///
    /// # Errors
    /// When it is no query.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let answer = self.api(&format!("query?query={}", escaped(query)))?;
        let of_sample = |sample: &Value| {
            let labels = sample["metric"].as_object().context("labels")?.iter();
            let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
            Ok((labels, sample["value"][1].as_str().context("a value")?.parse()?))
        };
        match answer["resultType"].as_str() {
            Some("vector") => answer["result"].as_array().context("a vector")?.iter().map(of_sample).collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits until a query gives one value that is `wanted`.
    pub fn until(&self, query: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let mut last = Vec::new();
        let found = wait_for(query, SCRAPED_MAX, || {
            last = self.query(query)?;
            Ok(match &last[..] {
                [(_, value)] if wanted(*value) => Some(*value),
                _ => None,
            })
        });
        found.with_context(|| format!("{last:?}"))
    }

    /// The rules that it evaluates, each with its name and its health.
    pub fn rules(&self) -> Result<Vec<(String, String)>> {
        let answer = self.api("rules")?;
        let groups = answer["groups"].as_array().context("groups")?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rules.map(|rule| (text(&rule["name"]), text(&rule["health"]))).collect())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail(20)
    }

    fn api(&self, what: &str) -> Result<Value> {
        let answer = get(self.addr, &format!("/api/v1/{what}"))?;
        let mut said: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
        ensure!(said["status"] == "success", "{what}: {said}");
        Ok(said["data"].take())
    }
}

/// Runs promtool with something on its standard input.
pub fn promtool(args: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = Command::new("promtool");
    command.args(args);
    call(command, input)
}

/// A text as a value of a query string.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
