//! Which way the agent takes to its hub: straight, or through an HTTP proxy.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use percent_encoding::percent_decode_str;
use proxy::flags::{self, HostPort};
use secrecy::SecretString;

/// The way to the hub.
#[derive(Debug, Clone)]
pub enum Way {
    /// No proxy is configured.
    Straight,
    /// A proxy is configured, and the hub is exempted from it.
    Exempted {
        /// The proxy that is not used.
        from: HubProxy,
        /// The rule that says so, in words.
        by: String,
    },
    /// Through a proxy, which also resolves the hub's name.
    Proxy(HubProxy),
}

impl Way {
    /// The proxy that is used.
    pub fn proxy(&self) -> Option<&HubProxy> {
        match self {
            Self::Straight | Self::Exempted { .. } => None,
            Self::Proxy(proxy) => Some(proxy),
        }
    }
}

/// An HTTP proxy that is asked for a tunnel by CONNECT (RFC 9110 section 9.3.6).
#[derive(Debug, Clone)]
pub struct HubProxy {
    /// `https` rather than `http`: what the proxy itself is spoken to with.
    pub tls: bool,
    /// A name or address, IPv6 without brackets.
    pub host: String,
    /// 443 or 80 when the URL has none, as Go has it.
    pub port: u16,
    /// CA of the proxy's own certificate, in PEM; `None` = the machine's own roots. What stands in the way of the hub's
    /// certificate is a matter of `AgentConfig::server_ca_cert`.
    pub ca_cert: Option<String>,
    /// What the proxy is shown.
    pub credentials: ProxyCredentials,
}

/// A user and a password for Basic authentication (RFC 7617), as `user:password`.
#[derive(Debug, Clone)]
pub enum ProxyCredentials {
    /// The proxy asks for nothing.
    None,
    /// For the life of the process.
    Fixed(SecretString),
    /// In this file; read again when it changes.
    File(String),
}

impl fmt::Display for HubProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = HostPort { host: self.host.clone(), port: self.port };
        write!(f, "{}://{at}", if self.tls { "https" } else { "http" })
    }
}

/// `http://user:password@proxy.example:3128`; no text of a mistake repeats what was given, which may hold a password.
impl FromStr for HubProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write http://proxy.example:3128 or https://proxy.example:3128";
        let wrong = |what: &str| format!("{what}; {FORM}");
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(wrong("is a SOCKS proxy, which is not supported"));
            }
            _ => return Err(wrong("has another scheme than http or https")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The last one: curl and Go take a password with a raw `@` in it too.
        let (user_info, place) = rest.rsplit_once('@').map_or((None, rest), |(user_info, place)| (Some(user_info), place));
        if place.contains(['/', '?', '#']) {
            return Err(wrong("has a path"));
        }
        let uri: Uri = format!("{scheme}://{place}").parse().map_err(|_| wrong("is no URL"))?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(|| wrong("has no host"))?;
        let port = match (&authority.as_str()[authority.host().len()..], authority.port_u16()) {
            ("", _) if tls => 443,
            ("", _) => 80,
            (_, Some(port)) if port != 0 => port,
            (_, Some(_) | None) => return Err(wrong("has no port between 1 and 65535")),
        };
        let host = flags::host_port(&format!("{}:{port}", authority.host())).map_err(|_| wrong("has no good host"))?.host;
        let credentials = match user_info {
            None => ProxyCredentials::None,
            Some(user_info) => ProxyCredentials::Fixed(decoded(user_info)?),
        };
        Ok(Self { tls, host, port, ca_cert: None, credentials })
    }
}

/// `user:password` of a URL, each percent-encoded (RFC 3986 section 3.2.1).
fn decoded(user_info: &str) -> Result<SecretString, String> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decode = |part: &str| {
        let decoded =
            percent_decode_str(part).decode_utf8().map_err(|_| "has a user or password that is not UTF-8".to_owned())?;
        Ok::<_, String>(decoded.into_owned())
    };
    let user = decode(user)?;
    if user.contains(':') {
        return Err("has a user name with a colon, which Basic authentication cannot carry".to_owned());
    }
    credentials(&format!("{user}:{}", decode(password)?))
}

/// `user:password`, with nothing behind it. Never echoed.
///
/// # Errors
/// What is wrong with it, never what it says.
pub(crate) fn credentials(text: &str) -> Result<SecretString, String> {
    match text.split_once(':') {
        None => Err("has no colon; write user:password on one line".to_owned()),
        Some(("", _)) => Err("has no user name; write user:password on one line".to_owned()),
        // RFC 7617 section 2.
        Some(_) if text.chars().any(char::is_control) => {
            Err("has control characters; write user:password on one line".to_owned())
        }
        Some(_) => Ok(text.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn secret(proxy: &HubProxy) -> Option<String> {
        match &proxy.credentials {
            ProxyCredentials::Fixed(secret) => Some(secret.expose_secret().to_owned()),
            ProxyCredentials::None | ProxyCredentials::File(_) => None,
        }
    }

    #[test]
    fn a_proxy_is_taken_as_curl_and_go_write_it() {
        for (text, expected, credentials) in [
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("proxy", "http://proxy:80", None),
            ("HTTPS://proxy.example/", "https://proxy.example:443", None),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
            ("10.0.0.1:8080", "http://10.0.0.1:8080", None),
            ("http://user:pass@proxy:3128", "http://proxy:3128", Some("user:pass")),
            ("user:p%40ss%3Aw%25@proxy:3128", "http://proxy:3128", Some("user:p@ss:w%")),
            ("http://user:p@ss@proxy:3128", "http://proxy:3128", Some("user:p@ss")),
            ("http://user@proxy:3128", "http://proxy:3128", Some("user:")),
        ] {
            let proxy: HubProxy = text.parse().expect(text);
            assert_eq!(proxy.to_string(), expected, "{text}");
            assert_eq!(secret(&proxy).as_deref(), credentials, "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_no_password_repeated() {
        for bad in [
            "",
            "http://",
            "socks5://u:hush@proxy:1080",
            "ftp://u:hush@proxy",
            "http://u:hush@",
            "http://u:hush@proxy:0",
            "http://u:hush@proxy:99999",
            "http://u:hush@proxy:x",
            "http://u:hush@proxy/path",
            "http://u%3Ax:hush@proxy",
            "http://:hush@proxy",
            "http://u:hush%0a@proxy",
            "http://u:hush%ff@proxy",
            "http://u:hush@pro xy",
        ] {
            let problem = bad.parse::<HubProxy>().expect_err(bad);
            assert!(!problem.contains("hush"), "{bad}: {problem}");
        }
    }

    #[test]
    fn nothing_that_is_printed_of_a_proxy_has_its_password() {
        let proxy: HubProxy = "http://user:hush@proxy:3128".parse().expect("good");
        assert!(!format!("{proxy} {proxy:?}").contains("hush"));
    }
}
