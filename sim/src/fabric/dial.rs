//! A dial: a round trip that hangs while the way or the far machine is dead, and finds a listener or a refusal.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::pipe::End;
use super::{Fabric, Socket, State, place_of};

/// Connections that wait to be accepted; more dials hang, as their SYNs are dropped. The backlog that `host` asks for.
const BACKLOG: usize = 4096;

impl Fabric {
    /// Opens a connection; takes a round trip, and hangs while the way or the far machine is dead.
    pub(crate) async fn dial(&self, from: &str, incarnation: u64, to: SocketAddr) -> io::Result<Socket> {
        loop {
            // Registered before the look, so that no change between the two is missed.
            let changed = self.shared.changed.notified();
            match self.with(|state| state.way(from, incarnation, to))? {
                Some(round_trip) => tokio::time::sleep(round_trip).await,
                None => {
                    changed.await;
                    continue;
                }
            }
            if let Some(answer) = self.with(|state| state.knock(self, from, incarnation, to)) {
                return answer;
            }
        }
    }
}

impl State {
    /// How long a dial would take; nothing if it cannot get there.
    fn way(&mut self, from: &str, incarnation: u64, to: SocketAddr) -> io::Result<Option<Duration>> {
        if self.machines.get(from).is_none_or(|machine| machine.incarnation != incarnation) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let Some(target) = self.by_ip.get(&to.ip()).cloned() else { return Err(io::ErrorKind::HostUnreachable.into()) };
        let (link, direction) = self.link(place_of(from), place_of(&target));
        let link = &mut self.traffic.links[link];
        if link.blocked() || !self.machines[&target].has_power {
            return Ok(None);
        }
        Ok(Some(link.travel(direction, false) + link.travel(1 - direction, false)))
    }

    /// The end of a dial; nothing if the way died meanwhile.
    fn knock(&mut self, fabric: &Fabric, from: &str, incarnation: u64, to: SocketAddr) -> Option<io::Result<Socket>> {
        match self.way(from, incarnation, to) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(Err(error)),
        }
        let target = self.by_ip[&to.ip()].clone();
        let dialler = self.machines.get_mut(from)?;
        let local = SocketAddr::new(dialler.ip, dialler.free_port());
        let (link, direction) = self.link(place_of(from), place_of(&target));
        let machine = self.machines.get_mut(&target)?;
        let refused = machine.n_refusals > 0;
        let Some(backlog) = machine.listeners.get_mut(&to.port()).filter(|_| !refused) else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        if backlog.waiting.len() >= BACKLOG {
            return None;
        }
        let conn = self.traffic.open(link, direction, [End::new(from, local), End::new(&target, to)]);
        backlog.waiting.push_back((conn, local));
        self.traffic.wakers.append(&mut backlog.acceptors);
        Some(Ok(Socket::new(fabric.clone(), conn, 0)))
    }
}
