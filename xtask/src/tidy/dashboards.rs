//! The dashboard and the alerts name metrics that the references have, and no others.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;

/// Where the programs say what they tell.
const REFERENCES: [&str; 2] = ["server/REFERENCE.md", "agent/REFERENCE.md"];

/// What has queries in it: in lines with `expr:`, or with `"expr":` and in JSON.
const QUERIES: [&str; 2] = ["charts/server/files/alerts.yaml", "charts/server/files/dashboard.json"];

/// What a scrape adds to the name of a counter or histogram.
const SUFFIXES: [&str; 5] = ["", "_total", "_bucket", "_sum", "_count"];

/// Words of the query language that stand where a name may.
const WORDS: [&str; 11] =
    ["and", "or", "unless", "by", "on", "without", "ignoring", "bool", "group_left", "group_right", "offset"];

/// Silent about files that do not exist.
pub(crate) fn check(root: &Path) -> Vec<Finding> {
    let read = |file: &&str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let known: BTreeSet<String> = REFERENCES.iter().map(read).flat_map(|text| named(&text)).collect();
    QUERIES.iter().flat_map(|file| judge(file, &read(file), &known)).collect()
}

fn judge(file: &str, text: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let query = line.trim_start().trim_start_matches("- ");
        let Some(query) = query.strip_prefix("expr: ").or_else(|| query.strip_prefix("\"expr\": ")) else { continue };
        for metric in metrics(&query.replace("\\\"", "\"").replace("''", "'")) {
            let base = |suffix: &&str| metric.strip_suffix(suffix).is_some_and(|base| known.contains(base));
            if !metric.starts_with("process_") && !SUFFIXES.iter().any(base) {
                found.push(Finding {
                    file: file.into(),
                    line: index + 1,
                    rule: "dashboards",
                    what: format!("no program tells {metric}"),
                    reason: "a query of what nobody tells is silent for ever, and an alert that is silent looks like health",
                    cure: "name a metric of the references, or have the program tell it".into(),
                });
            }
        }
    }
    found
}

/// The first column of a reference's tables.
fn named(reference: &str) -> BTreeSet<String> {
    let first = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    reference.lines().filter_map(first).collect()
}

/// The metrics of a PromQL query: what is a name, and neither a word, a function, a label nor text.
fn metrics(query: &str) -> BTreeSet<String> {
    let bare = without_labels(query);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(is_part) {
        let tail = &rest[start..];
        let (name, behind) = tail.split_at(tail.find(|c| !is_part(c)).unwrap_or(tail.len()));
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_called = ["(", "by (", "without ("].iter().any(|next| behind.trim_start().starts_with(next));
        if is_name && !is_called && !WORDS.contains(&name) {
            found.insert(name.to_owned());
        }
        // The list of labels behind `by` and its like.
        rest = match is_called && WORDS.contains(&name) && !["and", "or", "unless"].contains(&name) {
            true => behind.split_once(')').map_or("", |(_, behind)| behind),
            false => behind,
        };
    }
    found
}

/// A query without selectors, ranges and texts.
fn without_labels(query: &str) -> String {
    let mut depth = 0_usize;
    let mut bare = String::new();
    // The quotes around the query itself are not in it.
    for c in query.trim_matches(['\'', '"', ',', ' ']).chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                bare.push(' ');
            }
            c if depth == 0 => bare.push(c),
            _ => {}
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_told_from_labels_functions_and_words() {
        let query = r#"sum by (job, cause) (increase(ended_total{cause!~"draining|revoked"}[15m])) > 0.2 * on (job) (agents) and absent(up_a) or vector(0)"#;
        assert_eq!(metrics(query).into_iter().collect::<Vec<_>>(), ["agents", "ended_total", "up_a"]);
    }

    #[test]
    fn a_query_of_what_nobody_tells_is_found_at_its_line() {
        let known = named("| name | labels |\n| `ended` | cause |\n| `took_seconds` | |\n");
        let alerts = "groups:\n  expr: 'rate(ended_total[5m]) > 0'\n  expr: 'rate(endde_total[5m]) > 0'\n";
        let found = judge("alerts.yaml", alerts, &known);
        assert_eq!(
            found.iter().map(|finding| (finding.line, &*finding.what)).collect::<Vec<_>>(),
            [(3, "no program tells endde_total")]
        );
        let panel = r#" "expr": "sum(took_seconds_bucket{cluster=~\"$cluster\"}) - process_cpu_seconds_total","#;
        assert_eq!(judge("dashboard.json", panel, &known), []);
    }
}
