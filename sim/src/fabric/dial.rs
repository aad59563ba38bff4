//! A dial: a round trip that finds a listener or a refusal; its SYN is repeated while the way or the far machine is dead.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::names::is_nowhere;
use super::pipe::End;
use super::resend::{SYN_RTO, next_sending};
use super::{Fabric, Socket, State, place_of};

/// Connections that wait to be accepted; more dials hang, as their SYNs are dropped. The backlog that `host` asks for.
const BACKLOG: usize = 4096;

impl Fabric {
    /// Opens a connection; takes a round trip, from a SYN that finds the way and the far machine alive.
    pub(crate) async fn dial(&self, from: &str, incarnation: u64, to: SocketAddr) -> io::Result<Socket> {
        let began = Instant::now();
        let mut was_lost = false;
        self.with(|state| state.dialled.insert((from.to_owned(), to)));
        loop {
            // Registered before the look, so that no change between the two is missed.
            let changed = self.shared.changed.notified();
            match self.with(|state| state.way(from, incarnation, to))? {
                Way::Open(_) if std::mem::take(&mut was_lost) => {
                    tokio::time::sleep_until(next_sending(began, SYN_RTO, Instant::now())).await;
                    continue;
                }
                Way::Open(round_trip) => tokio::time::sleep(round_trip).await,
                way @ (Way::Dead | Way::Stalled) => {
                    was_lost |= way == Way::Dead;
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

/// What a SYN meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is answered within this round trip.
    Open(Duration),
    /// It is late.
    Stalled,
    /// It is lost.
    Dead,
}

impl State {
    fn way(&mut self, from: &str, incarnation: u64, to: SocketAddr) -> io::Result<Way> {
        if self.machines.get(from).is_none_or(|machine| machine.incarnation != incarnation) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if is_nowhere(to.ip()) {
            return Ok(Way::Dead);
        }
        let Some(target) = self.by_ip.get(&to.ip()).cloned() else { return Err(io::ErrorKind::HostUnreachable.into()) };
        let (link, direction) = self.link(place_of(from), place_of(&target));
        let link = &mut self.traffic.links[link];
        if link.n_cuts > 0 || !self.machines[&target].has_power {
            return Ok(Way::Dead);
        }
        if link.blocked() {
            return Ok(Way::Stalled);
        }
        Ok(Way::Open(link.travel(direction, false) + link.travel(1 - direction, false)))
    }

    /// The end of a dial; nothing if the SYN or its answer was lost.
    fn knock(&mut self, fabric: &Fabric, from: &str, incarnation: u64, to: SocketAddr) -> Option<io::Result<Socket>> {
        match self.way(from, incarnation, to) {
            Ok(Way::Open(_)) => {}
            Ok(Way::Stalled | Way::Dead) => return None,
            Err(error) => return Some(Err(error)),
        }
        let target = self.by_ip[&to.ip()].clone();
        let dialer = self.machines.get_mut(from)?;
        let local = SocketAddr::new(dialer.ip, dialer.free_port());
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
