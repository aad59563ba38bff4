//! Requests that may create what they name, though their verb is another.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::{RequestInfo, Resource};

/// What the media types of server-side apply begin with; `+yaml` and `+cbor` follow.
const APPLY: &[u8] = b"application/apply-patch";

/// Kinds that a PUT creates when they are not there (`AllowCreateOnUpdate` of their strategies in k8s.io/kubernetes).
const CREATED_BY_UPDATE: [(&str, &[&str]); 4] = [
    ("", &["endpoints", "events", "limitranges", "services"]),
    ("coordination.k8s.io", &["leases", "leasecandidates"]),
    ("events.k8s.io", &["events"]),
    ("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles", "rolebindings", "roles"]),
];

impl RequestInfo {
    /// Whether the request creates the object that it names if it is not there: an apply ([`is_apply`]), or a PUT of some kinds.
    pub fn creates_too(&self, is_apply: bool) -> bool {
        match (self.verb.as_str(), &self.resource) {
            ("patch", Some(resource)) => is_apply && is_whole(resource),
            ("update", Some(resource)) => is_whole(resource) && is_created_by_update(resource),
            (_, _) => false,
        }
    }

    /// As [`Self::creates_too`], of any kind: aggregated API servers have kinds of their own that a PUT creates.
    pub fn may_create_too(&self, is_apply: bool) -> bool {
        self.creates_too(is_apply) || (self.verb == "update" && self.resource.as_ref().is_some_and(is_whole))
    }
}

/// Whether a PATCH with these headers is a server-side apply.
pub fn is_apply(headers: &HeaderMap) -> bool {
    let begins = |value: &[u8]| value.get(..APPLY.len()).is_some_and(|start| start.eq_ignore_ascii_case(APPLY));
    headers.get_all(CONTENT_TYPE).iter().any(|value| begins(value.as_bytes().trim_ascii_start()))
}

/// Subresources create nothing: the object must be there.
fn is_whole(resource: &Resource) -> bool {
    resource.subresource.is_empty()
}

fn is_created_by_update(resource: &Resource) -> bool {
    let kinds = CREATED_BY_UPDATE.iter().find(|(group, _)| *group == resource.group).map(|(_, kinds)| kinds);
    kinds.is_some_and(|kinds| kinds.contains(&resource.resource.as_str()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn an_apply_is_known_however_it_is_spelled() {
        let is = |values: &[&'static str]| {
            is_apply(&values.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))).collect())
        };
        assert!(is(&["application/apply-patch+yaml"]) && is(&["application/apply-patch+cbor; a=b"]));
        assert!(is(&[" Application/Apply-Patch+YAML"]) && is(&["text/plain", "application/apply-patch+yaml"]));
        assert!(!is(&[]) && !is(&["application/merge-patch+json"]) && !is(&["application/apply"]));
    }

    #[test]
    fn what_creates_beside_its_own_verb_is_an_apply_or_a_put_of_some_kinds() {
        for (method, path, is_apply, surely, maybe) in [
            ("PATCH", "/api/v1/namespaces/a/pods/b", true, true, true),
            ("PATCH", "/api/v1/namespaces/a/pods/b", false, false, false),
            ("PATCH", "/api/v1/namespaces/a/pods/b/status", true, false, false),
            ("PUT", "/api/v1/namespaces/a/pods/b", false, false, true),
            ("PUT", "/api/v1/namespaces/a/pods/b/status", false, false, false),
            ("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/b", false, true, true),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", false, true, true),
            ("PUT", "/apis/x.example/v1/namespaces/a/leases/b", false, false, true),
            ("POST", "/api/v1/namespaces/a/pods", true, false, false),
            ("PUT", "/healthz", true, false, false),
        ] {
            let info = RequestInfo::parse(&method.parse::<Method>().expect("a method"), path, None);
            assert_eq!((info.creates_too(is_apply), info.may_create_too(is_apply)), (surely, maybe), "{method} {path}");
        }
    }
}
