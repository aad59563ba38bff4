//! Values of the field install: `charts/field.yaml` has what people have typed for the charts that these replace, and clusters that
//! differ from most.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::objects::documents;
use super::{CHARTS, Problems, helm, scratch, yaml};
use crate::workspace::root;

pub(crate) fn check() -> Result<Problems> {
    let mut problems = Problems::new();
    for case in cases()? {
        let (what, text) = (what(&case)?, rendered(&case)?);
        problems.extend(judge(&case, text)?.into_iter().map(|problem| format!("field: {what}: {problem}")));
    }
    Ok(problems)
}

/// Those that render, each with its chart and what it is.
pub(crate) fn renderings() -> Result<Vec<(&'static str, String, String)>> {
    let mut all = Vec::new();
    for case in cases()? {
        if let Ok(text) = rendered(&case)? {
            all.push((chart(&case)?, format!("field: {}", what(&case)?), text));
        }
    }
    Ok(all)
}

fn cases() -> Result<Vec<Value>> {
    let file = root().join("charts/field.yaml");
    let list = yaml(&file)?;
    let cases = list.as_array().with_context(|| format!("{}: is no list", file.display()))?;
    if cases.is_empty() {
        bail!("{}: is empty", file.display());
    }
    Ok(cases.clone())
}

fn what(case: &Value) -> Result<&str> {
    case.get("what").and_then(Value::as_str).context("a case has no `what`")
}

fn chart(case: &Value) -> Result<&'static str> {
    let chart = case.get("chart").and_then(Value::as_str).context("a case has no `chart`")?;
    CHARTS.into_iter().find(|known| *known == chart).with_context(|| format!("there is no chart {chart:?}"))
}

fn strings<'a>(case: &'a Value, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    case.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn rendered(case: &Value) -> Result<Result<String, String>> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(values) = case.get("values") {
        let file = scratch()?.join("field.json");
        std::fs::write(&file, values.to_string())?;
        args.extend(["--values".into(), file.into()]);
    }
    args.extend(strings(case, "set").flat_map(|set| ["--set".into(), set.into()]));
    args.extend(strings(case, "strings").flat_map(|set| ["--set-string".into(), set.into()]));
    // The last one counts.
    let kubernetes = case.get("kubernetes").and_then(Value::as_str);
    args.extend(kubernetes.into_iter().flat_map(|version| ["--kube-version".into(), version.into()]));
    args.extend(strings(case, "apis").flat_map(|api| ["--api-versions".into(), api.into()]));
    helm::template(chart(case)?, &args)
}

fn judge(case: &Value, text: Result<String, String>) -> Result<Problems> {
    let text = match text {
        Ok(text) => text,
        Err(error) => return Ok(vec![format!("does not render: {error}")]),
    };
    let mut problems = Problems::new();
    let there: Vec<String> = documents(&text)?.iter().map(super::objects::label).collect();
    for object in strings(case, "objects") {
        if !there.iter().any(|label| label == object) {
            problems.push(format!("there is no {object}, only {}", there.join(", ")));
        }
    }
    problems.extend(strings(case, "lacks").filter(|words| text.contains(words)).map(|words| format!("{words:?} stands there")));
    problems.extend(strings(case, "has").filter(|words| !text.contains(words)).map(|words| format!("{words:?} stands nowhere")));
    Ok(problems)
}
