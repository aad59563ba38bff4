//! Label and field selectors.

use serde_json::Value;

use super::kinds::Kind;
use super::query::Query;
use super::status::Status;

/// Which objects of a kind a caller asked for.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, PartialEq)]
enum Requirement {
    /// The label has one of the values.
    In(String, Vec<String>),
    /// The label is absent or has none of the values.
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    pub(crate) fn parse(kind: &Kind, query: &Query) -> Result<Self, Status> {
        Ok(Self {
            labels: query.get("labelSelector").map(parse_labels).transpose()?.unwrap_or_default(),
            fields: query.get("fieldSelector").map(|text| parse_fields(kind, text)).transpose()?.unwrap_or_default(),
        })
    }

    /// Selects the object of this name alone.
    pub(crate) fn only_name(&mut self, name: &str) {
        self.fields.push(("metadata.name".to_owned(), true, name.to_owned()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        let has_one = |key: &str, values: &[String]| label(key).is_some_and(|value| values.iter().any(|v| v == value));
        let labels_match = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => has_one(key, values),
            Requirement::NotIn(key, values) => !has_one(key, values),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        });
        labels_match && self.fields.iter().all(|(path, equal, value)| (field(object, path) == *value) == *equal)
    }
}

/// The text of a field; absent is empty, as it is for a real API server.
fn field(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, key| &value[key]) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => value.to_string(),
    }
}

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<(String, bool, String)>, Status> {
    let parse = |term: &str| {
        let (path, equal, value) = term
            .split_once("!=")
            .map(|(path, value)| (path, false, value))
            .or_else(|| term.split_once("==").map(|(path, value)| (path, true, value)))
            .or_else(|| term.split_once('=').map(|(path, value)| (path, true, value)))
            .ok_or_else(|| Status::bad_request(format!("invalid selector: {term:?}; can't understand {term:?}")))?;
        if !matches!(path, "metadata.name" | "metadata.namespace") && !kind.fields.contains(&path) {
            return Err(Status::bad_request(format!("field label not supported: {path}")));
        }
        Ok((path.to_owned(), equal, value.to_owned()))
    };
    text.split(',').filter(|term| !term.is_empty()).map(parse).collect()
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Status> {
    split_outside_parentheses(text).into_iter().filter(|term| !term.is_empty()).map(parse_requirement).collect()
}

/// Commas inside `in (a,b)` do not end a requirement.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .collect()
}

fn parse_requirement(term: &str) -> Result<Requirement, Status> {
    let key = |text: &str| {
        let text = text.trim();
        let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if good {
            Ok(text.to_owned())
        } else {
            Err(Status::bad_request(format!("unable to parse requirement: {term:?} has no valid label key")))
        }
    };
    let set = |text: &str| {
        let inner = text.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        let inner = inner.ok_or_else(|| Status::bad_request(format!("unable to parse requirement: {term:?} has no (set)")))?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>())
    };
    if let Some(absent) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(key(absent)?));
    }
    if let Some((name, values)) = term.split_once(" notin ") {
        return Ok(Requirement::NotIn(key(name)?, set(values)?));
    }
    if let Some((name, values)) = term.split_once(" in ") {
        return Ok(Requirement::In(key(name)?, set(values)?));
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value.trim().to_owned()]));
    }
    Ok(Requirement::Exists(key(term)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds;
    use super::*;

    fn selects(query: &str, object: &Value) -> bool {
        let kind = kinds::by_plural("pods").expect("a row");
        Selector::parse(kind, &Query::parse(Some(query))).expect(query).matches(object)
    }

    #[test]
    fn label_selectors_follow_the_grammar_of_kubernetes() {
        let pod = json!({ "metadata": { "name": "a", "labels": { "app": "web", "tier": "front" } } });
        for good in ["app=web", "app==web", "app!=db", "app in (web, db),tier", "!zone", "zone notin (a)", "app=web,tier=front"] {
            assert!(selects(&format!("labelSelector={}", good.replace(' ', "+")), &pod), "{good}");
        }
        for bad in ["app=db", "zone", "!app", "app notin (web,db)", "app in (db)", "app=web,tier=back"] {
            assert!(!selects(&format!("labelSelector={}", bad.replace(' ', "+")), &pod), "{bad}");
        }
    }

    #[test]
    fn field_selectors_are_those_of_the_kind() {
        let pod = json!({ "metadata": { "name": "a", "namespace": "n" }, "spec": { "nodeName": "x" } });
        assert!(selects("fieldSelector=metadata.name%3Da%2Cspec.nodeName%21%3Dy", &pod));
        assert!(!selects("fieldSelector=metadata.namespace=other", &pod));
        let pods = kinds::by_plural("pods").expect("a row");
        let unknown = Selector::parse(pods, &Query::parse(Some("fieldSelector=spec.unknown=1")));
        assert_eq!(unknown.map(|_| ()).map_err(|status| status.code()), Err(400));
    }
}
