//! World: the plan of a story as a value: hub, clusters, links, seed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agent::AgentConfig;
use agent::config::TargetTls;
use secrecy::SecretString;
use server::config::{ArgoCdConfig, TokenDigest};
use server::{ClusterConfig, ServerConfig};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::apiserver::{Options, Rights};
use crate::checkers::{self, credentials};
use crate::fabric::Wan;
use crate::middlebox::Middlebox;
use crate::pki;
use crate::promise::{self, Promise, Promises, Telling};
use crate::rogue::Rogue;
use crate::seed::Seed;
use crate::stage::Stage;
use crate::stand_in::StandIn;
use crate::story::Story;
use crate::trace::Trace;

/// No story lasts longer: a world in which nobody ever does anything again would hang the test.
const STORY_MAX: Duration = Duration::from_secs(24 * 3600);

/// A story that takes this long by the wall's clock spins without letting its own clock go on: a task that always wants
/// to be polled. Fifty times what the longest story takes on a loaded machine.
const WALL_MAX: Duration = Duration::from_secs(300);

/// How much of the transcript a failure shows.
const LINES_SHOWN: usize = 40;

/// Where the agents find their token for the API server.
pub const SA_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Where the hub is, and the name of its own Kubernetes.
pub(crate) const HUB: &str = "hub";

/// Where Argo CD has its Secrets.
pub const ARGOCD_NAMESPACE: &str = "argocd";

/// Where the hub finds its clusters.
pub(crate) const CLUSTERS_PATH: &str = "/etc/postern/clusters.json";

/// Where the hub finds what its callers may do.
pub const CALLERS_PATH: &str = "/etc/postern/callers.yaml";

/// The plan of a world. [`World::tell`] builds it and runs a story in it.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) seed: u64,
    pub(crate) hub: Hub,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) begins_cold: bool,
    pub(crate) has_tls: bool,
    pub(crate) promises: Option<Promises>,
    /// Machine, path, content.
    pub(crate) files: Vec<(String, String, String)>,
}

/// The plan of the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    /// What the server runs on; the clusters are filled in when the story begins.
    pub config: ServerConfig,
    /// What stands in its callers file, if it has one.
    pub(crate) callers: Option<String>,
    pub(crate) is_version_1: bool,
    pub(crate) stand_in: Option<StandIn>,
    pub(crate) behind: Option<Middlebox>,
    /// Its own Kubernetes.
    pub(crate) kubernetes: Option<Cluster>,
}

/// The plan of a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) id: String,
    pub(crate) wan: Wan,
    pub(crate) n_agents: usize,
    pub(crate) behind: Option<Middlebox>,
    pub(crate) api: Options,
    pub(crate) n_apis: usize,
    pub(crate) has_tls_upstream: bool,
    pub(crate) stand_in: Option<StandIn>,
    pub(crate) rogue: Option<Rogue>,
    /// What its agents run on.
    pub config: AgentConfig,
    pub(crate) played_by: Player,
}

/// Who plays the agents of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Player {
    Product,
    Version1,
    Hostile,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A hub and no cluster.
    pub fn new() -> Self {
        Self {
            seed: 1,
            hub: Hub {
                config: ServerConfig::default(),
                callers: None,
                is_version_1: false,
                stand_in: None,
                behind: None,
                kubernetes: None,
            },
            clusters: Vec::new(),
            begins_cold: false,
            has_tls: false,
            promises: None,
            files: Vec::new(),
        }
    }

    /// Has a file on a machine from the beginning.
    pub fn file(mut self, machine: &str, path: &str, content: &str) -> Self {
        self.files.push((machine.to_owned(), path.to_owned(), content.to_owned()));
        self
    }

    /// Changes the hub.
    pub fn hub(mut self, change: impl FnOnce(Hub) -> Hub) -> Self {
        self.hub = change(self.hub);
        self
    }

    /// Adds a cluster: one agent on a LAN, three pods.
    pub fn cluster(mut self, id: &str, change: impl FnOnce(Cluster) -> Cluster) -> Self {
        let mut cluster = Cluster::new(id);
        if self.has_tls {
            pki::plan_agent(&mut cluster.config);
        }
        self.clusters.push(change(cluster));
        self
    }

    /// Has TLS between agents and hub, mutual, and between agents and API servers; see [`pki`]. Callers speak
    /// plainly. Keys and signatures are no part of the seed: claim outcomes, not times. Comes before the clusters.
    pub fn tls(mut self) -> Self {
        assert!(self.clusters.is_empty(), "say tls before the clusters, which may want it otherwise");
        self.has_tls = true;
        pki::plan_hub(&mut self.hub.config);
        self
    }

    /// Draws all chance from `seed`; `SIM_SEED` in the environment has the last word.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Has a hub that asks no API server by itself, for stories that count what arrives there, or crosses a way.
    pub fn unprobed(mut self) -> Self {
        self.hub.config.probe_interval = None;
        self
    }

    /// Lets the story begin with the world's first moment, before any agent is connected.
    pub fn cold(mut self) -> Self {
        self.begins_cold = true;
        self
    }

    /// States what the story claims with a version 1 agent in every cluster, and with a version 1 server.
    pub fn version_1(mut self, agent: Promise, server: Promise) -> Self {
        self.promises = Some(Promises { agent, server });
        self
    }

    fn uses_tls(&self) -> bool {
        self.has_tls || self.clusters.iter().any(|cluster| cluster.has_tls_upstream)
    }

    pub(crate) fn gives_tls_to(&self, place: &str) -> bool {
        self.has_tls || self.clusters.iter().any(|cluster| cluster.id == place && cluster.has_tls_upstream)
    }

    /// Tells a story in this world, and again with version 1 peers where it promises something of them; looks at what
    /// must hold in every world at the end of each.
    ///
    /// # Panics
    /// If a claim of the story or of a checker is false, with the seed to repeat it and the end of the transcript; if
    /// nobody said what the story promises of version 1 peers.
    pub fn tell(mut self, story: impl AsyncFn(Story) -> anyhow::Result<()>) {
        self.seed = seed_from_environment().unwrap_or(self.seed);
        for Telling { world, cast, less } in promise::tellings(self) {
            let play = || {
                world.clone().play(async |s: Story| {
                    s.claim_less(less);
                    story(s.clone()).await?;
                    s.expect_less()
                })
            };
            let (result, trace) = play();
            let shown = if wants_trace() { usize::MAX } else { LINES_SHOWN };
            match result {
                Err(failure) => panic!("{failure}  {cast}\n\n{}", trace.render(shown)),
                Ok(()) if wants_trace() => print(&trace.render(shown)),
                Ok(()) => {}
            }
            // Keys and signatures of TLS are the operating system's.
            if wants("SIM_TWICE") && !world.uses_tls() {
                let again = play().1.render(usize::MAX);
                let differs = trace
                    .render(usize::MAX)
                    .lines()
                    .zip(again.lines())
                    .find(|(one, other)| one != other)
                    .map(|(one, other)| format!("one seed gave two transcripts  {cast}\n{one}\n{other}"));
                assert!(differs.is_none(), "{}", differs.unwrap_or_default());
            }
        }
    }

    /// Like [`World::tell`] with the plan's own seed, but hands back what became of it, with the transcript.
    pub fn play(self, story: impl AsyncFnOnce(Story) -> anyhow::Result<()>) -> (Result<(), Failure>, Trace) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without any io");
        runtime.block_on(async {
            let trace = Trace::new();
            let _told = watch_the_wall(trace.clone());
            let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(trace.clone());
            let _logs = tracing::subscriber::set_default(subscriber);
            let result = self.run(trace.clone(), story).await;
            (result.map_err(|claim| Failure { claim, seed: self.seed }), trace)
        })
    }

    async fn run(&self, trace: Trace, story: impl AsyncFnOnce(Story) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (panics, mut panicked) = watch::channel(None);
        let panics = Arc::new(move |message| {
            // Only the first is told: the others are its consequences.
            panics.send_if_modified(|first: &mut Option<String>| {
                let is_first = first.is_none();
                first.get_or_insert(message);
                is_first
            });
        });
        let stage = Arc::new(Stage::build(self, Seed(self.seed), trace, panics));
        let told = async {
            let story_of = Story::new(stage.clone());
            stage.start();
            if !self.begins_cold {
                story_of.all_connected().await?;
            }
            story(story_of.clone()).await?;
            checkers::check(&story_of).await
        };
        let panicked = async {
            match panicked.wait_for(Option::is_some).await {
                Ok(message) => message.clone().unwrap_or_default(),
                // The stage, which owns the sender, outlives the story.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = panicked => Err(anyhow::anyhow!(message)),
            told = tokio::time::timeout(STORY_MAX, told) => told.unwrap_or_else(|_| Err(anyhow::anyhow!("the story never ended"))),
        }
    }
}

impl Hub {
    /// Has a version 1 server, which serves the cluster `edge-1` only.
    pub fn version_1(mut self) -> Self {
        self.is_version_1 = true;
        self
    }

    /// Has a callers file with this text at [`CALLERS_PATH`].
    pub fn callers(mut self, text: &str) -> Self {
        self.config.callers_file = Some(CALLERS_PATH.to_owned());
        self.callers = Some(text.to_owned());
        self
    }

    /// Has a Kubernetes of its own, `hub/api`, in which the server registers its clusters for Argo CD. In a world with TLS it
    /// comes behind [`World::tls`].
    pub fn registers(mut self, change: impl FnOnce(&mut ArgoCdConfig)) -> Self {
        let mut kubernetes = Cluster::new(HUB);
        kubernetes.api.namespaces = &[ARGOCD_NAMESPACE];
        self.kubernetes = Some(kubernetes);
        let mut config = ArgoCdConfig::new(ARGOCD_NAMESPACE, "http://hub:8080");
        config.api.ca = self.config.tls.is_some().then(|| pki::TARGET_CA.to_owned());
        config.api.token_path = SA_TOKEN_PATH.to_owned();
        change(&mut config);
        self.config.argocd = Some(config);
        self
    }

    /// Has no server: whoever connects to the agents' door is served by `stand_in`.
    pub fn stood_in_by(mut self, stand_in: StandIn) -> Self {
        self.stand_in = Some(stand_in);
        self
    }

    /// Puts a box before the agents' door: `hub/box`.
    pub fn behind(mut self, middlebox: Middlebox) -> Self {
        self.behind = Some(middlebox);
        self
    }

    /// Changes what the server runs on.
    pub fn with(mut self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        change(&mut self.config);
        self
    }
}

impl Cluster {
    fn new(id: &str) -> Self {
        let server = "ws://hub:8443/connect".parse().expect("a server URL");
        let mut config = AgentConfig::new(server, SecretString::from(tunnel_token(id)));
        config.target_tls = TargetTls::Plain;
        config.sa_token_path = SA_TOKEN_PATH.to_owned();
        let api = Options { token: Some(service_account_token(id)), ..Options::default() };
        Self {
            id: id.to_owned(),
            wan: Wan::LAN,
            n_agents: 1,
            behind: None,
            api,
            n_apis: 1,
            has_tls_upstream: false,
            stand_in: None,
            rogue: None,
            config,
            played_by: Player::Product,
        }
    }

    /// Puts `wan` between the hub and this cluster.
    pub fn over(mut self, wan: Wan) -> Self {
        self.wan = wan;
        self
    }

    /// Puts a box of its own between the agents and the way to the hub: `ID/box`.
    pub fn behind(mut self, middlebox: Middlebox) -> Self {
        self.behind = Some(middlebox);
        self
    }

    /// Has `n` agents: `ID/agent`, `ID/agent-2`, …
    pub fn agents(mut self, n: usize) -> Self {
        self.n_agents = n;
        self
    }

    /// Has version 1 agents.
    pub fn version_1(mut self) -> Self {
        self.played_by = Player::Version1;
        self
    }

    /// Has agents with a good token and the worst intentions.
    pub fn hostile(mut self) -> Self {
        self.played_by = Player::Hostile;
        self
    }

    /// Has agents with a good token and intentions of the story's own.
    pub fn played_by(mut self, rogue: Rogue) -> Self {
        self.rogue = Some(rogue);
        self.hostile()
    }

    /// Has no agent running when the story begins; [`Story::restart`] starts it.
    pub fn offline(self) -> Self {
        self.agents(0)
    }

    /// Has `n` pods in the namespace `default`.
    pub fn pods(mut self, n: usize) -> Self {
        self.api.pods = n;
        self
    }

    /// Has `n` kinds of objects beyond the common ones, three objects of each.
    pub fn extra_kinds(mut self, n: usize) -> Self {
        self.api.extra_kinds = n;
        self
    }

    /// Has `n` machines of one API server, with one store and one name: `ID/api`, `ID/api-2`, …
    pub fn api_servers(mut self, n: usize) -> Self {
        self.n_apis = n;
        self
    }

    /// Has an API server that speaks TLS, and so HTTP/2, also where the rest of the world does not.
    pub fn tls_upstream(mut self) -> Self {
        self.has_tls_upstream = true;
        pki::plan_target(&mut self.config);
        self
    }

    /// Has no API server: whoever connects to it is served by `stand_in`.
    pub fn stood_in_by(mut self, stand_in: StandIn) -> Self {
        self.stand_in = Some(stand_in);
        self
    }

    /// Has an API server that allows `n` requests at once on one HTTP/2 connection.
    pub fn http2_streams_max(mut self, n: u32) -> Self {
        self.api.http2_streams_max = n;
        self
    }

    /// Has an API server whose RBAC lets its agents do no more than this.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.api.rights = rights;
        self
    }

    /// Changes what its agents run on.
    pub fn with(mut self, change: impl FnOnce(&mut AgentConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn for_server(&self) -> ClusterConfig {
        ClusterConfig {
            id: self.id.parse().expect("a good cluster id"),
            route: self.id.clone(),
            tokens: vec![TokenDigest::of(&SecretString::from(tunnel_token(&self.id)))],
            certificates: Vec::new(),
            target_addr: "kubernetes.default.svc:443".to_owned(),
            impersonate: Default::default(),
            labels: Default::default(),
            annotations: Default::default(),
        }
    }
}

/// What a caller presents to the hub, `kubectl` or `argocd`; whatever is appended is another token of the same caller.
pub fn callers_token(caller: &str) -> String {
    credentials::callers_token(caller)
}

/// What agents of a cluster present to the hub; whatever is appended is another token of the same cluster.
pub fn tunnel_token(cluster: &str) -> String {
    credentials::tunnel_token(cluster)
}

/// What agents of a cluster present to the proxy on their way out; whatever is appended is another password.
pub fn proxy_password(cluster: &str) -> String {
    credentials::proxy_password(cluster)
}

/// What agents of a cluster present to its API server; whatever is appended is another token of the same cluster.
pub fn service_account_token(cluster: &str) -> String {
    credentials::service_account_token(cluster)
}

/// A claim that was false.
#[derive(Debug)]
pub struct Failure {
    claim: anyhow::Error,
    seed: u64,
}

impl Failure {
    /// The claim.
    pub(crate) fn claim(&self) -> &anyhow::Error {
        &self.claim
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The test's thread carries the test's name.
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        write!(f, "{:#}\n\n  SIM_SEED={} cargo xtask sim {name}", self.claim, self.seed)
    }
}

fn seed_from_environment() -> Option<u64> {
    let text = std::env::var("SIM_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("SIM_SEED={text} is no number")))
}

/// Ends the process with the transcript unless what it returns is dropped in time.
fn watch_the_wall(trace: Trace) -> std::sync::mpsc::Sender<()> {
    let (told, is_told) = std::sync::mpsc::channel();
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let watch = move || {
        if is_told.recv_timeout(WALL_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            print(&format!("{name} spins at one moment\n\n{}", trace.render(LINES_SHOWN)));
            std::process::exit(70);
        }
    };
    // Nothing else than a thread of its own gets a turn while the story's never yields; without one it is not watched.
    let _ = std::thread::Builder::new().name("wall".to_owned()).spawn(watch);
    told
}

fn wants_trace() -> bool {
    wants("SIM_TRACE")
}

fn wants(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value != "0")
}

#[expect(clippy::print_stderr, reason = "a transcript is for people at a terminal")]
fn print(transcript: &str) {
    eprintln!("{transcript}");
}
