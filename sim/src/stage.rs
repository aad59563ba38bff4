//! The built world: the fabric, the machines on it, and what runs on them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use host::{Host, Tasks};

use crate::apiserver::{ApiServer, Arrivals, Options};
use crate::caller::Ledger;
use crate::fabric::{Fabric, place_of};
use crate::hostile;
use crate::machine::{Machine, Panics, Program};
use crate::middlebox::{Controls, Middlebox, PROXY_NAME, Placed};
use crate::pki;
use crate::rogue::Rogue;
use crate::seed::Seed;
use crate::story::Listed;
use crate::trace::Trace;
use crate::version_1;
use crate::world::{CALLERS_PATH, CLUSTERS_PATH, Cluster, HUB, Player, SA_TOKEN_PATH, World, service_account_token};

/// Where an API server listens.
const API_PORT: u16 = 443;

/// The name of the API server within its cluster.
pub(crate) const API_NAME: &str = "kubernetes.default.svc";

/// Machines from which callers call.
pub(crate) const CALLERS: [&str; 2] = ["hub/argocd", "hub/kubectl"];

/// A world that runs.
pub(crate) struct Stage {
    pub(crate) fabric: Fabric,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    /// Where callers find the front door.
    pub(crate) internal_port: u16,
    /// Where each program of the product serves its metrics, by machine.
    pub(crate) metrics_ports: BTreeMap<String, u16>,
    pub(crate) n_agents: usize,
    pub(crate) has_version_1_server: bool,
    pub(crate) has_version_1_agents: bool,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) clusters: BTreeMap<String, StagedCluster>,
    /// The hub's own Kubernetes.
    kubernetes: Option<StagedCluster>,
    pub(crate) announced_errors: Mutex<Vec<String>>,
    pub(crate) listed: Listed,
    /// Of the boxes, by machine.
    controls: BTreeMap<String, Arc<Controls>>,
    callers: Mutex<Vec<Host>>,
    /// The fabric's own task, and those that a story starts.
    pub(crate) tasks: Tasks,
    starts: Vec<String>,
}

/// What a story may ask of a cluster.
pub(crate) struct StagedCluster {
    api: Arc<Mutex<Option<ApiServer>>>,
    /// What arrived at all API servers that it had.
    pub(crate) arrivals: Arrivals,
    pub(crate) played_by: Player,
    /// What its agents run on.
    pub(crate) config: agent::AgentConfig,
}

impl StagedCluster {
    fn new(cluster: &Cluster, arrivals: Arrivals) -> Self {
        Self { api: Arc::default(), arrivals, played_by: cluster.played_by, config: cluster.config.clone() }
    }

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
        let boxes = place_boxes(world, &fabric, &trace);
        let controls = boxes.iter().map(|placed| (placed.machine.clone(), placed.controls.clone())).collect();
        for placed in boxes {
            let name = placed.machine.clone();
            machines.insert(name.clone(), placed.equipped(|program| add(&name, program)));
            starts.push(name);
        }
        for name in CALLERS {
            machines.insert(name.to_owned(), add(name, idle_program()));
        }
        for cluster in &world.clusters {
            let id = &cluster.id;
            fabric.join("hub", id, cluster.wan);
            let arrivals = Arrivals::default();
            let staged = StagedCluster::new(cluster, arrivals.clone());
            // A plan may be played more than once, and each world has its own.
            let options = Options { arrivals, ..cluster.api.clone() };
            let apis: Vec<_> = (1..=cluster.n_apis).map(|n| numbered(&format!("{id}/api"), n)).collect();
            for api in &apis {
                machines.insert(api.clone(), add(api, far_program(cluster, &options, &staged)));
            }
            fabric.add_name(id, API_NAME, &apis.iter().map(String::as_str).collect::<Vec<_>>());
            starts.extend(apis);
            // An offline cluster has its machine too, for a story to start it.
            for n in 1..=cluster.n_agents.max(1) {
                let name = numbered(&format!("{id}/agent"), n);
                let agent = add(&name, played(cluster));
                agent.disk().write(SA_TOKEN_PATH, service_account_token(id).as_bytes());
                machines.insert(name.clone(), agent);
                if n <= cluster.n_agents {
                    starts.push(name);
                }
            }
            assert!(clusters.insert(id.clone(), staged).is_none(), "two clusters are called {id}");
        }
        let kubernetes = world.hub.kubernetes.as_ref().map(|hub| place_kubernetes(hub, &fabric, &mut machines, &add));
        starts.extend(kubernetes.iter().map(|_| format!("{HUB}/api")));
        machines.values().filter(|machine| world.gives_tls_to(place_of(machine.name()))).for_each(pki::equip);
        starts.insert(0, "hub/server".to_owned());
        let tasks = Tasks::with_panic_hook(move |task, message| panics(format!("task {task} panicked: {message}")));
        put_files(world, &machines);
        let listed = Listed::new(clusters.keys(), machines["hub/server"].disk());
        Self {
            fabric,
            trace,
            ledger: Ledger::default(),
            internal_port: world.hub.config.internal_addr.port(),
            metrics_ports: metrics_ports(world),
            n_agents: world.clusters.iter().map(|cluster| cluster.n_agents).sum(),
            has_version_1_server: world.hub.is_version_1,
            has_version_1_agents: world.clusters.iter().any(|cluster| cluster.played_by == Player::Version1),
            machines,
            clusters,
            kubernetes,
            announced_errors: Mutex::default(),
            listed,
            controls,
            callers: Mutex::default(),
            tasks,
            starts,
        }
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
        let kubernetes = self.kubernetes.as_ref().filter(|_| id == HUB);
        kubernetes.or_else(|| self.clusters.get(id)).unwrap_or_else(|| panic!("no cluster is called {id}"))
    }

    /// The machines that run the product.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(|machine| machine.name() == "hub/server" || machine.name().contains("/agent"))
    }

    /// The middleboxes.
    pub(crate) fn boxes(&self) -> impl Iterator<Item = &Machine> {
        self.controls.keys().map(|name| self.machine(name))
    }

    pub(crate) fn controls(&self, name: &str) -> Arc<Controls> {
        self.controls.get(name).unwrap_or_else(|| panic!("no box is called {name}; there are {:?}", self.controls.keys())).clone()
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

/// Puts the hub's own API server in its place, in which the hub's server has an account.
fn place_kubernetes(
    hub: &Cluster,
    fabric: &Fabric,
    machines: &mut BTreeMap<String, Machine>,
    add: &dyn Fn(&str, Program) -> Machine,
) -> StagedCluster {
    let staged = StagedCluster::new(hub, Arrivals::default());
    let api = format!("{HUB}/api");
    machines.insert(api.clone(), add(&api, far_program(hub, &hub.api, &staged)));
    machines["hub/server"].disk().write(SA_TOKEN_PATH, service_account_token(HUB).as_bytes());
    fabric.add_name(HUB, API_NAME, &[&api]);
    staged
}

/// What the plan has on the machines' disks.
fn put_files(world: &World, machines: &BTreeMap<String, Machine>) {
    let put = |machine: &str, path: &str, content: &str| machines[machine].disk().write(path, content.as_bytes());
    world.hub.callers.iter().for_each(|text| put("hub/server", CALLERS_PATH, text));
    world.files.iter().for_each(|(machine, path, content)| put(machine, path, content));
}

/// Where the programs that are ours say what they hold.
fn metrics_ports(world: &World) -> BTreeMap<String, u16> {
    let hub = &world.hub.config;
    let hub_port = hub.ops_addr.unwrap_or(hub.internal_addr).port();
    let of_hub = (!world.hub.is_version_1 && world.hub.stand_in.is_none()).then(|| ("hub/server".to_owned(), hub_port));
    let ours = world.clusters.iter().filter(|cluster| cluster.played_by == Player::Product);
    let of_agents = ours.flat_map(|cluster| {
        let port = cluster.config.health_addr.map(|addr| addr.port());
        let names = (1..=cluster.n_agents.max(1)).map(|n| numbered(&format!("{}/agent", cluster.id), n));
        names.filter_map(move |name| Some((name, port?)))
    });
    of_hub.into_iter().chain(of_agents).collect()
}

fn server_program(world: &World) -> Program {
    let mut config = world.hub.config.clone();
    if let Some(stand_in) = &world.hub.stand_in {
        return stand_in.program(config.addr.port());
    }
    if world.hub.is_version_1 {
        let clusters: Vec<_> = world.clusters.iter().map(|cluster| cluster.id.clone()).collect();
        return version_1::server(config.addr.port(), config.internal_addr.port(), &clusters);
    }
    config.clusters_file = Some(CLUSTERS_PATH.to_owned());
    config.clusters = world.clusters.iter().map(Cluster::for_server).collect();
    Arc::new(move |host, drain| {
        let config = config.clone();
        Box::pin(async move { server::run(config, host, drain).await.map_err(|error| error.to_string()) })
    })
}

/// Puts the boxes of the plan on the way to the hub, each before the next, and has the name of the hub lead to the first.
fn place_boxes(world: &World, fabric: &Fabric, trace: &Trace) -> Vec<Placed> {
    let port = world.hub.config.addr.port();
    let place = |place: &str, plan: &Middlebox, next: &str| {
        let (machine, controls) = (format!("{place}/box"), Arc::<Controls>::default());
        let (plan, next, fabric, trace) = (plan.clone(), next.to_owned(), fabric.clone(), trace.clone());
        Placed { plan, machine, next, port, controls, fabric, trace }
    };
    let mut boxes: Vec<Placed> = world.hub.behind.iter().map(|plan| place("hub", plan, "hub/server")).collect();
    let door = boxes.first().map_or_else(|| "hub/server".to_owned(), |hub_box| hub_box.machine.clone());
    for cluster in &world.clusters {
        let mut entry = door.clone();
        if let Some(plan) = &cluster.behind {
            let its_box = place(&cluster.id, plan, &door);
            if plan.is_in_the_way() {
                entry.clone_from(&its_box.machine);
            } else {
                fabric.add_name(&cluster.id, PROXY_NAME, &[&its_box.machine]);
            }
            boxes.push(its_box);
        }
        fabric.add_name(&cluster.id, "hub", &[&entry]);
    }
    boxes
}

fn played(cluster: &Cluster) -> Program {
    match cluster.played_by {
        Player::Product => agent_program(cluster.config.clone()),
        Player::Version1 => version_1::agent(&cluster.id),
        Player::Hostile => cluster.rogue.as_ref().map_or_else(|| hostile::agent(&cluster.id), Rogue::program),
    }
}

fn agent_program(config: agent::AgentConfig) -> Program {
    Arc::new(move |host, drain| {
        let config = config.clone();
        Box::pin(async move { agent::run(config, host, drain).await.map_err(|error| error.to_string()) })
    })
}

/// What a cluster has for its API server.
fn far_program(cluster: &Cluster, options: &Options, staged: &StagedCluster) -> Program {
    match &cluster.stand_in {
        Some(stand_in) => stand_in.program(API_PORT),
        None => api_program(options.clone(), staged.api.clone()),
    }
}

/// An API server; all machines of a cluster, and all their starts, share one store.
fn api_program(options: Options, slot: Arc<Mutex<Option<ApiServer>>>) -> Program {
    Arc::new(move |host, drain| {
        let new = || ApiServer::new(host.clone(), options.clone());
        let shared = slot.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(new).clone();
        let api = shared.on(host.clone(), drain);
        Box::pin(async move {
            let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT));
            let listener = host.listen(addr).await.map_err(|error| error.to_string())?;
            api.listen_and_serve(listener, pki::of_api_server(&host)?).await;
            // What is not finished by now is cut.
            host.tasks().abort_all();
            Ok(())
        })
    })
}

/// The machines of a kind: `NAME`, `NAME-2`, …
fn numbered(name: &str, n: usize) -> String {
    if n == 1 { name.to_owned() } else { format!("{name}-{n}") }
}

fn idle_program() -> Program {
    Arc::new(|_, _| Box::pin(async { Ok(()) }))
}
