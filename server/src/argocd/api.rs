//! The hub's API server: Secrets of one namespace, over connections of the host.
//!
//! `kube` makes the requests; sending them is ours, since a `kube::Client` would run in a task that no host counts.

use std::io;
use std::time::Duration;

use host::Host;
use host::tls::{Alpn, ClientTls};
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectList, Resource, request};
use proxy::body::{self, Body, BoxError};
use proxy::flags::HostPort;
use proxy::status::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::plan::Action;
use super::secret::{MANAGED_BY, PROGRAM};
use crate::config::argocd;

/// How long one answer may take: a write waits up to 10 s for each of a few admission webhooks.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Secrets in one page: with certificates of a usual length, a megabyte.
const PAGE: u32 = 100;

/// The longest answer: sixteen Secrets of the greatest length, or a page of what is usual many times over.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Pages of one list: ten times the clusters that a file has room for. More is an API server that does not come to an end.
const PAGES_MAX: usize = 400;

/// Bytes of an answer's text that are told: enough for the sentence that says what is wrong.
const TEXT_BYTES_MAX: usize = 300;

/// Why the API server did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// It cannot be reached.
    #[error("the API server {target} cannot be reached (--argocd-api-server)")]
    Unreachable {
        target: String,
        #[source]
        source: io::Error,
    },
    /// The server's own token cannot be read.
    #[error("the token {path} cannot be read (--argocd-api-token-path)")]
    Token {
        path: String,
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("the API server answers {verb} with {code}: {text}")]
    Refused { verb: &'static str, code: StatusCode, text: String },
    /// The connection broke, or no answer came in time.
    #[error("the API server gave no answer to {verb}")]
    Broken {
        verb: &'static str,
        #[source]
        source: BoxError,
    },
    /// What came is no answer.
    #[error("the API server answers {verb} with what is none")]
    Malformed {
        verb: &'static str,
        #[source]
        source: BoxError,
    },
}

impl ApiError {
    /// What is told anew when it changes.
    pub(super) fn label(&self) -> (&'static str, u16) {
        match self {
            Self::Unreachable { .. } => ("unreachable", 0),
            Self::Token { .. } => ("token", 0),
            Self::Refused { verb, code, .. } => (verb, code.as_u16()),
            Self::Broken { .. } => ("broken", 0),
            Self::Malformed { .. } => ("malformed", 0),
        }
    }

    /// Whether it may be about one object and say nothing of others, as a webhook's 500 is.
    pub(super) fn is_of_one(&self) -> bool {
        match self {
            Self::Refused { code, .. } => !matches!(code.as_u16(), 401 | 429),
            Self::Malformed { .. } => true,
            Self::Unreachable { .. } | Self::Token { .. } | Self::Broken { .. } => false,
        }
    }

    /// Whether it has the status `code`.
    pub(super) fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

/// Where the Secrets are.
pub(super) struct Api {
    host: Host,
    addr: HostPort,
    tls: Option<ClientTls>,
    token_path: String,
    namespace: String,
}

impl Api {
    pub(super) fn new(host: Host, config: &argocd::ArgoCdConfig, tls: Option<ClientTls>) -> Self {
        let argocd::ApiServer { addr, token_path, ca: _ } = config.api.clone();
        Self { host, addr, tls, token_path, namespace: config.namespace.clone() }
    }

    /// A connection for requests one after the other. Dropping it ends it.
    pub(super) async fn connect(&self) -> Result<Session, ApiError> {
        let token = self.token()?;
        let unreachable = |source| ApiError::Unreachable { target: self.addr.to_string(), source };
        let mut connection = self.host.dial(&self.addr.host, self.addr.port).await.map_err(unreachable)?;
        if let Some(tls) = &self.tls {
            (connection, _) = tls.connect(connection, &self.addr.host, Alpn::Http1).await.map_err(unreachable)?;
        }
        let broken = |error: hyper::Error| ApiError::Broken { verb: "a dial", source: error.into() };
        let (sender, connection) = http1::handshake::<_, Body>(TokioIo::new(connection)).await.map_err(broken)?;
        let (alive, released) = oneshot::channel::<()>();
        self.host.spawn("argocd api server", async move {
            tokio::select! {
                biased;
                _ = released => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the hub's API server ended");
                },
            }
        });
        let authority = HeaderValue::from_str(&self.addr.to_string()).unwrap_or(HeaderValue::from_static("kubernetes"));
        let secrets = request::Request::new(Secret::url_path(&(), Some(&self.namespace)));
        Ok(Session { sender, token, authority, secrets, _alive: alive })
    }

    fn token(&self) -> Result<HeaderValue, ApiError> {
        let unreadable = |source| ApiError::Token { path: self.token_path.clone(), source };
        let bytes = self.host.read_file(&self.token_path).map_err(unreadable)?;
        let value = HeaderValue::from_bytes(&[b"Bearer ", bytes.trim_ascii()].concat());
        let mut value = value.map_err(|error| unreadable(io::Error::other(error)))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// One connection.
pub(super) struct Session {
    sender: http1::SendRequest<Body>,
    token: HeaderValue,
    authority: HeaderValue,
    secrets: request::Request,
    _alive: oneshot::Sender<()>,
}

impl Session {
    /// All Secrets that a server may have made.
    pub(super) async fn list(&mut self) -> Result<Vec<Secret>, ApiError> {
        const VERB: &str = "a list of Secrets";
        let mut found = Vec::new();
        let mut params = ListParams::default().labels(&format!("{MANAGED_BY}={PROGRAM}")).limit(PAGE);
        for _ in 0..PAGES_MAX {
            let page: ObjectList<Secret> = self.ask(VERB, self.secrets.list(&params)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
        Err(ApiError::Malformed { verb: VERB, source: format!("it has more than {PAGES_MAX} pages").into() })
    }

    /// One Secret, whoever made it.
    pub(super) async fn get(&mut self, name: &str) -> Result<Option<Secret>, ApiError> {
        match self.ask("a look at a Secret", self.secrets.get(name, &GetParams::default())).await {
            Ok(secret) => Ok(Some(secret)),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Carries one write out; the Secret as it is then, if it is there.
    pub(super) async fn write(&mut self, action: &Action) -> Result<Option<Secret>, ApiError> {
        match action {
            Action::Create { secret, .. } => {
                let request = self.secrets.create(&PostParams::default(), secret.to_string().into_bytes());
                self.ask("the creation of a Secret", request).await.map(Some)
            }
            Action::Patch { name, patch } => {
                let request = self.secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch));
                self.ask("a patch of a Secret", request).await.map(Some)
            }
            Action::Delete { name, uid, version } => {
                let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                // The object, which waits for its finalizers, or a Status: it is gone, or as good as that.
                let _: Value = self.ask("the deletion of a Secret", self.secrets.delete(name, &params)).await?;
                Ok(None)
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        verb: &'static str,
        request: Result<Request<Vec<u8>>, request::Error>,
    ) -> Result<T, ApiError> {
        let malformed = |source: BoxError| ApiError::Malformed { verb, source };
        let mut request = request.map_err(|error| malformed(error.into()))?.map(body::full);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.token.clone());
        headers.insert(HOST, self.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern-server/", env!("CARGO_PKG_VERSION"))));
        let broken = |source: BoxError| ApiError::Broken { verb, source };
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body::limited(body, ANSWER_BYTES_MAX)?.collect().await?.to_bytes();
            Ok((head.status, body))
        };
        let answered = timeout(ANSWER_MAX, exchange).await.map_err(|elapsed| broken(elapsed.into()))?;
        let (code, bytes) = answered.map_err(broken)?;
        if code.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| malformed(error.into()));
        }
        let text = Status::parse(&bytes).map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), |status| status.message);
        Err(ApiError::Refused { verb, code, text: crate::foreign::shown(&text, TEXT_BYTES_MAX) })
    }
}
