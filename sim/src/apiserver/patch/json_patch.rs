//! JSON patch: RFC 6902, with the pointers of RFC 6901.

use serde_json::Value;

use super::super::status::Status;

pub(super) fn apply(object: &Value, patch: Value) -> Result<Value, Status> {
    let Value::Array(operations) = patch else {
        return Err(Status::bad_request("a JSON patch is a list of operations"));
    };
    let mut new = object.clone();
    for operation in operations {
        step(&mut new, &operation).ok_or_else(|| {
            // A real API server answers 422 when a patch is well formed but does not fit the object.
            Status::unprocessable(format!("the server rejected our request due to an error in our request: {operation}"))
        })?;
    }
    Ok(new)
}

/// One operation; nothing if it does not fit.
fn step(document: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    let value = || operation.get("value").cloned();
    match operation["op"].as_str()? {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path).map(|_| ()),
        "replace" => {
            let value = value()?;
            *document.pointer_mut(path)? = value;
            Some(())
        }
        "move" => {
            let from = operation["from"].as_str()?;
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return None;
            }
            let value = remove(document, from)?;
            add(document, path, value)
        }
        "copy" => {
            let value = document.pointer(operation["from"].as_str()?)?.clone();
            add(document, path, value)
        }
        "test" => (*document.pointer(path)? == value()?).then_some(()),
        _ => None,
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    let Some((parent, last)) = split(path) else {
        *document = value;
        return path.is_empty().then_some(());
    };
    match document.pointer_mut(parent)? {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) => {
            let at = if last == "-" { items.len() } else { index(&last)? };
            if at > items.len() {
                return None;
            }
            items.insert(at, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match document.pointer_mut(parent)? {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => {
            let at = index(&last)?;
            (at < items.len()).then(|| items.remove(at))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The pointer to the parent, and the last token unescaped.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

/// RFC 6901 section 4: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
    canonical.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_follow_the_examples_of_the_rfc() {
        for (object, patch, result) in [
            (json!({ "a": 1 }), json!([{ "op": "add", "path": "/b", "value": 2 }]), json!({ "a": 1, "b": 2 })),
            (json!({ "l": [1, 3] }), json!([{ "op": "add", "path": "/l/1", "value": 2 }]), json!({ "l": [1, 2, 3] })),
            (json!({ "l": [1] }), json!([{ "op": "add", "path": "/l/-", "value": 2 }]), json!({ "l": [1, 2] })),
            (json!({ "l": [1, 2] }), json!([{ "op": "remove", "path": "/l/0" }]), json!({ "l": [2] })),
            (json!({ "a": 1 }), json!([{ "op": "replace", "path": "/a", "value": null }]), json!({ "a": null })),
            (json!({ "a": 1 }), json!([{ "op": "move", "from": "/a", "path": "/b" }]), json!({ "b": 1 })),
            (json!({ "a": [1] }), json!([{ "op": "copy", "from": "/a/0", "path": "/b" }]), json!({ "a": [1], "b": 1 })),
            (json!({ "x/y": 1, "m~n": 2 }), json!([{ "op": "remove", "path": "/x~1y" }]), json!({ "m~n": 2 })),
            (json!({ "a": 1 }), json!([{ "op": "test", "path": "/a", "value": 1 }]), json!({ "a": 1 })),
        ] {
            assert_eq!(apply(&object, patch.clone()), Ok(result), "{patch}");
        }
    }

    #[test]
    fn an_operation_that_does_not_fit_is_refused_and_names_itself() {
        for patch in [
            json!([{ "op": "remove", "path": "/missing" }]),
            json!([{ "op": "replace", "path": "/missing", "value": 1 }]),
            json!([{ "op": "test", "path": "/a", "value": 2 }]),
            json!([{ "op": "add", "path": "/l/7", "value": 1 }]),
            json!([{ "op": "add", "path": "/l/01", "value": 1 }]),
            json!([{ "op": "move", "from": "/l", "path": "/l/0" }]),
            json!([{ "op": "guess", "path": "/a" }]),
        ] {
            let refusal = apply(&json!({ "a": 1, "l": [1, 2] }), patch.clone()).expect_err("refused");
            assert_eq!(refusal.code(), 422, "{patch}");
        }
    }
}
