//! OpenAPI documents that say what is true: there are no schemas, `dryRun` works, fields are not validated.
//!
//! A client that finds no `fieldValidation` parameter and no schema validates nothing, which is what this server does.

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{self, Body};
use super::discovery;
use super::kinds::{KINDS, Kind};

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `{ swagger: "2.0", info: { title: "sim", version: "v1" } }` as the protobuf message `openapi.v2.Document`: every
/// client-go before OpenAPI v3 reads nothing else.
const V2_DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x09\x0a\x03sim\x12\x02v1";

pub(crate) fn v2(headers: &HeaderMap) -> Response<Body> {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("proto-openapi") {
        return body::with_type(StatusCode::OK, V2_PROTOBUF, V2_DOCUMENT);
    }
    body::json(StatusCode::OK, &json!({ "swagger": "2.0", "info": info(), "paths": {} }))
}

/// The index, or the document of one group and version.
pub(crate) fn v3(segments: &[&str]) -> Option<Response<Body>> {
    let document = match segments {
        [] | [""] => {
            let names = std::iter::once("api/v1".to_owned());
            let names = names.chain(discovery::groups().into_iter().map(|(group, version)| format!("apis/{group}/{version}")));
            let path = |name: String| (name.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{name}") }));
            json!({ "paths": names.map(path).collect::<Map<_, _>>() })
        }
        ["api", version] => group_version("", version)?,
        ["apis", group, version] => group_version(group, version)?,
        _ => return None,
    };
    Some(body::json(StatusCode::OK, &document))
}

fn group_version(group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    if kinds.is_empty() && !discovery::groups().contains(&(group, version)) {
        return None;
    }
    let paths: Map<_, _> = kinds.into_iter().map(|kind| (item_path(kind), json!({ "patch": patch(kind) }))).collect();
    Some(json!({ "openapi": "3.0.0", "info": info(), "paths": paths, "components": { "schemas": {} } }))
}

fn item_path(kind: &Kind) -> String {
    let root = if kind.group.is_empty() { "api".to_owned() } else { format!("apis/{}", kind.group) };
    let namespace = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{root}/{}/{namespace}{}/{{name}}", kind.version, kind.plural)
}

fn patch(kind: &Kind) -> Value {
    json!({
        "operationId": format!("patch{}", kind.kind),
        "parameters": [{ "name": "dryRun", "in": "query", "schema": { "type": "string" } }],
        "responses": { "200": { "description": "OK" } },
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
    })
}

fn info() -> Value {
    json!({ "title": "sim", "version": "v1" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protobuf_document_has_the_lengths_that_it_claims() {
        let info = &V2_DOCUMENT[5..];
        assert_eq!(usize::from(V2_DOCUMENT[1]), "2.0".len());
        assert_eq!(usize::from(info[1]), info.len() - 2);
        assert_eq!((usize::from(info[3]), usize::from(info[8])), ("sim".len(), "v1".len()));
    }
}
