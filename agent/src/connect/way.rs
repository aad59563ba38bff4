//! The way to the hub: straight, or by a CONNECT (RFC 9110 section 9.3.6) to an HTTP proxy.
//!
//! The API server is never reached through a proxy: it is beside the agent, and a proxy that could reach it would see the
//! token with the cluster's rights.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use host::tls::{Alpn, ClientFiles, ClientTls, Failure};
use host::watched::Contents;
use host::{Connection, Host, Watched};
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proxy::flags::{ConfigError, HostPort};
use proxy::program::StartError;
use secrecy::{ExposeSecret, SecretString};

use crate::config::way::credentials;
use crate::config::{self, HubProxy, ProxyCredentials, ServerUrl};
use crate::connect::answer::repeats_any;

/// How long a proxy may take for its answer: it resolves the hub's name and dials it meanwhile, and one that finds the hub
/// silent should be heard saying so before the dial as a whole is given up.
const CONNECT_ANSWER_MAX: Duration = Duration::from_secs(20);

/// The longest head of an answer; a proxy's has a few lines. hyper takes no less than 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How much of what a proxy says of its reason is logged.
const REASON_MAX: usize = 200;

/// Where proxies say why: RFC 9209, and squid's own.
const REASON_HEADERS: [&str; 2] = ["proxy-status", "x-squid-error"];

/// Why a proxy did not lead to the hub.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// Nobody answers where it should be.
    #[error("failed to reach the proxy {proxy}: {source}")]
    Unreachable { proxy: String, source: io::Error },
    /// It is spoken to by https, and TLS came to no agreement.
    #[error("the TLS handshake with the proxy {proxy} failed: {source}{}", tls_hint(source))]
    Tls { proxy: String, source: io::Error },
    /// It said no, or that it cannot.
    #[error("the proxy {proxy} answered {status}{}{}", said(.reason), hint(*.status))]
    Refused { proxy: String, status: StatusCode, reason: Option<String> },
    /// It does not answer a CONNECT as a proxy does.
    #[error("what answers at {proxy} is no HTTP proxy: {what} (an https proxy is written https://)")]
    NoProxy { proxy: String, what: String },
    /// It took the connection and says nothing.
    #[error("the proxy {proxy} did not answer within {} s", CONNECT_ANSWER_MAX.as_secs())]
    Silent { proxy: String },
}

impl ProxyError {
    /// Whether the proxy gave an answer that it will mostly give again. That it cannot reach the hub is none: the hub is
    /// being restarted.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Refused { status, .. } => !proxy_cannot_reach_hub(*status),
            Self::Tls { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            Self::NoProxy { .. } => true,
            Self::Unreachable { .. } | Self::Silent { .. } => false,
        }
    }
}

/// Whether a proxy's answer to a CONNECT says that the place behind it is away. tinyproxy says 500 of one that it cannot
/// resolve or connect to.
pub(crate) fn proxy_cannot_reach_hub(status: StatusCode) -> bool {
    status == StatusCode::INTERNAL_SERVER_ERROR || cannot_reach_hub(status)
}

/// Whether a gateway says that the place behind it is away (RFC 9110 sections 15.6.3 to 15.6.5).
pub(crate) fn cannot_reach_hub(status: StatusCode) -> bool {
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&status)
}

/// Whether a proxy wants to know who asks. tinyproxy says 401 of a wrong password.
pub(crate) fn wants_credentials(status: StatusCode) -> bool {
    [StatusCode::PROXY_AUTHENTICATION_REQUIRED, StatusCode::UNAUTHORIZED].contains(&status)
}

fn tls_hint(error: &io::Error) -> &'static str {
    match Failure::of(error) == Failure::Issuer {
        true => " (is --proxy-ca-cert the CA of its certificate?)",
        false => "",
    }
}

fn said(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        status if wants_credentials(status) => ": it wants another user and password (--proxy-credentials)",
        StatusCode::FORBIDDEN => ": its rules do not allow a CONNECT to the hub's name and port",
        status if proxy_cannot_reach_hub(status) => ": the proxy cannot reach the hub",
        _ => "",
    }
}

/// How the hub is reached.
pub(crate) struct Way {
    host: Host,
    proxy: Option<Proxy>,
}

/// A proxy, and what it is shown.
pub(crate) struct Proxy {
    config: HubProxy,
    tls: Option<ClientTls>,
    credentials: Credentials,
}

enum Credentials {
    None,
    Fixed(SecretString),
    File(Arc<Watched<SecretString>>),
}

impl Credentials {
    fn get(&self) -> Option<SecretString> {
        match self {
            Self::None => None,
            Self::Fixed(secret) => Some(secret.clone()),
            Self::File(file) => Some(SecretString::clone(&file.get())),
        }
    }
}

impl Way {
    /// What is shown on it, which is to stand in no log.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        self.proxy.as_ref().map(Proxy::secrets).unwrap_or_default()
    }

    /// Reads the files of the proxy, if there is one, and goes on watching them.
    ///
    /// # Errors
    /// What is wrong with them now.
    pub(crate) fn new(host: &Host, way: &config::Way) -> Result<Self, StartError> {
        match way {
            config::Way::Straight => {}
            config::Way::Exempted { from, by } => tracing::info!("the hub is dialled past the proxy {from}: {by}"),
            config::Way::Proxy(proxy) => tracing::info!("the hub is dialled through the proxy {proxy}"),
        }
        Ok(Self { host: host.clone(), proxy: way.proxy().map(|proxy| Proxy::new(host, proxy)).transpose()? })
    }

    /// A connection to the hub's own port, through the proxy if there is one.
    pub(crate) async fn dial(&self, server: &ServerUrl) -> Result<Connection, super::DialError> {
        match &self.proxy {
            None => self.host.dial(&server.host, server.port).await.map_err(super::DialError::Unreachable),
            Some(proxy) => {
                let connection = proxy.reach(&self.host).await?;
                Ok(proxy.ask_for(&self.host, connection, server).await?)
            }
        }
    }
}

impl Proxy {
    /// What it is shown, with the password also alone.
    fn secrets(&self) -> Vec<SecretString> {
        let Some(shown) = self.credentials.get() else { return Vec::new() };
        let password = shown.expose_secret().split_once(':').map(|(_, password)| SecretString::from(password));
        password.into_iter().chain([shown]).collect()
    }

    fn new(host: &Host, config: &HubProxy) -> Result<Self, StartError> {
        let tls = if config.tls {
            let files = ClientFiles { ca: config.ca_cert.clone(), ..ClientFiles::default() };
            let path = config.ca_cert.clone().unwrap_or_default();
            let tls = ClientTls::new(host, "proxy-tls", files);
            Some(tls.map_err(|source| StartError::Material { flag: "proxy-ca-cert", path, source: Box::new(source) })?)
        } else {
            None
        };
        let credentials = match &config.credentials {
            ProxyCredentials::None => Credentials::None,
            ProxyCredentials::Fixed(secret) => Credentials::Fixed(secret.clone()),
            ProxyCredentials::File(path) => {
                let (paths, path) = (vec![path.clone()], path.clone());
                let watched = Watched::new(host, "proxy-credentials", paths, move |contents| read_credentials(contents, &path));
                let mistake = |problem| StartError::Config(vec![ConfigError::new("--proxy-credentials", problem)]);
                Credentials::File(watched.map_err(mistake)?)
            }
        };
        Ok(Self { config: config.clone(), tls, credentials })
    }

    /// A connection to the proxy itself.
    pub(crate) async fn reach(&self, host: &Host) -> Result<Connection, ProxyError> {
        let proxy = || self.config.to_string();
        let connection = host.dial(&self.config.host, self.config.port).await;
        let connection = connection.map_err(|source| ProxyError::Unreachable { proxy: proxy(), source })?;
        match &self.tls {
            None => Ok(connection),
            Some(tls) => {
                let connected = tls.connect(connection, &self.config.host, Alpn::Http1).await;
                connected.map(|(connection, _)| connection).map_err(|source| ProxyError::Tls { proxy: proxy(), source })
            }
        }
    }

    /// Has the proxy lead a connection on to the hub.
    pub(crate) async fn ask_for(
        &self,
        host: &Host,
        connection: Connection,
        server: &ServerUrl,
    ) -> Result<Connection, ProxyError> {
        let asked = tokio::time::timeout(CONNECT_ANSWER_MAX, self.connect(host, connection, server)).await;
        asked.unwrap_or_else(|_| Err(ProxyError::Silent { proxy: self.config.to_string() }))
    }

    async fn connect(&self, host: &Host, connection: Connection, server: &ServerUrl) -> Result<Connection, ProxyError> {
        let no_proxy = |what: String| ProxyError::NoProxy { proxy: self.config.to_string(), what };
        let request = self.request(server).map_err(|error| no_proxy(error.to_string()))?;
        let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(connection)).await;
        let (mut sender, exchange) = handshake.map_err(|error| no_proxy(error.to_string()))?;
        host.spawn("proxy", async move {
            // Its error arrives with the answer.
            let _ = exchange.with_upgrades().await;
        });
        let response = sender.send_request(request).await.map_err(|error| match super::dial::io_error(&error) {
            Some(source) => ProxyError::Unreachable { proxy: self.config.to_string(), source },
            None => no_proxy(error.to_string()),
        })?;
        // Any 2xx is a tunnel.
        if !response.status().is_success() {
            let reason = reason(response.headers()).filter(|reason| !repeats_any(reason.as_bytes(), &self.secrets()));
            return Err(ProxyError::Refused { proxy: self.config.to_string(), status: response.status(), reason });
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| no_proxy(error.to_string()))?;
        let parts = upgraded
            .downcast::<TokioIo<Connection>>()
            .map_err(|_| no_proxy("its connection is not of the kind that was dialled".to_owned()))?;
        if !parts.read_buf.is_empty() {
            // The hub speaks second, in TLS and in HTTP.
            return Err(no_proxy(format!(
                "{} bytes followed its answer before anything was asked of the hub",
                parts.read_buf.len()
            )));
        }
        Ok(parts.io.into_inner())
    }

    /// Names the hub and nothing else of it: no path, no token. The name is resolved by the proxy.
    fn request(&self, server: &ServerUrl) -> Result<Request<Empty<Bytes>>, http::Error> {
        let place = HostPort { host: server.host.clone(), port: server.port }.to_string();
        let request = Request::builder().method(Method::CONNECT).uri(&place).header(HOST, &place);
        let request = match self.credentials.get() {
            None => request,
            Some(credentials) => {
                let mut basic = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(credentials.expose_secret())))?;
                basic.set_sensitive(true);
                request.header(PROXY_AUTHORIZATION, basic)
            }
        };
        request.body(Empty::new())
    }
}

/// What a proxy says of its reason, as far as it can be printed.
fn reason(headers: &HeaderMap) -> Option<String> {
    let value = REASON_HEADERS.iter().find_map(|name| headers.get(*name))?.to_str().ok()?;
    Some(value.chars().take(REASON_MAX).collect())
}

/// The user and password in a file.
///
/// # Errors
/// What is wrong with it, never what it says.
pub(crate) fn read_credentials(contents: &Contents, path: &str) -> Result<SecretString, String> {
    let bytes = contents.of(path).map_err(|unread| format!("{path} cannot be read: {unread}"))?;
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{path} is no text"))?;
    // An editor's last newline is no part of a password.
    credentials(text.trim_end_matches(['\r', '\n'])).map_err(|problem| format!("{path} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_cannot_connect_is_asked_again_soon_and_one_that_forbids_is_not() {
        let refused = |status| ProxyError::Refused { proxy: "http://proxy:3128".to_owned(), status, reason: None };
        // 500 is tinyproxy's, the others squid's and envoy's.
        for status in [500, 502, 503, 504].map(|code| StatusCode::from_u16(code).expect("a status")) {
            let error = refused(status);
            assert!(!error.is_answered() && error.to_string().ends_with(": the proxy cannot reach the hub"), "{error}");
            assert_eq!(cannot_reach_hub(status), status != StatusCode::INTERNAL_SERVER_ERROR, "{status} of a gateway");
        }
        assert!(refused(StatusCode::FORBIDDEN).is_answered());
    }
}
