//! The header rules and the reading of a request, against a second reading of the same rules.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use proxy::hygiene;
use proxy::request::RequestInfo;

/// What belongs to one connection only (RFC 9110 section 7.6.1), and what stands for it in older ones.
const OF_THE_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What is the caller's own, beside names that begin with `x-remote-`.
const OF_THE_CALLER: [&str; 3] = ["authorization", "cookie", "http2-settings"];

/// Where Kubernetes also takes a token.
const PROTOCOLS: &str = "sec-websocket-protocol";
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Reads `input` as a head: `version method path?query`, then a header a line.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut words = first.splitn(3, ' ');
    let version = match words.next() {
        Some("0") => Version::HTTP_10,
        Some("2") => Version::HTTP_2,
        Some(_) | None => Version::HTTP_11,
    };
    let method = words.next().and_then(|word| Method::from_bytes(word.as_bytes()).ok()).unwrap_or_default();
    read_request(&method, words.next().unwrap_or("/"));
    let headers = headers(lines);
    clean_request(version, &headers);
    for status in [StatusCode::OK, StatusCode::SWITCHING_PROTOCOLS] {
        let mut cleaned = headers.clone();
        hygiene::clean_response(status, &mut cleaned);
        assert_clean(&cleaned, status == StatusCode::SWITCHING_PROTOCOLS);
        assert_untouched(&headers, &cleaned, &[]);
    }
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(header) {
        headers.append(name, value);
    }
    headers
}

fn read_request(method: &Method, target: &str) {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let info = RequestInfo::parse(method, path, query);
    assert!(!info.verb.chars().any(|c| c.is_ascii_uppercase()));
    let is_resource = info.resource.is_some();
    assert_eq!(
        info.resource_text().is_empty(),
        info.resource.as_ref().is_none_or(|resource| {
            resource.resource.is_empty() && resource.group.is_empty() && resource.subresource.is_empty()
        })
    );
    // A method of that name is one to the API server too.
    let is_method = method.as_str().eq_ignore_ascii_case(&info.verb);
    assert!(is_resource || is_method || !info.is_long_running(), "what stays open is a resource: {info:?}");
    assert!(info.class(true) <= info.class(false), "an upgrade is never less urgent");
}

fn clean_request(version: Version, headers: &HeaderMap) {
    let asked = hygiene::upgrade(version, headers);
    let mut cleaned = headers.clone();
    hygiene::clean_request(version, &mut cleaned);
    assert_clean(&cleaned, asked.is_some());
    assert_untouched(headers, &cleaned, &OF_THE_CALLER);
    assert!(
        hygiene::impersonation(headers).is_some() || hygiene::impersonation(&cleaned).is_none(),
        "nobody becomes somebody else on the way"
    );
    for name in OF_THE_CALLER {
        assert!(!cleaned.contains_key(name), "{name} is the caller's own: {cleaned:?}");
    }
    for name in cleaned.keys() {
        assert!(!name.as_str().replace('_', "-").starts_with("x-remote-"), "{name} says who the caller is");
    }
    for protocol in members(&cleaned, PROTOCOLS) {
        assert!(!protocol.to_ascii_lowercase().starts_with(BEARER), "a token in other clothes: {protocol:?}");
    }
    // Both ends ask, and each cleans what the other has cleaned.
    assert_eq!(hygiene::upgrade(version, &cleaned), asked, "both ends see the same upgrade");
    let mut again = cleaned.clone();
    hygiene::clean_request(version, &mut again);
    assert_eq!(again, cleaned, "what is clean stays as it is");
}

fn assert_clean(cleaned: &HeaderMap, is_upgrade: bool) {
    for name in OF_THE_HOP {
        let expected = match name {
            "te" => cleaned.get(name).is_none_or(|value| value == "trailers"),
            "connection" => cleaned.get(name).is_none_or(|value| is_upgrade && value == "Upgrade"),
            "upgrade" => is_upgrade || !cleaned.contains_key(name),
            _ => !cleaned.contains_key(name),
        };
        assert!(expected && cleaned.get_all(name).iter().count() <= 1, "{name} belongs to the hop: {cleaned:?}");
    }
}

/// All that no rule speaks of is as it was.
fn assert_untouched(before: &HeaderMap, after: &HeaderMap, own: &[&str]) {
    let named: Vec<_> = members(before, "connection").iter().map(|name| name.to_ascii_lowercase()).collect();
    let is_free = |name: &str| {
        let ruled = OF_THE_HOP.contains(&name) || own.contains(&name) || name == PROTOCOLS;
        let remote = !own.is_empty() && name.replace('_', "-").starts_with("x-remote-");
        !ruled && !remote && !named.iter().any(|named| named == name)
    };
    for name in before.keys().filter(|name| is_free(name.as_str())) {
        assert!(before.get_all(name).iter().eq(after.get_all(name).iter()), "{name} is nobody's business");
    }
    for name in after.keys() {
        assert!(before.contains_key(name), "{name} came from nowhere");
        assert!(!named.iter().any(|named| named == name.as_str()) || OF_THE_HOP.contains(&name.as_str()), "{name} was named");
    }
}

fn members(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    lines.flat_map(|line| line.split(',').map(|member| member.trim().to_owned()).collect::<Vec<_>>()).collect()
}
