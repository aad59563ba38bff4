//! A Kubernetes request as the API server reads it: verb, group, version, resource, namespace, name.
//!
//! Follows `NewRequestInfo` of k8s.io/apiserver (`pkg/endpoints/request/requestinfo.go`), for log lines, scheduling and
//! policy; the request itself is forwarded as it came.

mod creation;
mod query;

use std::borrow::Cow;

use http::Method;

pub use creation::is_apply;
use query::ListOptions;
pub use query::{QUERY_PARAMETERS_MAX, has_too_many_parameters, parameter};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; for a path that is no
    /// resource, the method in lower case.
    pub verb: String,
    /// `None` for a path that is no resource, such as `/version`.
    pub resource: Option<Resource>,
    follows_log: bool,
    is_safe: bool,
}

/// A resource of the API; what is not given is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    /// `v1`, say.
    pub version: String,
    /// Empty for what belongs to no namespace, and for all namespaces.
    pub namespace: String,
    /// Plural and lower case: `pods`.
    pub resource: String,
    /// Empty for a whole list.
    pub name: String,
    /// `log`, `exec`, `status`.
    pub subresource: String,
}

/// How urgent a request is beside others of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A person waits for each byte: exec, attach, port-forward.
    Interactive,
    /// Stays open and speaks now and then: a watch, a followed log.
    Watch,
    /// All else.
    Small,
}

/// The two roots of the resource API.
const API_ROOTS: [&str; 2] = ["api", "apis"];

/// The kinds of the core group that the API server leads through itself.
const PROXIED: [&str; 3] = ["nodes", "pods", "services"];

impl RequestInfo {
    /// Reads a request line. `path` is still percent-encoded, `query` has no `?`.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Self {
        // The API server answers 400 to a wrong escape.
        let decoded = unescaped(path).unwrap_or(Cow::Borrowed(path));
        // Go splits the decoded path, so that an encoded slash separates too.
        let parts: Vec<&str> = match decoded.trim_matches('/') {
            "" => Vec::new(),
            path => path.split('/').collect(),
        };
        let query = query.unwrap_or_default();
        resource_request(method, &parts, query).unwrap_or_else(|| Self {
            verb: method.as_str().to_ascii_lowercase(),
            resource: None,
            follows_log: false,
            is_safe: is_safe(method),
        })
    }

    /// Whether the answer stays open for as long as the caller likes.
    pub fn is_long_running(&self) -> bool {
        const SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];
        let subresource = self.resource.as_ref().is_some_and(|resource| SUBRESOURCES.contains(&resource.subresource.as_str()));
        subresource || matches!(self.verb.as_str(), "watch" | "proxy")
    }

    /// Whether its method asks for nothing to be changed: a verb alone does not tell, since `watch` is one of the path too.
    pub fn is_safe(&self) -> bool {
        self.is_safe
    }

    /// Whether it goes through the API server to something else, which may read it in any way.
    pub fn goes_through(&self) -> bool {
        self.verb == "proxy" || self.resource.as_ref().is_some_and(|resource| resource.subresource == "proxy")
    }

    /// Whether what follows the name is for a node, pod or service behind the API server. Not for a `proxy` of other groups,
    /// whose servers may read it in any way.
    pub fn is_proxied(&self) -> bool {
        let is_ours = |resource: &Resource| resource.group.is_empty() && PROXIED.contains(&resource.resource.as_str());
        self.goes_through() && self.resource.as_ref().is_some_and(is_ours)
    }

    /// How urgent the request is; an upgrade is always interactive.
    pub fn class(&self, is_upgrade: bool) -> Class {
        if is_upgrade {
            Class::Interactive
        } else if self.verb == "watch" || self.follows_log {
            Class::Watch
        } else {
            Class::Small
        }
    }

    /// `pods`, `deployments.apps/status`, or empty for a path that is no resource: for log lines.
    pub fn resource_text(&self) -> String {
        let Some(resource) = &self.resource else { return String::new() };
        let mut text = resource.resource.clone();
        for (separator, part) in [('.', &resource.group), ('/', &resource.subresource)] {
            if !part.is_empty() {
                text.push(separator);
                text += part;
            }
        }
        text
    }
}

/// Whether `path`, still percent-encoded, has one reading: no escapes, no empty segment, no `.` and no `..`.
///
/// What follows a `proxy` subresource (or a name after the legacy `/proxy/`) of nodes, pods and services is for another server
/// and may have any form: no segment of it changes what the API server takes the request for.
pub fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    if rest.is_empty() {
        return true;
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let proxied = Layout::of(&parts).and_then(|layout| {
        let kind_at = parts.len() - layout.kind.len();
        let kind = layout.kind.first().filter(|kind| layout.group.is_empty() && PROXIED.contains(*kind));
        match (layout.special_verb, kind.map_or(&[][..], |_| layout.kind)) {
            (_, []) => None,
            (Some("proxy"), _) => Some(kind_at + 2),
            (_, [_, _, "proxy", ..]) => Some(kind_at + 3),
            (_, _) => None,
        }
    });
    let own = proxied.map_or(parts.len(), |end| end.min(parts.len()));
    parts[..own].iter().all(|part| !part.is_empty() && *part != "." && *part != ".." && !part.contains('%'))
}

/// The parts of a resource's path.
struct Layout<'a> {
    group: &'a str,
    version: &'a str,
    /// `watch` or `proxy` before the rest.
    special_verb: Option<&'a str>,
    namespace: &'a str,
    /// Resource, name, subresource and what follows; the resource at least.
    kind: &'a [&'a str],
}

impl<'a> Layout<'a> {
    /// `None` when the path is no resource.
    fn of(parts: &'a [&'a str]) -> Option<Self> {
        let (root, rest) = parts.split_first().filter(|(root, rest)| API_ROOTS.contains(root) && rest.len() >= 2)?;
        let (group, rest) = if *root == "api" { ("", rest) } else { rest.split_first().map(|(group, rest)| (*group, rest))? };
        // With a group, a version and something after it must be left.
        let (version, mut kind) = rest.split_first().filter(|(_, rest)| !rest.is_empty())?;
        let mut special_verb = None;
        if let Some((first @ ("watch" | "proxy"), after)) = kind.split_first().map(|(first, after)| (*first, after)) {
            // Without a resource after it, the API server answers that it cannot tell the kind.
            special_verb = Some(first);
            kind = after;
            if kind.is_empty() {
                return None;
            }
        }
        let mut namespace = "";
        if let ["namespaces", name, after @ ..] = kind {
            namespace = name;
            if after.first().is_some_and(|next| !matches!(*next, "status" | "finalize")) {
                kind = after;
            }
        }
        Some(Self { group, version, special_verb, namespace, kind })
    }
}

/// Methods that ask for nothing to be changed (RFC 9110 section 9.2.1), among those of Kubernetes.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// `None` when the path is no resource.
fn resource_request(method: &Method, parts: &[&str], query: &str) -> Option<RequestInfo> {
    let Layout { group, version, special_verb, namespace, kind } = Layout::of(parts)?;
    let mut verb = special_verb.unwrap_or(match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    });
    let part = |index: usize| kind.get(index).copied().unwrap_or_default();
    let mut name = part(1).to_owned();
    let subresource = if verb == "proxy" { "" } else { part(2) };
    if name.is_empty() && verb == "get" {
        let options = ListOptions::read(query);
        verb = if options.watch { "watch" } else { "list" };
        name = options.name;
    } else if name.is_empty() && verb == "delete" {
        verb = "deletecollection";
    }
    let follows_log = subresource == "log" && parameter(query, "follow").is_some_and(|text| query::is_true(&text));
    let resource = Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        resource: part(0).to_owned(),
        name,
        subresource: subresource.to_owned(),
    };
    Some(RequestInfo { verb: verb.to_owned(), resource: Some(resource), follows_log, is_safe: is_safe(method) })
}

/// The bytes of a text with escapes (RFC 3986 section 2.1); `None` if one of them is wrong.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = after else { return None };
        bytes.push((hex(high)? * 16 + hex(low)?) as u8);
        rest = tail;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned().into())
}

#[cfg(test)]
mod tests;
