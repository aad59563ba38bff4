//! Callers: who asks at the front door, and what it may ask for. Judged for each request, and again whenever a file changes
//! by which it was judged: what is allowed no longer ends at once.

mod file;
mod policy;
mod presented;
mod running;

use std::sync::Arc;

use host::tls::ServerTls;
use host::watched::{Contents, if_any};
use host::{Host, Watched};
use proxy::flags::{ConfigError, ConfigErrors};
use tunnel::StreamWatch;
use tunnel::id::ClusterId;

use crate::auth::Revoked;
use crate::forward::ANONYMOUS;
use crate::front_door::refusal::Refusal;
pub(crate) use file::CHAPTER;
use policy::Known;
pub(crate) use policy::Policy;
pub(crate) use policy::{Denial, Need};
pub(crate) use presented::{Presented, Shown};
pub(crate) use running::Place;
use running::Running;

/// Everything by which callers are judged, and the requests that run by it.
pub(crate) struct Callers {
    /// `None` = anybody may do anything.
    policy: Option<Arc<Watched<Policy>>>,
    /// Of the internal listener.
    tls: Option<Arc<ServerTls>>,
    revoked: Option<Arc<Watched<Revoked>>>,
    running: Arc<Running>,
}

/// The callers file, watched.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn watch(host: &Host, path: &str) -> Result<Arc<Watched<Policy>>, ConfigErrors> {
    let path = path.to_owned();
    Watched::new(host, "callers", vec![path.clone()], move |contents| file::judge(&path, contents).map_err(ConfigErrors))
}

/// The callers file at `path`, read once.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn read(host: &Host, path: &str) -> Result<Policy, Vec<ConfigError>> {
    file::judge(path, &Contents::read(host, &[path.to_owned()]))
}

impl Callers {
    pub(crate) fn new(
        policy: Option<Arc<Watched<Policy>>>,
        tls: Option<Arc<ServerTls>>,
        revoked: Option<Arc<Watched<Revoked>>>,
    ) -> Self {
        Self { policy, tls, revoked, running: Arc::default() }
    }

    /// Whether a request over a connection that showed this certificate is judged at all.
    pub(crate) fn judges(&self, certificate: Option<&Arc<Shown>>) -> bool {
        self.policy.is_some() || certificate.is_some()
    }

    /// Whether tokens are looked at.
    pub(crate) fn know_tokens(&self) -> bool {
        self.policy.is_some()
    }

    /// The name of who presents this, and whether its request may go on to where it leads.
    ///
    /// A cluster that is not there, one that the caller may not reach and a caller that is nobody get one and the same answer,
    /// at once; those alone who may reach every cluster are told that one is not there.
    pub(crate) fn admit(
        self: &Arc<Self>,
        presented: Presented,
        routed: Result<ClusterId, Refusal>,
        need: &Need,
    ) -> (Arc<str>, Result<(ClusterId, Admission), Refusal>) {
        let policy = self.policy();
        let identified = self.identify(policy.as_deref(), &presented);
        let known = identified.ok().flatten();
        let name = known.map_or_else(|| ANONYMOUS.into(), |caller| caller.name.clone());
        let may_know_all = known.is_none_or(Known::may_reach_all);
        let admitted = match (routed, identified) {
            (Ok(_) | Err(Refusal::UnknownCluster { .. }), Err(denial)) => Err(Refusal::Denied(denial)),
            (Err(Refusal::UnknownCluster { .. }), Ok(_)) if !may_know_all => Err(Refusal::Denied(Denial::Cluster)),
            (Err(refusal), _) => Err(refusal),
            (Ok(cluster), Ok(caller)) => judge(caller, cluster.as_str(), need).map(|()| {
                let request = Admitted { presented, name: name.clone(), cluster: cluster.clone(), need: need.clone() };
                (cluster, Admission { callers: self.clone(), request: Arc::new(request) })
            }),
        };
        (name, admitted)
    }

    /// The name of who presents this, and what it sees who may look at the clusters that some rule lets it reach. A caller that
    /// is nobody gets the answer that it would get for any cluster.
    pub(crate) fn look<T>(
        &self,
        presented: &Presented,
        look: impl FnOnce(&dyn Fn(&ClusterId) -> bool) -> T,
    ) -> (Arc<str>, Result<T, Refusal>) {
        let policy = self.policy();
        match self.identify(policy.as_deref(), presented) {
            Ok(Some(caller)) => (caller.name.clone(), Ok(look(&|cluster| caller.may_reach(cluster.as_str())))),
            Ok(None) => (ANONYMOUS.into(), Ok(look(&|_| true))),
            Err(denial) => (ANONYMOUS.into(), Err(Refusal::Denied(denial))),
        }
    }

    /// Follows the files, and ends what they let run no longer; never ends itself.
    pub(crate) async fn follow(&self) {
        loop {
            // Before the look, so that a change in between is not missed.
            let policy_changed = if_any(self.policy.as_ref().map(|policy| policy.changed()));
            let revoked_changed = if_any(self.revoked.as_ref().map(|revoked| revoked.changed()));
            let ca_changed = if_any(self.tls.as_ref().map(|tls| tls.changed()));
            let policy = self.policy();
            let n_requests_cut = self.running.cut_unless(|request| self.allows(policy.as_deref(), request));
            if n_requests_cut > 0 {
                tracing::info!(n_requests_cut, "callers may do less than before");
            }
            tokio::select! {
                biased;
                () = policy_changed => {}
                () = revoked_changed => {}
                () = ca_changed => {}
            }
        }
    }

    fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.as_ref().map(|policy| policy.get())
    }

    /// Who it is; nobody in particular where there is no policy.
    fn identify<'a>(&self, policy: Option<&'a Policy>, presented: &Presented) -> Result<Option<&'a Known>, Denial> {
        if let Some(shown) = &presented.certificate {
            let is_revoked = self.revoked.as_ref().is_some_and(|revoked| revoked.get().has(&shown.certificate));
            if is_revoked || !self.tls.as_ref().is_some_and(|tls| shown.is_trusted_by(tls)) {
                return Err(Denial::RevokedCertificate);
            }
        }
        policy.map(|policy| policy.identify(presented)).transpose()
    }

    /// Whether a request would be let in now, under its own name: another would stand in no log of what it did so far.
    fn allows(&self, policy: Option<&Policy>, request: &Admitted) -> bool {
        let Admitted { presented, name, cluster, need } = request;
        let caller = self.identify(policy, presented).ok();
        caller.is_some_and(|caller| {
            caller.is_none_or(|caller| caller.name == *name) && judge(caller, cluster.as_str(), need).is_ok()
        })
    }
}

/// What a request was let in by.
#[derive(Clone)]
pub(crate) struct Admission {
    callers: Arc<Callers>,
    request: Arc<Admitted>,
}

/// A request that was let in, with all that its judgement depends on.
struct Admitted {
    presented: Presented,
    name: Arc<str>,
    cluster: ClusterId,
    need: Need,
}

impl Admission {
    /// The request has a stream, which is cut when it is allowed no longer.
    ///
    /// # Errors
    /// It is so by now: it waited, and the rules changed.
    pub(crate) fn enter(&self, stream: StreamWatch) -> Result<Place, Refusal> {
        // Who sees that the rules have changed looks at what runs later than this.
        let place = self.callers.running.enter(self.request.clone(), stream);
        let policy = self.callers.policy();
        let caller = self.callers.identify(policy.as_deref(), &self.request.presented).map_err(Refusal::Denied)?;
        if caller.is_some_and(|caller| caller.name != self.request.name) {
            // What it presents is somebody else's by now, whose name stands in no log of it.
            return Err(Refusal::Denied(Denial::TwoCallers));
        }
        judge(caller, self.request.cluster.as_str(), &self.request.need)?;
        Ok(place)
    }
}

/// Whether the caller may do that in a cluster that is there.
fn judge(caller: Option<&Known>, cluster: &str, need: &Need) -> Result<(), Refusal> {
    let Some(caller) = caller else { return Ok(()) };
    if !caller.may_reach(cluster) {
        return Err(Refusal::Denied(Denial::Cluster));
    }
    match caller.lacks(cluster, need) {
        Some(verb) => {
            let (caller, verb) = (caller.name.to_string(), verb.to_owned());
            Err(Refusal::VerbDenied { caller, verb, cluster: cluster.to_owned() })
        }
        None => Ok(()),
    }
}
