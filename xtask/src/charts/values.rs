//! Values, their schema and the templates know the same keys, and the charts have the version of the programs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{CHARTS, Problems, yaml};

pub(crate) fn check(root: &Path) -> Result<Problems> {
    let mut problems = Problems::new();
    let version = version(root)?;
    for chart in CHARTS {
        let folder = root.join("charts").join(chart);
        let (values, schema) = (yaml(&folder.join("values.yaml"))?, yaml(&folder.join("values.schema.json"))?);
        let templates = templates(&folder.join("templates"))?;
        let mut found = Problems::new();
        described(&schema, "", &mut found);
        for leaf in leaves(&values, &mut Vec::new()) {
            let key = leaf.join(".");
            if lookup(&schema, &leaf).is_none() {
                found.push(format!("{key}: has a default and is not in values.schema.json"));
            } else if !is_required(&schema, &values, &leaf) {
                found.push(format!(
                    "{key}: values.schema.json does not require it, so that a null would silently take the default away"
                ));
            } else if !templates.iter().any(|path| leaf.starts_with(path)) {
                found.push(format!("{key}: no template uses it"));
            }
        }
        for path in templates.iter().filter(|path| lookup(&schema, path).is_none()) {
            found.push(format!("{}: a template uses it, and values.schema.json does not have it", path.join(".")));
        }
        let about = yaml(&folder.join("Chart.yaml"))?;
        for key in ["version", "appVersion"].into_iter().filter(|key| about[key] != version.as_str()) {
            found.push(format!("Chart.yaml: {key} is {} and the programs have {version}", about[key]));
        }
        problems.extend(found.into_iter().map(|problem| format!("charts/{chart}: {problem}")));
    }
    Ok(problems)
}

/// The version of the workspace.
fn version(root: &Path) -> Result<String> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let (_, package) = text.split_once("[workspace.package]").context("Cargo.toml has no [workspace.package]")?;
    let line = package.lines().find_map(|line| line.strip_prefix("version = ")).context("Cargo.toml has no version")?;
    Ok(line.trim_matches('"').to_owned())
}

/// Every key says what it means, and every map says whether it takes others.
fn described(schema: &Value, path: &str, problems: &mut Problems) {
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"].is_null() {
        problems.push(format!("{path}: values.schema.json takes any key there"));
    }
    for (key, property) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // What a rule of RBAC has is not ours to explain.
        let foreign = ["rbac.rules[].", "rbac.extraRules[]."].iter().any(|rules| path.starts_with(rules));
        if !foreign && property["description"].as_str().is_none_or(str::is_empty) {
            problems.push(format!("{path}: values.schema.json does not say what it means"));
        }
        described(property, &path, problems);
        described(&property["items"], &format!("{path}[]"), problems);
    }
}

/// The part of a schema about a key; whatever lies in a map that takes any key is fine.
fn lookup<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return Some(schema) };
    if let Some(items) = schema.get("items") {
        return lookup(items, path);
    }
    match schema.get("properties") {
        Some(properties) => lookup(properties.get(first)?, rest),
        None => (schema["type"] == "object").then_some(schema),
    }
}

/// Whether a default that says something cannot be taken away, as Helm does for a key with nothing after it.
fn is_required(schema: &Value, values: &Value, leaf: &[String]) -> bool {
    let (Some((key, above)), Some(default)) = (leaf.split_last(), values.pointer(&format!("/{}", leaf.join("/")))) else {
        return true;
    };
    let says_nothing = default.is_object() || default.is_array() || default == "";
    let parent = lookup(schema, above).filter(|parent| parent.get("properties").is_some());
    let named = |parent: &Value| parent["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key.as_str()));
    says_nothing || parent.is_none_or(named)
}

/// The keys that have a default which is no map, or an empty one.
fn leaves(values: &Value, path: &mut Vec<String>) -> Vec<Vec<String>> {
    match values.as_object().filter(|map| !map.is_empty()) {
        None => vec![path.clone()],
        Some(map) => {
            let mut all = Vec::new();
            for (key, value) in map {
                path.push(key.clone());
                all.extend(leaves(value, path));
                path.pop();
            }
            all
        }
    }
}

/// Which keys the templates of a folder use.
fn templates(folder: &Path) -> Result<Vec<Vec<String>>> {
    let mut used = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            used.extend(templates(&path)?);
        } else {
            used.extend(uses(&std::fs::read_to_string(&path)?));
        }
    }
    Ok(used)
}

/// Which keys a template uses: after `.Values`, or after a variable that stands for a part of it.
fn uses(template: &str) -> Vec<Vec<String>> {
    let template = template.replace("$.Values", ".Values");
    let mut variables = BTreeMap::from([(".Values".to_owned(), Vec::new())]);
    let mut used = Vec::new();
    for action in template.split("{{").filter_map(|text| text.split("}}").next()) {
        let action = action.trim_matches(['-', ' ', '\n']);
        let (to, from) = action.split_once(":=").map_or(("", action), |(to, from)| (to.trim(), from.trim()));
        let paths = paths(from, &variables);
        let alone = paths.first().is_some_and(|(len, _)| *len == from.len());
        if let (Some((_, path)), Some(name)) = (paths.first(), to.rsplit([' ', ',']).next().filter(|name| !name.is_empty())) {
            variables.insert(name.to_owned(), path.clone());
        }
        // Giving a part a name is no use of it; going through it is.
        let names_only = alone && !to.is_empty() && !to.starts_with("range");
        used.extend(paths.into_iter().map(|(_, path)| path).filter(|path| !path.is_empty() && !names_only));
    }
    used
}

/// The keys that an expression names, each with where in it the name ends.
fn paths(expression: &str, variables: &BTreeMap<String, Vec<String>>) -> Vec<(usize, Vec<String>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = expression[at..].find(['.', '$']).map(|offset| at + offset) {
        let end = |from: usize| expression[from..].find(|c| !is_word(c)).map_or(expression.len(), |len| from + len);
        at = end(begin + 1);
        let Some(path) = variables.get(&expression[begin..at]) else { continue };
        let mut path = path.clone();
        while expression[at..].starts_with('.') && end(at + 1) > at + 1 {
            path.push(expression[at + 1..end(at + 1)].to_owned());
            at = end(at + 1);
        }
        found.push((at, path));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used(template: &str) -> Vec<String> {
        uses(template).into_iter().map(|path| path.join(".")).collect()
    }

    #[test]
    fn uses_are_found_behind_values_and_behind_names_for_parts_of_them() {
        assert_eq!(used("{{ .Values.image.tag | default .Chart.AppVersion }}"), ["image.tag"]);
        assert_eq!(used("{{- $v := .Values }}{{- $c := $v.certManager }}{{ $c.duration }}"), ["certManager.duration"]);
        assert_eq!(used("{{- with $.Values.pdb }}"), ["pdb"]);
        assert_eq!(used("{{- $v := $.Values }}{{- range $i, $one := $v.clusters }}{{ $one.id }}"), ["clusters", "clusters.id"]);
        assert!(used("{{- $v := .Values }}").is_empty());
    }

    #[test]
    fn a_key_without_a_description_and_a_map_that_takes_anything_are_found() {
        let mut problems = Problems::new();
        let schema = json!({ "additionalProperties": false, "properties": { "tls": { "properties": {}, "description": "x" }, "port": {} } });
        described(&schema, "", &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn a_default_that_a_null_would_take_away_is_found() {
        let schema = json!({ "required": ["leave"], "properties": { "leave": {}, "drain": {}, "token": {}, "resources": {} } });
        let values = json!({ "leave": "5s", "drain": "30s", "token": "", "resources": { "cpu": 1 } });
        let is_required =
            |path: &[&str]| is_required(&schema, &values, &path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        assert!(is_required(&["leave"]) && is_required(&["token"]) && is_required(&["resources", "cpu"]));
        assert!(!is_required(&["drain"]));
    }

    #[test]
    fn a_key_is_looked_up_through_lists_and_free_maps() {
        let schema = json!({ "properties": {
            "clusters": { "type": "array", "items": { "type": "object", "properties": { "id": { "type": "string" } } } },
            "resources": { "type": "object" },
        } });
        let has = |path: &[&str]| lookup(&schema, &path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()).is_some();
        assert!(has(&["clusters", "id"]) && has(&["resources", "limits", "memory"]));
        assert!(!has(&["clusters", "name"]) && !has(&["tls"]));
    }
}
