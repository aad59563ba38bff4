//! One request against one policy, read as the API server reads it. What could be read in two ways is refused.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Uri};
use proxy::hygiene;
use proxy::request::{self, RequestInfo, Resource};

use super::policy::{About, Policy, Rule};
use super::refused::{Flaw, Refused};

/// What is asked, as far as a policy looks at it; kept while its stream is open, to be judged again.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    method: Method,
    uri: Uri,
    is_upgrade: bool,
    /// Of a PATCH: a server-side apply, which creates what is not there.
    is_apply: bool,
    flaw: Option<Flaw>,
    /// The hub's own question whether the API server answers, and nothing beside it.
    is_probe: bool,
    /// All headers of a request that impersonates.
    impersonating: Option<Box<HeaderMap>>,
}

impl Asked {
    /// What a request asks that came through the tunnel, before its headers are cleaned.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            is_upgrade: hygiene::upgrade(request.version(), headers).is_some(),
            is_apply: request::is_apply(headers),
            flaw: Flaw::of(request),
            is_probe: false,
            impersonating: hygiene::impersonation(headers).map(|_| Box::new(headers.clone())),
        }
    }

    /// The same, with the hub's word on whether it is its own probe. It counts for `GET /version` alone: who may call a request
    /// a probe must not hide others so.
    pub(crate) fn called_probe<B>(self, is_called_so: bool, request: &Request<B>) -> Self {
        let asks_for_version = self.method == Method::GET && self.uri.path_and_query().is_some_and(|target| *target == *PROBED);
        let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| request.headers().contains_key(name));
        let is_plain = !has_body && !self.is_upgrade && self.flaw.is_none() && self.impersonating.is_none();
        Self { is_probe: is_called_so && asks_for_version && is_plain, ..self }
    }

    /// Whether it is the hub's own question, and nothing beside it.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }
}

/// The one path that a probe asks for.
const PROBED: &str = "/version";

/// Methods that a policy speaks of; with a policy no other passes.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Subresources that lead into a pod, or past the API server to what stands behind it, of whatever resource: aggregated APIs
/// have such too (`virtualmachineinstances/portforward`).
const WAYS_IN: [&str; 5] = ["exec", "attach", "portforward", "proxy", "ephemeralcontainers"];

/// Whether a request may pass. `is_frozen` counts beside the policy's own word.
pub(crate) fn judge(asked: &Asked, policy: &Policy, is_frozen: bool) -> Result<(), Refused> {
    if let Some(flaw) = asked.flaw {
        return Err(Refused::Flawed(flaw));
    }
    if is_frozen || policy.frozen {
        return Err(Refused::Frozen);
    }
    if let Some(headers) = &asked.impersonating {
        policy.impersonate.judge(headers).map_err(Refused::Impersonation)?;
    }
    if policy.restricts() { judge_target(asked, policy) } else { Ok(()) }
}

fn judge_target(asked: &Asked, policy: &Policy) -> Result<(), Refused> {
    let (path, query) = (asked.uri.path(), asked.uri.query());
    if !METHODS.contains(&asked.method) {
        return Err(Refused::Unclear("its method is none that the guard knows"));
    }
    if !request::is_plain(path) {
        return Err(Refused::Unclear("its path has escapes, or empty or dot segments"));
    }
    let info = RequestInfo::parse(&asked.method, path, query);
    // API servers up to 1.21 split there, later ones drop what it stands in.
    if query.is_some_and(|query| query.contains(';')) && !info.is_proxied() {
        return Err(Refused::Unclear("its query has a semicolon"));
    }
    if request::has_too_many_parameters(path, query) {
        return Err(Refused::Unclear("its query has too many parameters"));
    }
    if policy.read_only && !changes_nothing(asked, &info) {
        return Err(Refused::ReadOnly);
    }
    if !policy.exec && (enters_pods(&info) || (asked.is_upgrade && info.verb != "watch")) {
        return Err(Refused::Exec);
    }
    if !policy.secrets && info.resource.as_ref().is_some_and(|resource| leads_to_secrets(&info.verb, resource)) {
        return Err(Refused::Secrets);
    }
    judge_by_rules(asked, policy, info)
}

fn judge_by_rules(asked: &Asked, policy: &Policy, mut info: RequestInfo) -> Result<(), Refused> {
    let path = asked.uri.path();
    if let Some(resource) = info.resource.as_mut().filter(|_| matches!(info.verb.as_str(), "list" | "watch")) {
        // The name is a selector's, and only servers that are known to heed selectors answer with that object alone.
        if !heeds_selectors(&resource.group) {
            resource.name.clear();
        }
    }
    let other = as_subresource(asked, &info);
    let mut creation = info.clone();
    creation.verb = "create".to_owned();
    let readings = |creates: bool| std::iter::once(&info).chain(&other).chain(creates.then_some(&creation));
    let creates = info.may_create_too(asked.is_apply);
    if let Some(index) = policy.deny.iter().position(|rule| readings(creates).any(|info| may_match(rule, info, path))) {
        return Err(Refused::Denied(index));
    }
    if asked.is_probe {
        // Every API server tells anybody its version. Who lets nothing pass but a namespace would be shown as dead for it.
        return Ok(());
    }
    let creates = info.creates_too(asked.is_apply);
    match &policy.allow {
        Some(rules) if !readings(creates).all(|info| rules.iter().any(|rule| surely_matches(rule, info, path))) => {
            Err(Refused::NotAllowed)
        }
        Some(_) | None => Ok(()),
    }
}

/// What the legacy `/proxy/` prefix does is what the subresource does: rules about either are rules about it.
fn as_subresource(asked: &Asked, info: &RequestInfo) -> Option<RequestInfo> {
    let resource = info.resource.as_ref().filter(|_| info.verb == "proxy")?;
    let mut other = RequestInfo::parse(&asked.method, "/api/v1/nodes/n/proxy", None);
    other.resource = Some(Resource { subresource: "proxy".to_owned(), ..resource.clone() });
    Some(other)
}

/// Whether servers of a group narrow lists and watches by `fieldSelector=metadata.name=..`: those of Kubernetes itself do, other
/// aggregated ones, and those of metrics, need not.
fn heeds_selectors(group: &str) -> bool {
    const GROUPS: [&str; 6] = ["", "apps", "autoscaling", "batch", "extensions", "policy"];
    GROUPS.contains(&group) || (group.ends_with(".k8s.io") && !group.ends_with("metrics.k8s.io"))
}

/// The method counts beside the verb, which legacy paths such as `/api/v1/watch/` have whatever the method.
fn changes_nothing(asked: &Asked, info: &RequestInfo) -> bool {
    let is_reading = matches!(asked.method, Method::GET | Method::HEAD);
    match &info.resource {
        None => is_reading && !asked.is_upgrade,
        Some(resource) => {
            let is_read_verb = matches!(info.verb.as_str(), "get" | "list" | "watch");
            let is_way_in = WAYS_IN.contains(&resource.subresource.as_str()) || (asked.is_upgrade && info.verb != "watch");
            (is_reading && is_read_verb && !is_way_in) || is_review(&info.verb, resource)
        }
    }
}

/// Asking what one may do creates a review, which is stored nowhere.
fn is_review(verb: &str, resource: &Resource) -> bool {
    const REVIEWS: [&str; 4] =
        ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews", "localsubjectaccessreviews"];
    let is_one = resource.group == "authorization.k8s.io" && REVIEWS.contains(&resource.resource.as_str());
    is_one && verb == "create" && resource.name.is_empty() && resource.subresource.is_empty()
}

fn enters_pods(info: &RequestInfo) -> bool {
    info.verb == "proxy"
        || info.resource.as_ref().is_some_and(|resource| {
            WAYS_IN.contains(&resource.subresource.as_str()) || is_core(resource, "serviceaccounts", "token")
        })
}

/// Answers to writes show the object too, and whoever is a service account may read what it may.
fn leads_to_secrets(verb: &str, resource: &Resource) -> bool {
    // The kubelet, or something that nobody knows: a proxy of an aggregated API may lead anywhere.
    let is_harmless = resource.group.is_empty() && ["pods", "services"].contains(&resource.resource.as_str());
    let is_way = (resource.subresource == "proxy" || verb == "proxy") && !is_harmless;
    (resource.group.is_empty() && resource.resource == "secrets")
        || is_way
        || is_core(resource, "pods", "ephemeralcontainers")
        || is_core(resource, "serviceaccounts", "token")
}

fn is_core(resource: &Resource, kind: &str, subresource: &str) -> bool {
    resource.group.is_empty() && resource.resource == kind && resource.subresource == subresource
}

/// Whether a request may touch what a rule is about: a denial must not be got around by asking for more.
fn may_match(rule: &Rule, info: &RequestInfo, path: &str) -> bool {
    let covers = |resource: &Resource, namespaces: Option<&[String]>, names: Option<&[String]>| {
        let spans_namespaces = resource.namespace.is_empty() && may_be_namespaced(info, resource);
        let in_namespace = spans_namespaces || listed(namespaces, &resource.namespace);
        // A proxied name is `name:port` or `scheme:name:port`.
        let is_way = info.verb == "proxy" || resource.subresource == "proxy";
        let is_named =
            |names| listed(names, &resource.name) || (is_way && resource.name.split(':').any(|part| listed(names, part)));
        in_namespace && (resource.name.is_empty() || is_named(names))
    };
    matches(rule, info, path, covers)
}

/// Whether a request touches nothing but what a rule is about.
fn surely_matches(rule: &Rule, info: &RequestInfo, path: &str) -> bool {
    matches(rule, info, path, |resource, namespaces, names| {
        listed(namespaces, &resource.namespace) && listed(names, &resource.name)
    })
}

fn matches(
    rule: &Rule,
    info: &RequestInfo,
    path: &str,
    covers: impl Fn(&Resource, Option<&[String]>, Option<&[String]>) -> bool,
) -> bool {
    if !listed_or_any(rule.verbs.as_deref(), &info.verb) {
        return false;
    }
    match (&rule.about, &info.resource) {
        (About::Resources { groups, resources, namespaces, names }, Some(resource)) => {
            listed_or_any(groups.as_deref(), &resource.group)
                && resources.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| is_of(resource, pattern)))
                && covers(resource, namespaces.as_deref(), names.as_deref())
        }
        (About::Paths(patterns), None) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == pattern,
        }),
        (About::Resources { .. }, None) | (About::Paths(_), Some(_)) => false,
    }
}

fn listed(words: Option<&[String]>, word: &str) -> bool {
    words.is_none_or(|words| words.iter().any(|one| one == word))
}

fn listed_or_any(words: Option<&[String]>, word: &str) -> bool {
    words.is_none_or(|words| words.iter().any(|one| one == "*" || one == word))
}

/// As RBAC has it: `pods` is not `pods/log`, `*` is both, `*/log` is that of anything.
fn is_of(resource: &Resource, pattern: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (pattern == resource.resource && resource.subresource.is_empty()),
        Some((kind, subresource)) => (kind == "*" || kind == resource.resource) && subresource == resource.subresource,
    }
}

/// Kinds outside of namespaces, with their groups. What is asked of others without a namespace goes over all of them.
const CLUSTER_SCOPED: [(&str, &[&str]); 13] = [
    ("", &["nodes", "persistentvolumes", "componentstatuses"]),
    ("rbac.authorization.k8s.io", &["clusterroles", "clusterrolebindings"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("storage.k8s.io", &["storageclasses", "csidrivers", "csinodes", "volumeattachments", "volumeattributesclasses"]),
    (
        "admissionregistration.k8s.io",
        &[
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ],
    ),
    ("scheduling.k8s.io", &["priorityclasses"]),
    ("node.k8s.io", &["runtimeclasses"]),
    ("networking.k8s.io", &["ingressclasses", "ipaddresses", "servicecidrs"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("certificates.k8s.io", &["certificatesigningrequests", "clustertrustbundles"]),
    ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"]),
    ("authentication.k8s.io", &["tokenreviews", "selfsubjectreviews"]),
];

/// Whether a request without a namespace may be for objects in namespaces. Namespaces themselves count as being in
/// themselves: who may not see one may not list them all.
fn may_be_namespaced(info: &RequestInfo, resource: &Resource) -> bool {
    // A single object outside of any namespace is in none; but a list that a selector narrows down is still a list.
    let is_single = !resource.name.is_empty() && !matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let kinds = CLUSTER_SCOPED.iter().find(|(group, _)| *group == resource.group).map(|(_, kinds)| kinds);
    !is_single && !kinds.is_some_and(|kinds| kinds.contains(&resource.resource.as_str()))
}

#[cfg(test)]
mod tests;
