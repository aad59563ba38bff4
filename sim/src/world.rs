//! World: the plan of a story as a value: hub, clusters, links, seed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agent::AgentConfig;
use agent::config::TargetTls;
use secrecy::SecretString;
use server::{ClusterConfig, ServerConfig};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::apiserver::Options;
use crate::checkers;
use crate::fabric::Wan;
use crate::seed::Seed;
use crate::stage::Stage;
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
pub(crate) const SA_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The plan of a world. [`World::tell`] builds it and runs a story in it.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) seed: u64,
    pub(crate) hub: Hub,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) begins_cold: bool,
}

/// The plan of the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    /// What the server runs on; the clusters are filled in when the story begins.
    pub config: ServerConfig,
    pub(crate) is_version_1: bool,
}

/// The plan of a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) id: String,
    pub(crate) wan: Wan,
    pub(crate) n_agents: usize,
    pub(crate) api: Options,
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
            hub: Hub { config: ServerConfig::default(), is_version_1: false },
            clusters: Vec::new(),
            begins_cold: false,
        }
    }

    /// Changes the hub.
    pub fn hub(mut self, change: impl FnOnce(Hub) -> Hub) -> Self {
        self.hub = change(self.hub);
        self
    }

    /// Adds a cluster: one agent on a LAN, three pods.
    pub fn cluster(mut self, id: &str, change: impl FnOnce(Cluster) -> Cluster) -> Self {
        self.clusters.push(change(Cluster::new(id)));
        self
    }

    /// Draws all chance from `seed`; `SIM_SEED` in the environment has the last word.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Lets the story begin with the world's first moment, before any agent is connected.
    pub fn cold(mut self) -> Self {
        self.begins_cold = true;
        self
    }

    /// Tells a story in this world, then looks at what must hold in every world.
    ///
    /// # Panics
    /// If a claim of the story or of a checker is false, with the seed to repeat it and the end of the transcript.
    pub fn tell(mut self, story: impl AsyncFnOnce(Story) -> anyhow::Result<()>) {
        self.seed = seed_from_environment().unwrap_or(self.seed);
        let (result, trace) = self.play(story);
        let shown = if wants_trace() { usize::MAX } else { LINES_SHOWN };
        match result {
            Err(failure) => panic!("{failure}\n\n{}", trace.render(shown)),
            Ok(()) if wants_trace() => print(&trace.render(shown)),
            Ok(()) => {}
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
        Self { id: id.to_owned(), wan: Wan::LAN, n_agents: 1, api, config, played_by: Player::Product }
    }

    /// Puts `wan` between the hub and this cluster.
    pub fn over(mut self, wan: Wan) -> Self {
        self.wan = wan;
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

    /// Has no agent running when the story begins; [`Story::restart`] starts it.
    pub fn offline(self) -> Self {
        self.agents(0)
    }

    /// Has `n` pods in the namespace `default`.
    pub fn pods(mut self, n: usize) -> Self {
        self.api.pods = n;
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
            tokens: vec![SecretString::from(tunnel_token(&self.id))],
            target_addr: "kubernetes.default.svc:443".to_owned(),
        }
    }
}

/// What agents of a cluster present to the hub.
pub fn tunnel_token(cluster: &str) -> String {
    format!("tunnel-token-of-{cluster}")
}

/// What agents of a cluster present to its API server.
pub fn service_account_token(cluster: &str) -> String {
    format!("service-account-token-of-{cluster}")
}

/// A claim that was false.
#[derive(Debug)]
pub struct Failure {
    claim: anyhow::Error,
    seed: u64,
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
    std::env::var_os("SIM_TRACE").is_some_and(|value| value != "0")
}

#[expect(clippy::print_stderr, reason = "a transcript is for people at a terminal")]
fn print(transcript: &str) {
    eprintln!("{transcript}");
}
