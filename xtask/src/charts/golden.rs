//! `charts/golden/CHART/NAME.yaml` is what a chart renders with `NAME.values.yaml` beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{CHARTS, Problems, helm, scratch};
use crate::run::run;
use crate::workspace::root;

/// One file of values, and what is known of it.
pub(crate) struct Case {
    pub(crate) chart: &'static str,
    pub(crate) name: String,
    pub(crate) values: PathBuf,
    /// What the chart renders with them.
    pub(crate) golden: PathBuf,
    /// What the installation says then.
    pub(crate) notes: PathBuf,
}

/// All of them, in the order of their names.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for chart in CHARTS {
        let folder = root().join("charts/golden").join(chart);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let file = entry?.file_name().into_string().unwrap_or_default();
            names.extend(file.strip_suffix(".values.yaml").map(str::to_owned));
        }
        names.sort();
        cases.extend(names.into_iter().map(|name| Case {
            chart,
            values: folder.join(format!("{name}.values.yaml")),
            golden: folder.join(format!("{name}.yaml")),
            notes: folder.join(format!("{name}.notes.txt")),
            name,
        }));
    }
    if cases.is_empty() {
        bail!("there is nothing in charts/golden");
    }
    Ok(cases)
}

impl Case {
    /// What is known, as it lies in the tree.
    pub(crate) fn known(&self) -> Result<String> {
        std::fs::read_to_string(&self.golden).with_context(|| self.golden.display().to_string())
    }
}

/// Every case is fine for `helm lint --strict`.
pub(crate) fn lint() -> Result<Problems> {
    let mut problems = Problems::new();
    for case in cases()? {
        let finding = helm::lint(case.chart, &case.values)?;
        problems.extend(finding.map(|finding| format!("{}/{}: {finding}", case.chart, case.name)));
    }
    Ok(problems)
}

/// Every case renders what is known, or what it renders is known from now on; and nothing is known of no case.
pub(crate) fn compare(bless: bool) -> Result<Problems> {
    let mut problems = Problems::new();
    let cases = cases()?;
    for case in &cases {
        match helm::template(case.chart, &["--values".into(), (&case.values).into()])? {
            Ok(text) => problems.extend(settle(&case.golden, &trimmed(&text), bless)?),
            Err(error) => problems.push(format!("{}/{} does not render: {error}", case.chart, case.name)),
        }
    }
    for chart in CHARTS {
        for entry in std::fs::read_dir(root().join("charts/golden").join(chart))? {
            let path = entry?.path();
            let known = |case: &Case| [&case.values, &case.golden, &case.notes].contains(&&path);
            if !cases.iter().any(known) {
                problems.push(format!("{}: belongs to no values", path.display()));
            }
        }
    }
    Ok(problems)
}

/// Writes `text` into `file`, or shows how it differs from what is there.
pub(crate) fn settle(file: &Path, text: &str, bless: bool) -> Result<Option<String>> {
    if std::fs::read_to_string(file).is_ok_and(|known| known == text) {
        return Ok(None);
    }
    if bless {
        std::fs::write(file, text)?;
        return Ok(None);
    }
    let now = scratch()?.join("now.yaml");
    std::fs::write(&now, text)?;
    // It ends with 1 where there is a difference, which there is.
    let _ = run(Command::new("git").args(["--no-pager", "diff", "--no-index", "--"]).arg(file).arg(&now));
    Ok(Some(format!("{}: renders something else; cargo xtask charts --bless if that is right", file.display())))
}

/// Without spaces at the ends of lines and empty lines at the end.
pub(crate) fn trimmed(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
