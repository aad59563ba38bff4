//! The API server and the guard: whether requests that come through the tunnel will be answered.

use std::io::ErrorKind;
use std::time::Duration;

use host::tls::Failure;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use proxy::body::{self, Body};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::report::{Report, Step, Verdict};
use super::{Patient, bounded};
use crate::config::TargetTls;
use crate::guard;
use crate::upstream::UpstreamError;

/// `/version` has some hundred bytes; what is longer is no API server's.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long an answer may take: a dial and a handshake, each of which has 10 s of its own, and as much for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why the doctor got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{target} took the request and did not answer within {} s", ANSWER_MAX.as_secs())]
    Silent { target: String },
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What to do about an API server that says nothing.
pub(super) const SILENT: &str = "The API server takes connections and answers nothing, so look at the API server itself.";

const CUTS: &str =
    "The API server takes connections and cuts them, so look at its own log, and at --plain-target if it speaks no TLS.";

const PLAIN: &str = "What answers there does not speak plain HTTP, as API servers mostly speak TLS, so leave --plain-target out.";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

impl Patient {
    pub(super) async fn cluster(&self, report: &mut Report<'_>) {
        let api_server = bounded(self.api_server()).await;
        report.tell(Step::ApiServer, &api_server);
        let rights = match &api_server {
            Verdict::Failed { .. } => Verdict::needs(Step::ApiServer),
            Verdict::Fine(_) | Verdict::Warning { .. } | Verdict::Skipped(_) => bounded(self.rights()).await,
        };
        report.tell(Step::Rights, &rights);
        report.tell(Step::Guard, &self.guard());
    }

    async fn api_server(&self) -> Verdict {
        let target = self.config.target.to_string();
        if let Err(error) = self.host.resolve(&self.config.target.host, self.config.target.port).await {
            return Verdict::failed(
                format!("{} was not found: {error}", self.config.target.host),
                "The name of --target is not known here, so correct it, or look whether the cluster's DNS runs.",
            );
        }
        let began = Instant::now();
        let (status, text) = match self.ask_api_server(Request::get("/version").body(Vec::new())).await {
            Ok(answer) => answer,
            Err(error @ Unanswered::Silent { .. }) => return Verdict::failed(error.to_string(), SILENT),
            Err(Unanswered::Upstream(error)) => return self.api_server_failed(&error).await,
        };
        let is_plain = matches!(self.config.target_tls, TargetTls::Plain);
        match serde_json::from_slice::<Version>(&text) {
            Ok(version) if status == StatusCode::OK => {
                let version: String = version.git_version.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
                Verdict::fine(format!("{target} is Kubernetes {version}, and answers in {} ms", began.elapsed().as_millis()))
            }
            _ if status == StatusCode::FORBIDDEN => Verdict::warning(
                format!("{target} answers, and forbids /version"),
                "Bind the ClusterRole system:public-info-viewer to the agent's service account: the hub's own probe asks for /version.",
            ),
            // As Go's servers answer who speaks plain HTTP to their TLS.
            _ if status == StatusCode::BAD_REQUEST && is_plain => {
                Verdict::failed(format!("{target} answered {status} to plain HTTP"), PLAIN)
            }
            _ => Verdict::failed(
                format!("{target} answered {status} to /version"),
                "What answers there is no API server or one that is not well, so correct --target, or look at the API server itself.",
            ),
        }
    }

    async fn api_server_failed(&self, error: &UpstreamError) -> Verdict {
        let causes = std::iter::successors(std::error::Error::source(error), |&cause| cause.source());
        let seen = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        let failure = match error {
            UpstreamError::Unreachable { source, .. } => Failure::of(source),
            UpstreamError::Token { .. }
            | UpstreamError::TokenRefused { .. }
            | UpstreamError::NotTaken(_)
            | UpstreamError::Broken(_) => Failure::Broken,
        };
        let fix = match error {
            UpstreamError::Unreachable { .. } if matches!(failure, Failure::Expired | Failure::NotYetValid) => {
                "The API server's certificate is not of this time by this machine's clock, so set the clock right if it was found wrong above, or have the certificate renewed.".to_owned()
            }
            UpstreamError::Unreachable { .. } if matches!(failure, Failure::Issuer | Failure::Name | Failure::Certificate) => {
                "The API server's certificate is not by the CA in --ca-cert or not for the name in --target, so give the cluster's own CA and a name of its certificate.".to_owned()
            }
            UpstreamError::Unreachable { source, .. }
                if matches!(source.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) =>
            {
                CUTS.to_owned()
            }
            UpstreamError::Unreachable { source, .. } if source.kind() == ErrorKind::TimedOut && self.takes_connections().await => {
                SILENT.to_owned()
            }
            UpstreamError::Unreachable { target, .. } => {
                format!("Nothing answers at {target}, so correct --target, or open the way to it (a NetworkPolicy of this namespace?).")
            }
            UpstreamError::Token { path, .. } => {
                format!("The agent has no token of its service account, so mount one at {path}, or name its file by --sa-token-path.")
            }
            UpstreamError::TokenRefused { path } => {
                format!("The API server does not know the token in {path}, so mount one of this very cluster, made by kubelet.")
            }
            UpstreamError::NotTaken(_) | UpstreamError::Broken(_) if matches!(self.config.target_tls, TargetTls::Plain) => {
                PLAIN.to_owned()
            }
            UpstreamError::NotTaken(_) | UpstreamError::Broken(_) => CUTS.to_owned(),
        };
        Verdict::failed(seen, fix)
    }

    /// Whether it is the network that is silent, or who listens.
    async fn takes_connections(&self) -> bool {
        self.host.dial(&self.config.target.host, self.config.target.port).await.is_ok()
    }

    /// Asks as the agent asks, with its service account's token.
    pub(super) async fn ask_api_server(
        &self,
        request: Result<Request<Vec<u8>>, http::Error>,
    ) -> Result<(StatusCode, Vec<u8>), Unanswered> {
        let mut request = request.unwrap_or_default().map(body::full);
        body::announce_length(&mut request);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        if let Ok(target) = self.config.target.to_string().parse() {
            headers.insert(HOST, target);
        }
        let asked = timeout(ANSWER_MAX, async {
            let response = self.upstream.send(request, false).await?;
            let status = response.status();
            Ok((status, read(response.into_body()).await))
        });
        asked.await.unwrap_or_else(|_| Err(Unanswered::Silent { target: self.config.target.to_string() }))
    }

    fn guard(&self) -> Verdict {
        let is_frozen = self.config.state_dir.as_ref().is_some_and(|dir| {
            let error = self.host.read_file(&format!("{dir}/frozen")).err();
            error.is_none_or(|error| error.kind() != ErrorKind::NotFound)
        });
        if is_frozen {
            return Verdict::warning(
                "frozen by order: nothing passes",
                "End that by postern-agent unfreeze --state-dir, if it is to end.",
            );
        }
        let Some(path) = &self.config.guard else {
            return Verdict::fine("no policy is given: whatever RBAC allows passes");
        };
        match guard::read(&self.host, path) {
            Ok(policy) if policy.frozen => Verdict::warning(
                format!("{path} says frozen: nothing passes"),
                "Take that out of the file, if requests are to pass.",
            ),
            Ok(policy) => Verdict::fine(format!("{path} lets pass {policy}")),
            Err(mistake) => {
                Verdict::failed(mistake.to_string(), "Correct the policy as it says: an agent would not start with it.")
            }
        }
    }
}

/// The beginning of an answer. What breaks off or is longer cannot be read, which its reader says.
async fn read(mut answer: Body) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = answer.frame().await {
        text.extend(frame.into_data().unwrap_or_default());
        if text.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    text
}
