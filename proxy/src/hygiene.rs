//! Header rules: what belongs to one connection only, what belongs to the caller alone, and what nobody may send.
//!
//! Both ends apply them: the server to what a caller sends, the agent to what a server sends.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{StatusCode, Version};

/// A protocol that an HTTP/1.1 connection may switch to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// SPDY/3.1, what kubectl falls back to.
    Spdy,
    /// WebSocket (RFC 6455).
    WebSocket,
}

impl Upgrade {
    fn from_token(token: &str) -> Option<Self> {
        if token.eq_ignore_ascii_case("websocket") {
            Some(Self::WebSocket)
        } else if token.eq_ignore_ascii_case("spdy/3.1") {
            Some(Self::Spdy)
        } else {
            None
        }
    }

    /// The name, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1",
            Self::WebSocket => "websocket",
        }
    }
}

/// The upgrade that a request asks for, or that a 101 answer grants: HTTP/1.1, `Connection: upgrade` and one protocol
/// that Kubernetes speaks.
///
/// Any other protocol is none: an upstream that switched to `h2c`, say, would read the bytes that follow as requests
/// that nobody has checked.
pub fn upgrade(version: Version, headers: &HeaderMap) -> Option<Upgrade> {
    let asked = version == Version::HTTP_11 && tokens(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    // One that is no text is one too.
    let mut protocols = members(headers, UPGRADE).map(<[u8]>::trim_ascii).filter(|protocol| !protocol.is_empty());
    match (asked, protocols.next(), protocols.next()) {
        (true, Some(protocol), None) => Upgrade::from_token(std::str::from_utf8(protocol).ok()?),
        _ => None,
    }
}

/// The first header that asks to act as somebody else, also when it hides in `Connection`.
///
/// Such a request is refused, never forwarded without the header: it would then run as the agent's own account.
pub fn impersonation(headers: &HeaderMap) -> Option<String> {
    impersonation_beyond(headers, &[])
}

/// The first header that asks to act as somebody else and whose name is not one of `known`; one that hides in `Connection`
/// is never known.
pub(crate) fn impersonation_beyond(headers: &HeaderMap, known: &[&str]) -> Option<String> {
    let asks = |name: &str| starts_with(name, "impersonate-");
    let by_name = headers.keys().map(HeaderName::as_str).find(|name| asks(name) && !known.contains(name));
    by_name.or_else(|| tokens(headers, CONNECTION).find(|token| asks(token))).map(str::to_owned)
}

/// Whether a page of another site has a browser send this: its `Origin` (RFC 6454 section 7) is not where it goes. `authority`
/// is that of the request where its version has one.
///
/// A browser sends whatever it is let in by without being asked, such as its address or a client certificate, and no policy of
/// origins holds for a WebSocket.
pub fn is_cross_site(authority: Option<&str>, headers: &HeaderMap) -> bool {
    let own = authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let is_own = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.zip(own).is_some_and(|((_, origin), own)| origin.eq_ignore_ascii_case(own))
    };
    !headers.get_all(ORIGIN).iter().all(is_own)
}

/// Whether a request's body is coded in any way but `chunked`, once.
///
/// Such a request is refused: the coding belongs to the hop and is removed, and the body would go on as if it were plain.
pub fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = members(headers, TRANSFER_ENCODING);
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(|first| !is_chunked(first)) || codings.next().is_some()
}

/// Removes from a request what must not travel on: hop-by-hop headers (RFC 9110 section 7.6.1), `Authorization`, `Cookie`,
/// `X-Remote-*` and bearer tokens among the WebSocket protocols. An upgrade keeps `Connection: upgrade` and `Upgrade`;
/// `TE: trailers` stays.
///
/// Ask [`impersonation`] first: a `Connection` header may name any other header for removal.
pub fn clean_request(version: Version, headers: &mut HeaderMap) {
    let upgrade = upgrade(version, headers);
    let trailers = tokens(headers, TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers, upgrade.is_some());
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.remove(AUTHORIZATION);
    headers.remove(COOKIE);
    // Settings of an `h2c` upgrade, which is never forwarded (RFC 9113 appendix B).
    headers.remove("http2-settings");
    let remote: Vec<_> = headers.keys().filter(|name| starts_with(name.as_str(), "x-remote-")).cloned().collect();
    for name in remote {
        headers.remove(name);
    }
    remove_websocket_tokens(headers);
}

/// Removes the hop-by-hop headers of an answer; a 101 keeps `Connection: upgrade` and `Upgrade`. A length that is told more
/// than once in the same words is told once. Nothing is added.
pub fn clean_response(status: StatusCode, headers: &mut HeaderMap) {
    let switches = tokens(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    remove_hop_by_hop(headers, switches && status == StatusCode::SWITCHING_PROTOCOLS);
    if let Some(length) = repeated_length(headers) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// The length that a head tells more than once, and always the same.
fn repeated_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lengths = members(headers, CONTENT_LENGTH).map(<[u8]>::trim_ascii);
    let (first, second) = (lengths.next()?, lengths.next()?);
    let is_one = first == second && lengths.all(|length| length == first);
    HeaderValue::from_bytes(first).ok().filter(|_| is_one)
}

/// Removes from trailers what must not be taken for a field of a head: what is removed from a request and what a request is
/// refused for, the host and the length.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let of_a_head = |name: &&HeaderName| {
        is_hop_by_hop(name)
            || [AUTHORIZATION, COOKIE, HOST, CONTENT_LENGTH].contains(*name)
            || ["x-remote-", "impersonate-"].iter().any(|prefix| starts_with(name.as_str(), prefix))
    };
    let found: Vec<_> = trailers.keys().filter(of_a_head).cloned().collect();
    for name in found {
        trailers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The coding is what counts (RFC 9112 section 6.3). Without it the length would, and cut the body.
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<_> = tokens(headers, CONNECTION).filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok()).collect();
    let mut lines = headers.get_all(UPGRADE).iter();
    let protocol = lines.find(|line| keep_upgrade && !line.as_bytes().trim_ascii().is_empty()).cloned();
    // Most heads have few fields and none of these: looking once is cheaper than removing each by name.
    let listed: Vec<_> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in named.into_iter().chain(listed) {
        headers.remove(name);
    }
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    const LISTED: [HeaderName; 6] = [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];
    LISTED.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Kubernetes takes a bearer token as one of the WebSocket protocols (apiserver, `authentication/request/websocket`):
/// it is the caller's `Authorization` in other clothes.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// The bearer tokens among the WebSocket protocols of a request, as they stand: base64url.
pub fn websocket_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    members(headers, SEC_WEBSOCKET_PROTOCOL).filter_map(websocket_token)
}

/// The token that a WebSocket protocol carries. Bytes that are no text hide none: the API server would find its beginning
/// all the same.
fn websocket_token(member: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(member);
    let (start, token) = text.trim().split_at_checked(WEBSOCKET_BEARER.len())?;
    start.eq_ignore_ascii_case(WEBSOCKET_BEARER).then(|| token.to_owned())
}

fn remove_websocket_tokens(headers: &mut HeaderMap) {
    if websocket_tokens(headers).next().is_none() {
        return;
    }
    let kept = members(headers, SEC_WEBSOCKET_PROTOCOL).filter(|member| websocket_token(member).is_none());
    let kept: Vec<_> = kept.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b", "[..]));
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(kept) = kept.ok().filter(|kept| !kept.is_empty()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

/// Whether a header's name starts with `prefix`, in any case and with `_` for `-`: gateways on the way to an API server
/// may take one for the other.
fn starts_with(name: &str, prefix: &str) -> bool {
    let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(same)
}

/// The members of a comma-separated header that are text, over all its lines.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let texts = members(headers, name).filter_map(|member| std::str::from_utf8(member).ok());
    texts.map(str::trim).filter(|token| !token.is_empty())
}

/// The members of a comma-separated header as they stand, over all its lines.
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
}

#[cfg(test)]
mod tests;
