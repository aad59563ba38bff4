//! The URL of an HTTP server that a flag names.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// `http://HOST:PORT/PATH` or https, without user, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is spoken to by TLS.
    pub tls: bool,
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// 80 or 443 where none is written.
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
}

impl HttpUrl {
    /// The same with `path`, which begins with a slash, below its own.
    pub fn join(mut self, path: &str) -> Self {
        self.path = format!("{}{path}", self.path.trim_end_matches('/'));
        self
    }
}

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no URL such as http://name.example:8080");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        // `http` takes a port that is none, and then has none.
        let has_bad_port = authority.port_u16().is_none() && authority.as_str() != authority.host();
        if uri.query().is_some() || authority.host().is_empty() || has_bad_port {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host: authority.host().to_owned(), port, path: uri.path().to_owned() })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port, path } = self;
        write!(f, "{}://{host}:{port}{path}", if *tls { "https" } else { "http" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_a_url() {
        let told = |text: &str| text.parse::<HttpUrl>().map(|url| url.join("/v1/traces").to_string());
        assert_eq!(told("http://collector:4318").as_deref(), Ok("http://collector:4318/v1/traces"));
        assert_eq!(told("https://otel.example/base/").as_deref(), Ok("https://otel.example:443/base/v1/traces"));
        assert_eq!(told("http://[::1]:4318/").as_deref(), Ok("http://[::1]:4318/v1/traces"));
        for bad in [
            "",
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http://user:secret@collector",
            "http://c/?a=b",
            "http://c:99999",
            "http://c:",
        ] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
