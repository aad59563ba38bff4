//! Helm 4 lints the charts, refuses wrong values and renders the same as Helm 3, by its SDK for Python.
//!
//! Other than the command it gives the notes of an installation too, so these are compared here.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::objects::{documents, label};
use super::{Problems, folder, golden, helm, refused, yaml};
use crate::run::works;

const SCRIPT: &str = include_str!("helm4.py");

pub(crate) fn is_there() -> bool {
    works("python3", &["-c", "import helm_python"])
}

pub(crate) fn check(bless: bool) -> Result<Problems> {
    let (known, wrong) = (golden::cases()?, refused::cases()?);
    let mut jobs = Vec::new();
    for case in &known {
        jobs.push(job(case.chart, &yaml(&case.values)?, true));
    }
    for case in &wrong {
        let mut values = yaml(&refused::base(case.chart))?;
        lay_over(&mut values, &case.values);
        jobs.push(job(case.chart, &values, false));
    }
    let answers = ask(&jobs)?;
    if answers.len() != jobs.len() {
        bail!("Helm 4 gave {} answers to {} questions", answers.len(), jobs.len());
    }
    let mut problems = Problems::new();
    for (case, answer) in known.iter().zip(&answers) {
        let found = compare(case, answer, bless).with_context(|| format!("{}/{}", case.chart, case.name))?;
        problems.extend(found.into_iter().map(|problem| format!("{}/{} by Helm 4: {problem}", case.chart, case.name)));
    }
    for (case, answer) in wrong.iter().zip(&answers[known.len()..]) {
        let said = answer.get("error").and_then(Value::as_str);
        problems.extend(refused::judge(case, said, &[]).map(|problem| format!("by Helm 4: {problem}")));
    }
    Ok(problems)
}

fn job(chart: &str, values: &Value, lint: bool) -> Value {
    json!({ "chart": folder(chart), "release": helm::release(chart), "namespace": helm::NAMESPACE, "values": values, "lint": lint })
}

fn ask(jobs: &[Value]) -> Result<Vec<Value>> {
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).env("KUBECONFIG", "/dev/null");
    // It logs each refusal, and here refusals are what is asked for.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("python3")?;
    // It reads all before it writes anything.
    child.stdin.take().context("python3 takes no input")?.write_all(Value::from(jobs).to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the SDK of Helm 4: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the SDK of Helm 4")
}

fn compare(case: &golden::Case, answer: &Value, bless: bool) -> Result<Problems> {
    if let Some(error) = answer.get("error") {
        return Ok(vec![format!("does not render: {error}")]);
    }
    let findings = answer["findings"].as_array().into_iter().flatten();
    let mut problems: Problems = findings.map(|finding| format!("lint: {finding}")).collect();
    let mut theirs = BTreeMap::new();
    for (template, text) in answer["templates"].as_object().context("no templates")? {
        let text = text.as_str().unwrap_or_default();
        if template.ends_with("NOTES.txt") {
            problems.extend(golden::settle(&case.notes, &golden::trimmed(text), bless)?);
        } else {
            theirs.extend(named(text)?);
        }
    }
    let ours = named(&case.known()?)?;
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let other = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    problems.extend(other.map(|name| format!("another {name} than Helm 3 renders")));
    Ok(problems)
}

fn named(text: &str) -> Result<BTreeMap<String, Value>> {
    let name = |object: &Value| format!("{} in {}", label(object), object["metadata"]["namespace"]);
    Ok(documents(text)?.into_iter().map(|object| (name(&object), object)).collect())
}

/// As Helm lays one file of values over another: maps are united. A null stays, and takes the chart's own default away.
fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_laid_over_others_as_helm_does() {
        let mut values = json!({ "tls": { "enabled": true, "certSecret": "a" }, "clusters": [1, 2], "token": "t" });
        lay_over(&mut values, &json!({ "tls": { "certSecret": "b" }, "clusters": [3], "token": null, "port": 1 }));
        assert_eq!(values, json!({ "tls": { "enabled": true, "certSecret": "b" }, "clusters": [3], "token": null, "port": 1 }));
    }
}
