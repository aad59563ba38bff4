//! Trust: who may hold a session for which cluster, by a token and, where the cluster asks for one, a certificate.
//!
//! What was true when a session began is looked at again whenever a file changes on which it stands: the clusters, the
//! revoked certificates, the CA. A session that would not be let in now ends at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use host::certificate::PeerCertificate;
use host::tls::ServerTls;
use host::watched::{Contents, if_any};
use host::{Host, Watched};
use proxy::flags::{ConfigError, ConfigErrors};
use tunnel::id::ClusterId;

use crate::auth::{Revoked, TokenDigest};
use crate::config::clusters::{self, Clusters};
use crate::registry::Registry;
use crate::roster::{Changes, Roster};

/// What a session was let in by.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) token: TokenDigest,
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
}

/// Why an agent is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No token, or none that is known.
    Token,
    /// The certificate is among the revoked ones, or its CA is trusted no longer.
    Certificate,
    /// The certificate, or its absence, is not what the token's cluster asks for.
    Binding,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "the token is missing or unknown",
            Self::Certificate => "the client certificate is revoked",
            Self::Binding => "the client certificate is not the one that goes with the token",
        })
    }
}

/// What a session stands on.
pub(crate) struct Asked {
    pub(crate) cluster: ClusterId,
    /// What let it in.
    pub(crate) began: Credential,
    /// What its agent has shown since, by another session.
    pub(crate) renewed: Option<Credential>,
}

/// Whether a session may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It would be let in now.
    Good,
    /// It would not, but its agent has shown since what would be: it may finish what runs.
    Outdated,
    /// It may not.
    Denied(Denied),
}

impl Asked {
    /// What is merely outdated is forgiven to who has shown better since; what is revoked is not.
    pub(crate) fn verdict(&self, trust: &Trust) -> Verdict {
        match (trust.judge(&self.cluster, &self.began), &self.renewed) {
            (Ok(()), _) => Verdict::Good,
            (Err(_), Some(renewed)) if !trust.is_revoked(&self.began) => match trust.judge(&self.cluster, renewed) {
                Ok(()) => Verdict::Outdated,
                Err(denied) => Verdict::Denied(denied),
            },
            (Err(denied), _) => Verdict::Denied(denied),
        }
    }
}

/// How often sessions are looked at although no file has changed, for those that may finish what runs and no more.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Everything by which agents are judged.
pub(crate) struct Trust {
    roster: Arc<Roster>,
    tls: Option<Arc<ServerTls>>,
    clusters: Option<Arc<Watched<Clusters>>>,
    revoked: Option<Arc<Watched<Revoked>>>,
}

/// The clusters file, watched.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn watch_clusters(
    host: &Host,
    path: &str,
    asks_for_certificates: bool,
) -> Result<Arc<Watched<Clusters>>, ConfigErrors> {
    let path = path.to_owned();
    let place = format!("--clusters {path}");
    Watched::new(host, "clusters", vec![path.clone()], move |contents| {
        let clusters = clusters::judge(&place, contents.of(&path)).map_err(ConfigErrors)?;
        clusters.check_certificates(&place, asks_for_certificates).map_err(ConfigErrors)?;
        Ok(clusters)
    })
}

/// The list of revoked certificates, watched.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn watch_revoked(host: &Host, path: &str) -> Result<Arc<Watched<Revoked>>, ConfigErrors> {
    let path = path.to_owned();
    Watched::new(host, "revoked-certs", vec![path.clone()], move |contents| judge_revoked(&path, contents).map_err(ConfigErrors))
}

/// Checks what was read of the list of revoked certificates.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn judge_revoked(path: &str, contents: &Contents) -> Result<Revoked, Vec<ConfigError>> {
    let place = format!("--revoked-certs {path}");
    let bytes = contents.of(path).map_err(|unread| vec![ConfigError::new(&place, format!("cannot be read: {unread}"))])?;
    Revoked::parse(&place, bytes)
}

impl Trust {
    pub(crate) fn new(
        roster: Arc<Roster>,
        tls: Option<Arc<ServerTls>>,
        clusters: Option<Arc<Watched<Clusters>>>,
        revoked: Option<Arc<Watched<Revoked>>>,
    ) -> Self {
        Self { roster, tls, clusters, revoked }
    }

    /// Whose token it is, whatever comes with it.
    pub(crate) fn cluster_of(&self, token: Option<&[u8]>) -> Option<ClusterId> {
        token.and_then(|token| self.roster.cluster_of(token)).map(|(cluster, _)| cluster)
    }

    /// Whose agent it is that presents a token over a connection with this certificate.
    pub(crate) fn admit(
        &self,
        token: Option<&[u8]>,
        certificate: Option<Arc<PeerCertificate>>,
    ) -> Result<(ClusterId, Credential), Denied> {
        let (cluster, token) = token.and_then(|token| self.roster.cluster_of(token)).ok_or(Denied::Token)?;
        let credential = Credential { token, certificate };
        self.judge(&cluster, &credential)?;
        Ok((cluster, credential))
    }

    /// Whether this would be let in now.
    pub(crate) fn judge(&self, cluster: &ClusterId, credential: &Credential) -> Result<(), Denied> {
        if let Some(certificate) = &credential.certificate {
            let is_trusted = self.tls.as_ref().is_some_and(|tls| tls.trusts(certificate));
            if !is_trusted || self.is_revoked(credential) {
                return Err(Denied::Certificate);
            }
        }
        self.roster.judge(cluster, credential)
    }

    fn is_revoked(&self, credential: &Credential) -> bool {
        let revoked = self.revoked.as_ref().zip(credential.certificate.as_ref());
        revoked.is_some_and(|(revoked, certificate)| revoked.get().has(certificate))
    }

    /// Follows the files, and has the registry end the sessions that stand on what is gone; never ends.
    pub(crate) async fn follow(&self, registry: &Registry) {
        // Nothing was taken yet: the file may have changed since the command line was read.
        let mut clusters: Option<Arc<Clusters>> = None;
        loop {
            // Before the look, so that a change in between is not missed.
            let clusters_changed = if_any(self.clusters.as_ref().map(|clusters| clusters.changed()));
            let revoked_changed = if_any(self.revoked.as_ref().map(|revoked| revoked.changed()));
            let ca_changed = if_any(self.tls.as_ref().map(|tls| tls.changed()));
            let now = self.clusters.as_ref().map(|clusters| clusters.get());
            let is_taken = now.as_ref().zip(clusters.as_ref()).is_some_and(|(now, before)| Arc::ptr_eq(now, before));
            let changes = now.as_ref().filter(|_| !is_taken).map(|now| self.take(now)).unwrap_or_default();
            clusters = now;
            let n_sessions_ended = registry.follow(self, &self.roster, &changes);
            if n_sessions_ended > 0 || changes != Changes::default() {
                let Changes { added, removed, changed: others, rekeyed: _ } = changes;
                tracing::info!(?added, ?removed, changed = ?others, n_sessions_ended, "trust has changed");
            }
            tokio::select! {
                biased;
                () = clusters_changed => {}
                () = revoked_changed => {}
                () = ca_changed => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    fn take(&self, clusters: &Clusters) -> Changes {
        let changes = self.roster.replace(&clusters.list);
        if changes != Changes::default() {
            clusters.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        changes
    }
}
