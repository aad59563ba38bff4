//! The patch types: JSON merge patch, JSON patch, strategic merge patch. What is none of them is refused.

mod json_patch;
mod strategic;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::status::Status;

/// A patch as its media type says it is to be read.
#[derive(Debug, PartialEq)]
pub(crate) enum Patch {
    /// The body of a PUT: what is there does not matter.
    Replace(Value),
    Merge(Value),
    Json(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a request's patch.
    pub(crate) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let make = match media_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Self::Merge,
            "application/json-patch+json" => Self::Json,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" => {
                return Err(Status::unsupported_media_type("server-side apply is not simulated; use a real API server"));
            }
            other => {
                let message = format!(
                    "the patch type {other:?} is none of application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json"
                );
                return Err(Status::unsupported_media_type(message));
            }
        };
        let value = serde_json::from_slice(body);
        value.map(make).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
    }

    /// What the patch makes of `object`.
    pub(crate) fn apply(self, object: &Value) -> Result<Value, Status> {
        match self {
            Self::Replace(new) => Ok(new),
            Self::Merge(patch) => {
                let mut new = object.clone();
                merge(&mut new, patch);
                Ok(new)
            }
            Self::Json(patch) => json_patch::apply(object, patch),
            Self::Strategic(patch) => strategic::apply(object, patch),
        }
    }
}

/// RFC 7386 section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (field, value) in patch {
        if value.is_null() {
            target.remove(&field);
        } else {
            merge(target.entry(field).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches_follow_the_examples_of_the_rfc() {
        for (target, patch, result) in [
            (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": "b" }), json!({ "b": "c" }), json!({ "a": "b", "b": "c" })),
            (json!({ "a": "b", "b": "c" }), json!({ "a": null }), json!({ "b": "c" })),
            (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": { "b": "c" } }), json!({ "a": { "b": "d", "c": null } }), json!({ "a": { "b": "d" } })),
            (json!({ "a": [{ "b": "c" }] }), json!({ "a": [1] }), json!({ "a": [1] })),
            (json!({ "e": null }), json!({ "a": 1 }), json!({ "e": null, "a": 1 })),
            (json!({}), json!({ "a": { "bb": { "ccc": null } } }), json!({ "a": { "bb": {} } })),
        ] {
            assert_eq!(Patch::Merge(patch.clone()).apply(&target), Ok(result), "{target} {patch}");
        }
    }

    #[test]
    fn an_apply_patch_is_refused_by_name() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/apply-patch+yaml"));
        let refusal = Patch::parse(&headers, b"{}").expect_err("refused");
        assert_eq!(refusal.code(), 415);
        assert!(refusal.to_json()["message"].as_str().is_some_and(|text| text.contains("server-side apply")));
    }
}
