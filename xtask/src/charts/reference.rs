//! `charts/CHART/REFERENCE.md`: every value, generated from the schema and the defaults.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{CHARTS, Problems, yaml};
use crate::workspace::root;

/// Says which references are not what they would be if they were written now.
pub(crate) fn check(root: &Path) -> Result<Problems> {
    let mut problems = Problems::new();
    for chart in CHARTS {
        let (file, now) = reference(root, chart)?;
        if std::fs::read_to_string(&file).unwrap_or_default() != now {
            problems.push(format!("charts/{chart}/REFERENCE.md: is not what the schema and the defaults say"));
        }
    }
    Ok(problems)
}

/// Writes them.
pub(crate) fn write() -> Result<()> {
    for chart in CHARTS {
        let (file, now) = reference(&root(), chart)?;
        std::fs::write(file, now)?;
    }
    Ok(())
}

fn reference(root: &Path, chart: &str) -> Result<(std::path::PathBuf, String)> {
    let folder = root.join("charts").join(chart);
    let (values, schema) = (yaml(&folder.join("values.yaml"))?, yaml(&folder.join("values.schema.json"))?);
    let mut text = format!(
        "# postern-{chart}: values of the chart\n\n\
         Generated from `values.schema.json` and `values.yaml`; `cargo xtask tidy --fix` writes it anew. A key that is not here, and a\n\
         value of another type, are refused. NAME is the release's name, or `fullnameOverride`.\n\n\
         | key | type | default | meaning |\n|---|---|---|---|\n"
    );
    rows(&schema, Some(&values), "", &mut text)?;
    Ok((folder.join("REFERENCE.md"), text))
}

fn rows(schema: &Value, values: Option<&Value>, path: &str, text: &mut String) -> Result<()> {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{key}");
        let value = values.and_then(|values| values.get(key));
        let meaning = property["description"].as_str().unwrap_or_default().replace('|', "\\|");
        let nested = property.get("properties").is_some();
        let default = value.filter(|_| !nested).map(|value| format!("`{value}`")).unwrap_or_default();
        writeln!(text, "| `{path}` | {} | {default} | {meaning} |", kind(property))?;
        rows(property, value, &format!("{path}."), text)?;
        if let Some(items) = property.get("items") {
            rows(items, None, &format!("{path}[]."), text)?;
        }
    }
    Ok(())
}

fn kind(property: &Value) -> String {
    if let Some(words) = property["enum"].as_array() {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(kinds) = property["type"].as_array() {
        return kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ");
    }
    match property["type"].as_str() {
        Some("array") => "list".into(),
        Some("object") => "map".into(),
        kind => kind.unwrap_or_default().into(),
    }
}
