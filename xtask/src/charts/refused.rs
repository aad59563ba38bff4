//! Wrong values are refused, with the key in the message: `charts/wrong/CHART.yaml`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{CHARTS, Problems, helm, scratch, yaml};
use crate::workspace::root;

/// Values that must be refused.
pub(crate) struct Case {
    pub(crate) chart: &'static str,
    pub(crate) what: String,
    /// Over those of the golden case `minimal`.
    pub(crate) values: Value,
    /// The key, or its last word, which any message must have.
    key: String,
    /// What else it must have where Helm 3 says it.
    says: Vec<String>,
}

pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for chart in CHARTS {
        let file = root().join("charts/wrong").join(format!("{chart}.yaml"));
        let list = yaml(&file)?;
        for case in list.as_array().with_context(|| format!("{}: is no list", file.display()))? {
            let text = |key: &str| Some(case.get(key)?.as_str()?.to_owned());
            let says = case.get("says").and_then(Value::as_array).into_iter().flatten();
            cases.push(Case {
                chart,
                what: text("what").context("a case has no `what`")?,
                values: case.get("values").cloned().context("a case has no `values`")?,
                key: text("key").context("a case has no `key`")?,
                says: says.filter_map(Value::as_str).map(str::to_owned).collect(),
            });
        }
    }
    if cases.is_empty() {
        bail!("there is nothing in charts/wrong");
    }
    Ok(cases)
}

/// The values that wrong ones are laid over.
pub(crate) fn base(chart: &str) -> PathBuf {
    root().join("charts/golden").join(chart).join("minimal.values.yaml")
}

pub(crate) fn check() -> Result<Problems> {
    let mut problems = Problems::new();
    let file = scratch()?.join("wrong.json");
    for case in cases()? {
        std::fs::write(&file, case.values.to_string())?;
        let args = ["--values".into(), base(case.chart).into(), "--values".into(), (&file).into()];
        let said = helm::template(case.chart, &args)?;
        problems.extend(judge(&case, said.err().as_deref(), &case.says));
    }
    Ok(problems)
}

/// What is wrong with how a case was answered: `said` is the refusal, if it was one.
pub(crate) fn judge(case: &Case, said: Option<&str>, says: &[String]) -> Option<String> {
    let Case { chart, what, key, .. } = case;
    let Some(said) = said else { return Some(format!("{chart}: {what}: is not refused")) };
    let missing = std::iter::once(key).chain(says).find(|word| !said.contains(word.as_str()))?;
    Some(format!("{chart}: {what}: is refused without {missing:?}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_renders_or_is_refused_for_another_reason_is_found() {
        let case = Case { chart: "server", what: "a port".into(), values: Value::Null, key: "opsPort".into(), says: Vec::new() };
        assert_eq!(judge(&case, Some("opsPort: is the same as port"), &["same".into()]), None);
        assert!(judge(&case, None, &[]).is_some());
        assert!(judge(&case, Some("port: is missing"), &[]).is_some());
        assert!(judge(&case, Some("opsPort: is missing"), &["same".into()]).is_some());
    }
}
