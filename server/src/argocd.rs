//! Registration in Argo CD: one cluster Secret for each configured cluster, kept by the server itself.
//!
//! What is there is listed once a minute and remembered; what is wanted is compared with it whenever something has changed, and
//! only what differs is written, each time under the condition that nobody wrote in between. What cannot be read stays as it is.

mod account;
mod api;
mod material;
mod memory;
mod plan;
mod returns;
pub(crate) mod secret;
mod setbacks;
mod writes;

use std::collections::BTreeMap;
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
use memory::Memory;
use plan::{Action, Plan, Standing, Target, Wanted};
use secret::{ConfigDigest, Found};
use setbacks::Why;

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
                    memory.returns.redraw();
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
            let absences = self.registry.absences().into_iter().map(|(cluster, absent)| (cluster.to_string(), absent)).collect();
            let standings = memory.returns.standings(absences, &memory.found, &self.config, &self.host);
            let mut wanted = self.wanted();
            memory.see_gone(&mut wanted);
            let standing = |cluster: &str| standings.get(cluster).copied().unwrap_or(Standing::Keep);
            let mut plan = plan::plan(&wanted, &memory.found, &standing, self.now());
            let mut actions = std::mem::take(&mut plan.actions);
            memory.taken.retain(|name, _| actions.iter().any(|action| action.is_creation() && action.name() == name));
            memory.setbacks.settle(&mut actions);
            self.account.tell(&plan, memory.taken.len());
            if let Some(written) = self.carry_out(&actions, is_fresh, &mut session, memory).await? {
                // What is there is counted as it is after what was done.
                let mut after = plan::plan(&wanted, &memory.found, &standing, self.now());
                self.account.tell(&after, memory.taken.len());
                memory.setbacks.settle(&mut after.actions);
                memory.tell_duplicates(&after);
                memory.returns.see(&memory.found, &wanted.hub);
                self.find_bent(&written, &after, &wanted, memory);
                return Ok(self.next_look(memory, &after));
            }
            memory.listed_at = None;
        }
        let text = "somebody else writes the same Secrets all the time".to_owned();
        Err(ApiError::Refused { verb: "every write", code: StatusCode::CONFLICT, text })
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
        let (hub, retention) = (self.config.hub.clone(), self.config.retention);
        Wanted { hub, config, digest, clusters, retention, seen_gone_for: BTreeMap::new() }
    }

    fn next_look(&self, memory: &Memory, after: &Plan) -> Instant {
        let list = memory.listed_at.map_or_else(Instant::now, |at| at + LIST_INTERVAL);
        let removal = after.next_removal.map(|left| Instant::now() + left);
        let is_waited_for = |action: &Action| memory.setbacks.waits(action) || memory.is_taken(action);
        let more = after.actions.iter().any(|action| !is_waited_for(action)).then(Instant::now);
        let next = [memory.returns.next(), memory.setbacks.next(), removal, more].into_iter().flatten().chain([list]).min();
        // Whatever is overdue because it could not be done: nothing is looked at without a pause.
        next.unwrap_or(list).max(Instant::now() + SETTLE)
    }

    /// Tells of those that were `written` and are not as they were written.
    fn find_bent(&self, written: &BTreeMap<String, ConfigDigest>, after: &Plan, wanted: &Wanted, memory: &mut Memory) {
        for action in &after.actions {
            let Some(before) = written.get(action.name()).filter(|_| !memory.is_taken(action)) else { continue };
            let there = memory.found.iter().find(|found| found.name == action.name());
            let is_configured =
                there.and_then(|there| there.cluster_of(&wanted.hub)).is_some_and(|of| wanted.clusters.contains_key(of));
            // What is configured no longer may have a second thing to be done to it.
            if (is_configured || action.digest() == *before) && memory.setbacks.add(action, Why::Bent, self.host.chance()) {
                tracing::warn!(
                    secret = action.name(),
                    "registration in Argo CD fails for a Secret: somebody, a webhook perhaps, changes what is written at once; it is tried again, less and less often"
                );
            }
        }
    }

    fn is_well(&self, memory: &mut Memory) {
        let (had_failed, had_setbacks) = (memory.failing.take().is_some(), memory.had_setbacks);
        memory.had_setbacks = !memory.setbacks.is_empty();
        self.account.failing(memory.had_setbacks);
        if (had_failed || had_setbacks) && !memory.had_setbacks {
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
