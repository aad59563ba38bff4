//! Registration in Argo CD: one cluster Secret for each configured cluster, kept by the server itself.
//!
//! What is there is listed once a minute and remembered; what is wanted is compared with it whenever something has changed, and
//! only what differs is written, each time under the condition that nobody wrote in between. What cannot be read stays as it is.

mod account;
mod api;
mod material;
mod plan;
pub(crate) mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use host::tls::{ClientFiles, ClientTls};
use host::{Backoff, Drain, Host};
use http::StatusCode;
use jiff::Timestamp;
use proxy::program::StartError;
use tokio::time::Instant;

use crate::config::ServerConfig;
use crate::config::argocd::ArgoCdConfig;
use crate::kubeconfig::percent_encoded;
use crate::registry::Registry;
use crate::roster::Roster;
pub(crate) use account::{Account, METRICS};
use api::{Api, ApiError, Session};
use material::Material;
use plan::{Action, Standing, Target, Wanted};
use secret::{Found, SKIPPED_SINCE};

/// What the reference says of it.
pub(crate) const CHAPTER: &str = include_str!("argocd/chapter.md");

/// How often the Secrets are listed although nothing has changed here: what others did to them is undone within this time.
const LIST_INTERVAL: Duration = Duration::from_secs(60);

/// How long changes are gathered before they are looked at: a fleet that comes back is some tens of looks, and no thousands.
const SETTLE: Duration = Duration::from_secs(1);

/// Waits between attempts while the API server cannot be asked: at first as it restarts, at last as often as it is listed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = LIST_INTERVAL;

/// How often in a row the Secrets are read again because somebody else wrote in between; then it waits as after a failure.
const ROUNDS_MAX: usize = 3;

/// Keeps the Secrets.
pub(crate) struct Registration {
    host: Host,
    config: ArgoCdConfig,
    material: Material,
    api: Api,
    roster: Arc<Roster>,
    registry: Arc<Registry>,
    /// What it has come to.
    pub(crate) account: Account,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// What was there when it was listed, with what was written since.
    found: Vec<Found>,
    listed_at: Option<Instant>,
    /// Names that somebody else has, and whose they are.
    taken: BTreeMap<String, String>,
    /// When a cluster that is back is given back to Argo CD.
    returns: BTreeMap<String, Instant>,
    /// What is wrong, if anything is.
    failing: Option<(&'static str, u16)>,
}

/// Who has a name that is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// The cluster's own Secret, which was not listed yet.
    Ours,
    Others,
}

/// The registration that is configured, if one is.
///
/// # Errors
/// What is wrong with the files that it needs.
pub(crate) fn open(
    config: &ServerConfig,
    host: &Host,
    roster: &Arc<Roster>,
    registry: &Arc<Registry>,
) -> Result<Option<Registration>, StartError> {
    let Some(config) = &config.argocd else { return Ok(None) };
    let material = material(config, host)?;
    let api = Api::new(host.clone(), config, api_tls(config, host)?);
    let (config, roster, registry) = (config.clone(), roster.clone(), registry.clone());
    Ok(Some(Registration { host: host.clone(), config, material, api, roster, registry, account: Account::default() }))
}

/// What Argo CD is given.
pub(crate) fn material(config: &ArgoCdConfig, host: &Host) -> Result<Material, StartError> {
    Material::new(host, config).map_err(|source| {
        let path = source.path().to_owned();
        let (flag, source) = (config.flag_of(&path), Box::new(source));
        StartError::Material { flag, path, source }
    })
}

/// TLS towards the hub's API server.
pub(crate) fn api_tls(config: &ArgoCdConfig, host: &Host) -> Result<Option<ClientTls>, StartError> {
    let Some(ca) = &config.api.ca else { return Ok(None) };
    let files = ClientFiles { ca: Some(ca.clone()), ..ClientFiles::default() };
    let tls = ClientTls::new(host, "argocd-api", files);
    let unusable = |source| StartError::Material { flag: "argocd-api-ca-cert", path: ca.clone(), source: Box::new(source) };
    tls.map(Some).map_err(unusable)
}

impl Registration {
    /// Keeps them until the process is `asked` to end: what is written from then on is the successor's business.
    pub(crate) async fn run(&self, mut asked: Drain) {
        tokio::select! {
            biased;
            () = asked.started() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut memory = Memory::default();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            // Before the look, so that a change in between is not missed.
            let (roster_or_standing, files) = (self.registry.changed(), self.material.changed());
            match self.look(&mut memory).await {
                Ok(next) => {
                    backoff.reset();
                    self.is_well(&mut memory);
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(next) => {}
                        () = async { tokio::select! { biased; () = roster_or_standing => {}, () = files => {} } } => {
                            tokio::time::sleep(SETTLE).await;
                        }
                    }
                }
                Err(error) => {
                    self.is_failing(&mut memory, &error);
                    tokio::time::sleep(backoff.next(self.host.chance())).await;
                }
            }
        }
    }

    /// Does what is to be done; when to look again at the latest.
    async fn look(&self, memory: &mut Memory) -> Result<Instant, ApiError> {
        let mut session = None;
        for _ in 0..ROUNDS_MAX {
            let is_fresh = memory.listed_at.is_none_or(|at| at.elapsed() >= LIST_INTERVAL);
            if is_fresh {
                let listed = self.session(&mut session).await?.list().await?;
                memory.found = listed.into_iter().filter_map(Found::of).collect();
                memory.listed_at = Some(Instant::now());
            }
            let standings = self.standings(memory);
            let wanted = self.wanted();
            let standing = |cluster: &str| standings.get(cluster).copied().unwrap_or(Standing::Keep);
            let mut plan = plan::plan(&wanted, &memory.found, &standing, self.now());
            let actions = std::mem::take(&mut plan.actions);
            memory.taken.retain(|name, _| actions.iter().any(|action| action.is_creation() && action.name() == name));
            self.account.tell(&plan, memory.taken.len());
            if !self.carry_out(&actions, is_fresh, &mut session, memory).await? {
                // What is there is counted as it is after what was done.
                let after = plan::plan(&wanted, &memory.found, &standing, self.now());
                self.account.tell(&after, memory.taken.len());
                return Ok(self.next_look(memory, after.next_removal));
            }
            memory.listed_at = None;
        }
        let text = "somebody else writes the same Secrets all the time".to_owned();
        Err(ApiError::Refused { verb: "every write", code: StatusCode::CONFLICT, text })
    }

    /// Writes; whether something was found to be other than it was thought, so that all must be read again.
    async fn carry_out(
        &self,
        actions: &[Action],
        is_fresh: bool,
        session: &mut Option<Session>,
        memory: &mut Memory,
    ) -> Result<bool, ApiError> {
        let (mut is_stale, mut refused) = (false, None);
        for action in actions {
            // Who has a name is asked as often as the Secrets are listed.
            if action.is_creation() && memory.taken.contains_key(action.name()) && !is_fresh {
                continue;
            }
            let session = self.session(session).await?;
            match self.write(action, session, memory).await {
                Ok(is_done) => is_stale |= !is_done,
                Err(error) if error.is_of_one() => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            // One that is refused keeps none of the others from being written.
            Some(error) if !is_stale => Err(error),
            Some(_) | None => Ok(is_stale),
        }
    }

    /// Carries one write out. False when it was made for a Secret that is another now.
    async fn write(&self, action: &Action, session: &mut Session, memory: &mut Memory) -> Result<bool, ApiError> {
        if let Action::Create { name, cluster, .. } = action
            && memory.taken.contains_key(name)
        {
            match self.holder(name, cluster, session, memory).await? {
                Holder::Nobody => {}
                Holder::Ours => return Ok(false),
                Holder::Others => return Ok(true),
            }
        }
        match (session.write(action).await, action) {
            (Ok(secret), _) => {
                memory.found.retain(|found| found.name != action.name());
                memory.found.extend(secret.and_then(Found::of));
                self.account.wrote(action);
                tracing::info!(secret = action.name(), "{}", action.told());
                Ok(true)
            }
            (Err(error), Action::Create { name, cluster, .. }) if error.is(StatusCode::CONFLICT) => {
                Ok(self.holder(name, cluster, session, memory).await? == Holder::Others)
            }
            (Err(error), Action::Patch { .. } | Action::Delete { .. })
                if error.is(StatusCode::CONFLICT) || error.is(StatusCode::NOT_FOUND) =>
            {
                Ok(false)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Looks who has a name that a cluster's Secret needs, and tells it once of others.
    async fn holder(&self, name: &str, cluster: &str, session: &mut Session, memory: &mut Memory) -> Result<Holder, ApiError> {
        let there = session.get(name).await?.and_then(Found::of);
        let owner = match &there {
            Some(there) if there.cluster_of(&self.config.hub) != Some(cluster) => there.owner(&self.config.hub),
            there => {
                memory.taken.remove(name);
                return Ok(if there.is_some() { Holder::Ours } else { Holder::Nobody });
            }
        };
        if memory.taken.get(name) != Some(&owner) {
            let cure = "delete or rename it, and the cluster is registered within a minute";
            tracing::warn!(
                cluster,
                secret = name,
                owner,
                cure,
                "a cluster is not registered in Argo CD: its Secret's name is taken"
            );
            memory.taken.insert(name.to_owned(), owner);
        }
        Ok(Holder::Others)
    }

    async fn session<'a>(&self, session: &'a mut Option<Session>) -> Result<&'a mut Session, ApiError> {
        match session {
            Some(session) => Ok(session),
            None => Ok(session.insert(self.api.connect().await?)),
        }
    }

    fn wanted(&self) -> Wanted {
        let config = self.material.config();
        let digest = secret::digest(&config);
        let target = |described: crate::roster::Described| Target {
            server: format!("{}/tunnel/{}", self.config.url, percent_encoded(&described.route)),
            labels: described.labels,
            annotations: described.annotations,
        };
        let clusters = self.roster.described().into_iter().map(|(id, it)| (id.to_string(), target(it))).collect();
        Wanted { hub: self.config.hub.clone(), config, digest, clusters, retention: self.config.retention }
    }

    /// How clusters stand, with a moment drawn for each that is back.
    fn standings(&self, memory: &mut Memory) -> BTreeMap<String, Standing> {
        let now = Instant::now();
        let skipped: BTreeSet<_> = self.skipped(memory).map(str::to_owned).collect();
        memory.returns.retain(|cluster, _| skipped.contains(cluster));
        let mut standing = |cluster: &str, absent: Option<Duration>| match (absent, self.config.skip_after) {
            (None, _) if !skipped.contains(cluster) => Standing::Keep,
            (None, _) => {
                let share = (self.host.chance() >> 11) as f64 / (1u64 << 53) as f64;
                let drawn = now + self.config.return_spread.mul_f64(share);
                let due = *memory.returns.entry(cluster.to_owned()).or_insert(drawn);
                if now >= due { Standing::Lift } else { Standing::Keep }
            }
            (Some(absent), skip_after) => {
                memory.returns.remove(cluster);
                if skip_after.is_some_and(|max| absent >= max) { Standing::Skip } else { Standing::Keep }
            }
        };
        let absences = self.registry.absences().into_iter();
        absences.map(|(cluster, absent)| (cluster.to_string(), standing(cluster.as_str(), absent))).collect()
    }

    /// The clusters that Argo CD leaves alone because of us.
    fn skipped<'a>(&'a self, memory: &'a Memory) -> impl Iterator<Item = &'a str> {
        // What is being deleted is not written any more, and so never given back.
        let skipped = memory.found.iter().filter(|found| found.annotations.contains_key(SKIPPED_SINCE) && !found.is_ending);
        skipped.filter_map(|found| found.cluster_of(&self.config.hub))
    }

    fn next_look(&self, memory: &Memory, next_removal: Option<Duration>) -> Instant {
        let list = memory.listed_at.map_or_else(Instant::now, |at| at + LIST_INTERVAL);
        let removal = next_removal.map(|left| Instant::now() + left.max(SETTLE));
        let next = memory.returns.values().copied().chain(removal).chain([list]).min().unwrap_or(list);
        // Whatever is overdue because it could not be done: nothing is looked at without a pause.
        next.max(Instant::now() + SETTLE)
    }

    fn is_well(&self, memory: &mut Memory) {
        self.account.failing(false);
        if memory.failing.take().is_some() {
            tracing::info!("registration in Argo CD works again");
        }
    }

    /// What goes wrong for a long time is told once.
    fn is_failing(&self, memory: &mut Memory, error: &ApiError) {
        self.account.failing(true);
        if memory.failing != Some(error.label()) {
            memory.failing = Some(error.label());
            let why = proxy::program::chain(error);
            tracing::warn!(why, "registration in Argo CD fails: its cluster Secrets stay as they are, and it is tried again");
        }
    }

    /// The time of day, to the second.
    fn now(&self) -> Timestamp {
        let now = Timestamp::try_from(self.host.wall_clock()).unwrap_or_default();
        Timestamp::from_second(now.as_second()).unwrap_or_default()
    }
}
