//! Values of the charts: what can be seen of them without Helm.

use std::path::Path;

use super::Finding;

/// Silent where there are no charts.
pub(crate) fn check(root: &Path) -> Vec<Finding> {
    if !root.join("charts/server/Chart.yaml").exists() {
        return Vec::new();
    }
    let problems = crate::charts::without_helm(root).unwrap_or_else(|error| vec![format!("cannot be read: {error:#}")]);
    let finding = |what| Finding {
        file: "charts".into(),
        line: 1,
        rule: "charts",
        what,
        reason: "a value that nobody reads, or that nobody explains, is a trap",
        cure: "mend values.yaml, values.schema.json or the templates; cargo xtask tidy --fix writes the references".into(),
    };
    problems.into_iter().map(finding).collect()
}
