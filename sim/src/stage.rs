//! The built world: the fabric, the machines on it, and what runs on them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use host::{Host, Tasks};

use crate::apiserver::{ApiServer, Options};
use crate::caller::Ledger;
use crate::fabric::Fabric;
use crate::hostile;
use crate::machine::{Machine, Panics, Program};
use crate::seed::Seed;
use crate::trace::Trace;
use crate::version_1;
use crate::world::{Player, SA_TOKEN_PATH, World, service_account_token};

/// Where an API server listens, plainly: stories run without TLS.
const API_PORT: u16 = 443;

/// Machines from which callers call.
const CALLERS: [&str; 2] = ["hub/argocd", "hub/kubectl"];

/// A world that runs.
pub(crate) struct Stage {
    pub(crate) fabric: Fabric,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    /// Where callers find the front door.
    pub(crate) internal_port: u16,
    pub(crate) n_agents: usize,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) clusters: BTreeMap<String, StagedCluster>,
    pub(crate) announced_errors: Mutex<Vec<String>>,
    callers: Mutex<Vec<Host>>,
    /// The fabric's own task, and those that a story starts.
    pub(crate) tasks: Tasks,
    starts: Vec<String>,
}

/// What a story may ask of a cluster.
#[derive(Default)]
pub(crate) struct StagedCluster {
    api: Arc<Mutex<Option<ApiServer>>>,
}

impl StagedCluster {
    /// Its API server, if it ever ran.
    pub(crate) fn api(&self) -> Option<ApiServer> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Stage {
    /// All machines with their names and links; nothing runs yet.
    pub(crate) fn build(world: &World, seed: Seed, trace: Trace, panics: Panics) -> Self {
        let fabric = Fabric::new(seed);
        let add = |name: &str, program| Machine::new(name, fabric.clone(), trace.clone(), seed, panics.clone(), program);
        let mut machines = BTreeMap::new();
        let mut starts = Vec::new();
        let mut clusters = BTreeMap::new();
        machines.insert("hub/server".to_owned(), add("hub/server", server_program(world)));
        fabric.add_name("", "hub", &["hub/server"]);
        for name in CALLERS {
            machines.insert(name.to_owned(), add(name, idle_program()));
        }
        for cluster in &world.clusters {
            let id = &cluster.id;
            fabric.join("hub", id, cluster.wan);
            let staged = StagedCluster::default();
            let api = format!("{id}/api");
            machines.insert(api.clone(), add(&api, api_program(cluster.api.clone(), staged.api.clone())));
            fabric.add_name(id, "kubernetes.default.svc", &[&api]);
            starts.push(api);
            // An offline cluster has its machine too, for a story to start it.
            for n in 1..=cluster.n_agents.max(1) {
                let name = if n == 1 { format!("{id}/agent") } else { format!("{id}/agent-{n}") };
                let program = match cluster.played_by {
                    Player::Product => agent_program(cluster.config.clone()),
                    Player::Version1 => version_1::agent(id),
                    Player::Hostile => hostile::agent(id),
                };
                let agent = add(&name, program);
                agent.disk().write(SA_TOKEN_PATH, service_account_token(id).as_bytes());
                machines.insert(name.clone(), agent);
                if n <= cluster.n_agents {
                    starts.push(name);
                }
            }
            assert!(clusters.insert(id.clone(), staged).is_none(), "two clusters are called {id}");
        }
        starts.insert(0, "hub/server".to_owned());
        let tasks = Tasks::with_panic_hook(move |task, message| panics(format!("task {task} panicked: {message}")));
        let n_agents = world.clusters.iter().map(|cluster| cluster.n_agents).sum();
        let internal_port = world.hub.config.internal_addr.port();
        let (ledger, announced_errors, callers) = (Ledger::default(), Mutex::default(), Mutex::default());
        Self { fabric, trace, ledger, internal_port, n_agents, machines, clusters, announced_errors, callers, tasks, starts }
    }

    /// Starts the fabric, the hub, the API servers and the agents.
    pub(crate) fn start(&self) {
        self.tasks.spawn("fabric", self.fabric.clone().run());
        for name in &self.starts {
            self.machine(name).start();
        }
    }

    pub(crate) fn machine(&self, name: &str) -> &Machine {
        self.machines.get(name).unwrap_or_else(|| panic!("no machine is called {name}; there are {:?}", self.machines.keys()))
    }

    pub(crate) fn cluster(&self, id: &str) -> &StagedCluster {
        self.clusters.get(id).unwrap_or_else(|| panic!("no cluster is called {id}"))
    }

    /// The machines that run the product.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(|machine| machine.name() == "hub/server" || machine.name().contains("/agent"))
    }

    /// A host for a caller on `machine`.
    pub(crate) fn caller(&self, machine: &str) -> Host {
        let host = self.machine(machine).host();
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).push(host.clone());
        host
    }

    /// Ends all callers, whatever they are doing.
    pub(crate) fn dismiss_callers(&self) {
        for host in self.callers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            host.tasks().abort_all();
        }
    }
}

fn server_program(world: &World) -> Program {
    let mut config = world.hub.config.clone();
    if world.hub.is_version_1 {
        return version_1::server(config.addr.port(), config.internal_addr.port());
    }
    config.clusters = world.clusters.iter().map(crate::world::Cluster::for_server).collect();
    Arc::new(move |host, drain| {
        let config = config.clone();
        Box::pin(async move { server::run(config, host, drain).await.map_err(|error| error.to_string()) })
    })
}

fn agent_program(config: agent::AgentConfig) -> Program {
    Arc::new(move |host, drain| {
        let config = config.clone();
        Box::pin(async move { agent::run(config, host, drain).await.map_err(|error| error.to_string()) })
    })
}

/// An API server with a new store at each start: nothing here needs it to remember.
fn api_program(options: Options, slot: Arc<Mutex<Option<ApiServer>>>) -> Program {
    Arc::new(move |host, _| {
        let api = ApiServer::new(host.clone(), options.clone());
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(api.clone());
        Box::pin(async move {
            let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT));
            let listener = host.listen(addr).await.map_err(|error| error.to_string())?;
            api.listen_and_serve(listener, None).await;
            Ok(())
        })
    })
}

fn idle_program() -> Program {
    Arc::new(|_, _| Box::pin(async { Ok(()) }))
}
