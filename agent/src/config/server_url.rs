//! The URL of a hub's public listener.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use proxy::flags;

/// A WebSocket URL: `wss://hub.example/connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// `wss` rather than `ws`.
    pub tls: bool,
    /// A name or address, IPv6 without brackets.
    pub host: String,
    /// 443 or 80 when the URL has none.
    pub port: u16,
    /// Path and query, `/connect` when the URL has none.
    pub path: String,
}

impl ServerUrl {
    /// What stands in the `Host` header: the port only when it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "wss" } else { "ws" }, self.authority(), self.path)
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} {what}; write wss://hub.example/connect");
        let uri: Uri = text.parse().map_err(|_| wrong("is no URL"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let tls = scheme.eq_ignore_ascii_case("wss");
        if !tls && !scheme.eq_ignore_ascii_case("ws") {
            return Err(wrong("has another scheme than wss or ws"));
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            // Not echoed: what stands before the sign is a secret.
            return Err("has a user name or password; the token is given by --token".to_owned());
        }
        if text.contains('#') {
            return Err(wrong("has a fragment"));
        }
        let after_host = &authority.as_str()[authority.host().len()..];
        let port = match (after_host, authority.port_u16()) {
            ("", _) => default_port(tls),
            (_, Some(port)) if port != 0 => port,
            (_, Some(_) | None) => return Err(wrong("has no port between 1 and 65535")),
        };
        let host = flags::host_port(&format!("{}:{port}", authority.host())).map_err(|_| wrong("has no good host"))?.host;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/connect" } else { path };
        Ok(Self { tls, host, port, path: path.to_owned() })
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together() {
        for (text, host, port, expected) in [
            ("wss://hub.example/connect", "hub.example", 443, "wss://hub.example/connect"),
            ("wss://hub.example", "hub.example", 443, "wss://hub.example/connect"),
            ("wss://hub.example/", "hub.example", 443, "wss://hub.example/connect"),
            ("ws://127.0.0.1:8443/a/b?c=d", "127.0.0.1", 8443, "ws://127.0.0.1:8443/a/b?c=d"),
            ("wss://[fd00::1]:8443/connect", "fd00::1", 8443, "wss://[fd00::1]:8443/connect"),
            ("WSS://hub.example:443/connect", "hub.example", 443, "wss://hub.example/connect"),
        ] {
            let url: ServerUrl = text.parse().expect(text);
            assert_eq!((url.host.as_str(), url.port, url.to_string().as_str()), (host, port, expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_websocket_url_is_refused() {
        for bad in [
            "",
            "wss://=[fd00::1]:8443/connect",
            "hub.example",
            "hub.example:443",
            "https://hub.example",
            "wss://",
            "wss:///connect",
            "wss://h:0",
            "wss://h:99999",
            "wss://h:",
            "wss://h/#a",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
        let problem = "wss://user:hush@h/".parse::<ServerUrl>().expect_err("a password");
        assert!(!problem.contains("hush"), "{problem}");
    }
}
