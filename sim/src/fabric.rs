//! The network: machines with names and addresses, listeners, dials, and the misfortunes of the way between.
//!
//! Event-driven on tokio's paused clock: a world in which nothing happens costs nothing, however long. Machines are
//! called `place/program` (`hub/server`, `edge-1/agent`); two places have one link, which all their connections share.

mod dial;
mod faults;
mod link;
mod marks;
mod names;
mod pipe;
mod resend;
mod socket;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use link::{NOTSENT_LOWAT, Wan};
pub use marks::Crossing;
pub(crate) use marks::MARK;
pub use socket::Socket;

use crate::seed::Seed;
use link::{Line, Link};
use traffic::Traffic;

/// The first port of those that nobody chose (RFC 6335 section 6).
const EPHEMERAL_FIRST: u16 = 49152;

/// The network of one world. Cheap to clone.
#[derive(Clone)]
pub struct Fabric {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// An event was put before all others.
    sooner: Notify,
    /// A link, machine, listener or resolver changed: dials and look-ups that hang look again.
    changed: Notify,
}

struct State {
    seed: Seed,
    machines: BTreeMap<String, Machine>,
    /// Names that are no machine's own: by place ("" is everywhere) and name.
    names: BTreeMap<(String, String), Vec<String>>,
    /// Names that the resolver of a place denies, by place and name, and how many faults want it so.
    lost_names: BTreeMap<(String, String), usize>,
    /// Places whose resolver says nothing, and how many faults want it so.
    mute_resolvers: BTreeMap<String, usize>,
    by_ip: BTreeMap<IpAddr, String>,
    /// Who tried to connect where.
    dialled: BTreeSet<(String, SocketAddr)>,
    link_of: BTreeMap<(String, String), usize>,
    traffic: Traffic,
}

struct Machine {
    ip: IpAddr,
    has_power: bool,
    /// Counts the programs that ran here; what belongs to an earlier one is dead.
    incarnation: u64,
    n_refusals: usize,
    listeners: BTreeMap<u16, Backlog>,
    next_port: u16,
}

#[derive(Default)]
struct Backlog {
    /// Connections and who dialled them.
    waiting: VecDeque<(u64, SocketAddr)>,
    acceptors: Vec<Waker>,
}

/// One socket of a machine, for people and checkers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketInfo {
    /// The machine that holds it.
    pub machine: String,
    /// The machine at the other end.
    pub peer: String,
    /// The port of the end that listened.
    pub port: u16,
    /// Taken from the writer and not sent.
    pub n_unsent: usize,
    /// Sent and not read by the peer.
    pub n_unread: usize,
}

/// The place of a machine: `edge-1` of `edge-1/agent`.
pub fn place_of(machine: &str) -> &str {
    machine.split_once('/').map_or(machine, |(place, _)| place)
}

impl Fabric {
    /// An empty network.
    pub fn new(seed: Seed) -> Self {
        let state = State {
            seed,
            machines: BTreeMap::new(),
            names: BTreeMap::new(),
            lost_names: BTreeMap::new(),
            mute_resolvers: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            dialled: BTreeSet::new(),
            link_of: BTreeMap::new(),
            traffic: Traffic::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), sooner: Notify::new(), changed: Notify::new() }) }
    }

    /// Moves the bytes. Runs as long as the world does; without it nothing arrives.
    pub async fn run(self) {
        loop {
            let next = self.with(|state| state.traffic.run_due(Instant::now()));
            let idle = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.sooner.notified() => {}
                () = idle => {}
            }
        }
    }

    /// Adds a machine and gives it the next address of 10.0.0.0/8.
    pub fn add_machine(&self, name: &str) -> IpAddr {
        self.with(|state| {
            let n = u32::try_from(state.machines.len() + 1).expect("fewer machines than addresses");
            let ip = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + n));
            let machine = Machine {
                ip,
                has_power: true,
                incarnation: 0,
                n_refusals: 0,
                listeners: BTreeMap::new(),
                next_port: EPHEMERAL_FIRST,
            };
            assert!(state.machines.insert(name.to_owned(), machine).is_none(), "two machines are called {name}");
            state.by_ip.insert(ip, name.to_owned());
            ip
        })
    }

    /// Puts `wan` between two places; `down` is from `near` to `far`. Places that nobody joined have [`Wan::LAN`].
    pub fn join(&self, near: &str, far: &str, wan: Wan) {
        self.with(|state| {
            let (link, _) = state.link(near, far);
            let link = &mut state.traffic.links[link];
            link.wan = wan;
            link.places = [near.to_owned(), far.to_owned()];
        });
    }

    /// Takes a port of a machine; 0 is any free one.
    pub(crate) fn listen(&self, machine: &str, incarnation: u64, port: u16) -> io::Result<u16> {
        self.with(|state| {
            let machine = state.machines.get_mut(machine).expect("a machine of this fabric");
            if machine.incarnation != incarnation {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let port = if port == 0 { machine.free_port() } else { port };
            if machine.listeners.contains_key(&port) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            machine.listeners.insert(port, Backlog::default());
            Ok(port)
        })
    }

    pub(crate) fn poll_accept(&self, machine: &str, incarnation: u64, port: u16, waker: &Waker) -> Option<(Socket, SocketAddr)> {
        self.with(|state| {
            let backlog = state.backlog(machine, incarnation, port)?;
            let waiting = backlog.waiting.pop_front();
            if waiting.is_none() {
                backlog.acceptors.push(waker.clone());
            }
            waiting.map(|(conn, peer)| (Socket::new(self.clone(), conn, 1), peer))
        })
    }

    pub(crate) fn close_listener(&self, machine: &str, incarnation: u64, port: u16) {
        self.with(|state| {
            let waiting = state.backlog(machine, incarnation, port).map(|backlog| std::mem::take(&mut backlog.waiting));
            for (conn, _) in waiting.into_iter().flatten() {
                state.traffic.close(conn, 1);
            }
            if let Some(machine) = state.machines.get_mut(machine).filter(|machine| machine.incarnation == incarnation) {
                machine.listeners.remove(&port);
            }
        });
    }

    /// Where a machine tried to connect to so far.
    pub fn dialled(&self, from: &str) -> Vec<SocketAddr> {
        self.with(|state| state.dialled.iter().filter(|(machine, _)| machine == from).map(|(_, to)| *to).collect())
    }

    /// The open sockets of all machines, in order.
    pub fn sockets(&self) -> Vec<SocketInfo> {
        self.with(|state| {
            let mut sockets: Vec<_> = state.traffic.conns.values().flat_map(pipe::Conn::sockets).collect();
            sockets.sort();
            sockets
        })
    }

    /// What lies between two places.
    pub fn way(&self, a: &str, b: &str) -> Wan {
        self.with(|state| {
            let (link, _) = state.link(place_of(a), place_of(b));
            state.traffic.links[link].wan
        })
    }

    /// How many bytes have left from one place for another; within one place, in both directions together.
    pub fn n_bytes(&self, from: &str, to: &str) -> u64 {
        self.with(|state| {
            let lines = state.lines(from, to);
            lines.iter().map(|(link, direction)| state.traffic.links[*link].lines[*direction].n_bytes).sum()
        })
    }

    /// The marked words that crossed between machines so far.
    pub(crate) fn crossings(&self) -> Vec<Crossing> {
        self.with(|state| state.traffic.crossings.iter().cloned().collect())
    }

    /// Records from here on what leaves from one place for another; within one place, in both directions.
    pub fn tap(&self, from: &str, to: &str) {
        self.with(|state| {
            for line in state.lines(from, to) {
                state.traffic.taps.entry(line).or_default();
            }
        });
    }

    /// What a tap recorded: a connection each, in the order in which they were opened.
    pub fn tapped(&self, from: &str, to: &str) -> Vec<Vec<u8>> {
        self.with(|state| {
            let lines = state.lines(from, to);
            lines.iter().filter_map(|line| state.traffic.taps.get(line)).flat_map(|tap| tap.values().cloned()).collect()
        })
    }

    /// The only way to the state. Wakers run after the lock is released.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (result, wakers, sooner) = {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = state.traffic.next_at();
            let result = act(&mut state);
            let sooner = match (before, state.traffic.next_at()) {
                (Some(before), Some(after)) => after < before,
                (before, after) => before.is_none() && after.is_some(),
            };
            (result, std::mem::take(&mut state.traffic.wakers), sooner)
        };
        if sooner {
            self.shared.sooner.notify_one();
        }
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    /// The link between two places and the direction from the first.
    fn link(&mut self, from: &str, to: &str) -> (usize, usize) {
        let key = if from < to { (from, to) } else { (to, from) };
        let key = (key.0.to_owned(), key.1.to_owned());
        let n_links = self.traffic.links.len();
        let link = *self.link_of.entry(key.clone()).or_insert(n_links);
        if link == n_links {
            let now = Instant::now();
            let dice = |direction: &str| self.seed.split(&format!("{}|{} {direction}", key.0, key.1)).dice();
            self.traffic.links.push(Link {
                wan: Wan::LAN,
                places: [from.to_owned(), to.to_owned()],
                n_cuts: 0,
                n_stalls: 0,
                lines: [Line::new(now, dice("down")), Line::new(now, dice("up"))],
                late: Default::default(),
            });
        }
        (link, usize::from(self.traffic.links[link].places[0] != from))
    }

    /// The lines from one place to another; a place has both with itself.
    fn lines(&mut self, from: &str, to: &str) -> Vec<(usize, usize)> {
        let (from, to) = (place_of(from), place_of(to));
        let (link, direction) = self.link(from, to);
        if from == to { vec![(link, 0), (link, 1)] } else { vec![(link, direction)] }
    }

    fn backlog(&mut self, machine: &str, incarnation: u64, port: u16) -> Option<&mut Backlog> {
        let machine = self.machines.get_mut(machine).filter(|machine| machine.incarnation == incarnation)?;
        machine.listeners.get_mut(&port)
    }
}

impl Machine {
    fn free_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(EPHEMERAL_FIRST);
        port
    }
}
