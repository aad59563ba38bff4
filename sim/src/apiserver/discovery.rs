//! Discovery: which groups, versions and kinds there are, in the plain form that every client falls back to.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::access;
use super::body::{self, Body};
use super::kinds::{KINDS, Kind, Subresource, extra};

/// The document at a path of discovery, if it is one, with so many extra kinds.
pub(crate) fn answer(segments: &[&str], n_extra: usize) -> Option<Response<Body>> {
    let groups = || groups().into_iter().chain(extra(n_extra).first().map(|kind| (kind.group, kind.version)));
    // A trailing slash names the same document.
    let segments = segments.strip_suffix(&[""]).unwrap_or(segments);
    let document = match segments {
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["api", "v1"] => resources("", "v1", n_extra)?,
        ["apis"] => {
            let groups: Vec<_> = groups().map(|(name, version)| group(name, version)).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] => {
            let (name, version) = groups().find(|(group, _)| group == name)?;
            let mut document = group(name, version);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            document
        }
        ["apis", name, version] if !name.is_empty() => resources(name, version, n_extra)?,
        [] => {
            let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
            paths.extend(groups().map(|(name, version)| format!("/apis/{name}/{version}")));
            paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
            json!({ "paths": paths })
        }
        _ => return None,
    };
    Some(body::json(StatusCode::OK, &document))
}

/// Named groups with their one version.
pub(crate) fn groups() -> BTreeSet<(&'static str, &'static str)> {
    KINDS.iter().filter(|kind| !kind.group.is_empty()).map(|kind| (kind.group, kind.version)).chain([access::GROUP]).collect()
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resources(group: &str, version: &str, n_extra: usize) -> Option<Value> {
    if (group, version) == access::GROUP {
        let review =
            json!({ "name": access::PLURAL, "singularName": "", "namespaced": false, "kind": access::KIND, "verbs": ["create"] });
        let group_version = format!("{group}/{version}");
        return Some(
            json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": [review] }),
        );
    }
    let kinds: Vec<_> =
        KINDS.iter().chain(extra(n_extra)).filter(|kind| kind.group == group && kind.version == version).collect();
    let api_version = kinds.first()?.api_version();
    let resources: Vec<_> = kinds.into_iter().flat_map(|kind| std::iter::once(resource(kind)).chain(parts(kind))).collect();
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources }))
}

fn resource(kind: &Kind) -> Value {
    json!({
        "name": kind.plural, "singularName": kind.singular(), "namespaced": kind.namespaced, "kind": kind.kind,
        "shortNames": kind.short, "categories": if kind.in_all { vec!["all"] } else { Vec::new() },
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    })
}

fn parts(kind: &Kind) -> impl Iterator<Item = Value> {
    kind.subresources.iter().map(move |part| {
        let name = format!("{}/{}", kind.plural, part.name());
        let resource = |kind: &str, verbs: &[&str]| json!({ "name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs });
        let mut resource = match part {
            Subresource::Status => resource(kind.kind, &["get", "patch", "update"]),
            Subresource::Scale => resource("Scale", &["get", "patch", "update"]),
            Subresource::Log => resource(kind.kind, &["get"]),
            Subresource::Exec => resource("PodExecOptions", &["create", "get"]),
            Subresource::Attach => resource("PodAttachOptions", &["create", "get"]),
            Subresource::PortForward => resource("PodPortForwardOptions", &["create", "get"]),
        };
        resource["namespaced"] = kind.namespaced.into();
        if *part == Subresource::Scale {
            resource["group"] = "autoscaling".into();
            resource["version"] = "v1".into();
        }
        resource
    })
}
