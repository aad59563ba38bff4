//! A Kubernetes request as the API server reads it: verb, group, version, resource, namespace, name.
//!
//! Follows `NewRequestInfo` of k8s.io/apiserver (`pkg/endpoints/request/requestinfo.go`), for log lines, scheduling and
//! policy; the request itself is forwarded as it came.

use http::Method;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; for a path that is no
    /// resource, the method in lower case.
    pub verb: String,
    /// `None` for a path that is no resource, such as `/version`.
    pub resource: Option<Resource>,
    follows_log: bool,
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

impl RequestInfo {
    /// Reads a request line. `path` is still percent-encoded, `query` has no `?`.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Self {
        let decoded = percent_decoded(path, false);
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
        })
    }

    /// Whether the answer stays open for as long as the caller likes.
    pub fn is_long_running(&self) -> bool {
        const SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];
        let subresource = self.resource.as_ref().is_some_and(|resource| SUBRESOURCES.contains(&resource.subresource.as_str()));
        subresource || matches!(self.verb.as_str(), "watch" | "proxy")
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

/// `None` when the path is no resource.
fn resource_request(method: &Method, parts: &[&str], query: &str) -> Option<RequestInfo> {
    let (root, rest) = parts.split_first().filter(|(root, rest)| API_ROOTS.contains(root) && rest.len() >= 2)?;
    let (group, rest) = if *root == "api" { ("", rest) } else { rest.split_first().map(|(group, rest)| (*group, rest))? };
    // With a group, a version and something after it must be left.
    let (version, mut rest) = rest.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let mut verb = match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    if let Some((first @ ("watch" | "proxy"), after)) = rest.split_first().map(|(first, after)| (*first, after)) {
        // Without a resource after it, the API server answers that it cannot tell the kind.
        verb = first;
        rest = after;
        if rest.is_empty() {
            return None;
        }
    }
    let mut namespace = "";
    if let ["namespaces", name, after @ ..] = rest {
        namespace = name;
        if after.first().is_some_and(|next| !matches!(*next, "status" | "finalize")) {
            rest = after;
        }
    }
    let part = |index: usize| rest.get(index).copied().unwrap_or_default();
    let mut name = part(1).to_owned();
    let subresource = if verb == "proxy" { "" } else { part(2) };
    if name.is_empty() && verb == "get" {
        verb = if parameter(query, "watch").is_some_and(|text| is_true(&text)) { "watch" } else { "list" };
        name = parameter(query, "fieldSelector").and_then(|selector| selected_name(&selector)).unwrap_or_default();
    } else if name.is_empty() && verb == "delete" {
        verb = "deletecollection";
    }
    let follows_log = subresource == "log" && parameter(query, "follow").is_some_and(|text| is_true(&text));
    let resource = Resource {
        group: group.to_owned(),
        version: (*version).to_owned(),
        namespace: namespace.to_owned(),
        resource: part(0).to_owned(),
        name,
        subresource: subresource.to_owned(),
    };
    Some(RequestInfo { verb: verb.to_owned(), resource: Some(resource), follows_log })
}

/// The object that a selector of `metadata.name` picks.
fn selected_name(selector: &str) -> Option<String> {
    let value = |term: &str| Some(term.strip_prefix("metadata.name")?.trim_start_matches('=').to_owned());
    let picks = |term: &&str| term.starts_with("metadata.name=");
    let name = selector.split(',').find(picks).and_then(value)?;
    let good = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    good.then_some(name)
}

/// Only a value of `false` or `0` is false (apimachinery, `Convert_Slice_string_To_bool`).
fn is_true(text: &str) -> bool {
    !(text.eq_ignore_ascii_case("false") || text == "0")
}

/// The first value of a query parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(key, value)| (percent_decoded(key, true), value))
        .find(|(key, _)| key == name)
        .map(|(_, value)| percent_decoded(value, true))
}

/// A wrong escape stays as it is: the API server answers 400 to it.
fn percent_decoded(text: &str, plus_is_space: bool) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (*first, after) {
            (b'%', [high, low, tail @ ..]) if let (Some(high), Some(low)) = (hex(*high), hex(*low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = tail;
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
