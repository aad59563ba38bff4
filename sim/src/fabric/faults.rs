//! What goes wrong on the way: each fault has its cure, and faults of the same kind add up.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fabric, State, Wan, place_of};

/// How long a connection is idle before its kernel probes whether the other machine is still there: what `host` asks for.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Until a machine of which nothing is heard is given up: nine probes more, ten seconds apart (Linux, tcp_keepalive_probes).
const KEEPALIVE_MAX: Duration = Duration::from_secs(30 + 9 * 10);

impl Fabric {
    /// Nothing passes between two places and nobody is told; bytes wait for retransmission.
    pub fn cut(&self, a: &str, b: &str) {
        self.with(|state| {
            let link = state.weather(a, b, |link| link.n_cuts += 1);
            state.traffic.cut(link, Instant::now());
        });
    }

    /// Undoes one [`Fabric::cut`]. What was lost is sent again when its kernel's timer says so.
    pub fn heal(&self, a: &str, b: &str) {
        self.with(|state| {
            let (link, _) = state.link(place_of(a), place_of(b));
            let again = state.traffic.links[link].wan.latency;
            state.clear_up(a, b, again, |link| &mut link.n_cuts);
        });
        self.shared.changed.notify_waiters();
    }

    /// All is late between two places, nothing is lost.
    pub fn stall(&self, a: &str, b: &str) {
        self.with(|state| _ = state.weather(a, b, |link| link.n_stalls += 1));
    }

    /// Undoes one [`Fabric::stall`]; what is late arrives at once.
    pub fn release(&self, a: &str, b: &str) {
        self.with(|state| state.clear_up(a, b, Duration::ZERO, |link| &mut link.n_stalls));
        self.shared.changed.notify_waiters();
    }

    /// Puts another quality between two places and tells the one before.
    pub fn degrade(&self, a: &str, b: &str, wan: Wan) -> Wan {
        self.with(|state| {
            let (link, _) = state.link(place_of(a), place_of(b));
            std::mem::replace(&mut state.traffic.links[link].wan, wan)
        })
    }

    /// Both ends of every connection between two places get a reset, as from a middlebox that lost patience.
    pub fn reset(&self, a: &str, b: &str) {
        self.with(|state| {
            let (link, _) = state.link(place_of(a), place_of(b));
            let traffic = &mut state.traffic;
            for conn in traffic.conns.values_mut().filter(|conn| conn.link == link) {
                for (end, pipe) in conn.ends.iter_mut().zip(&mut conn.pipes) {
                    end.fail(io::ErrorKind::ConnectionReset, &mut traffic.wakers);
                    pipe.forget_unsent();
                    pipe.flight.clear();
                }
            }
        });
    }

    /// The machine refuses new connections.
    pub fn refuse(&self, machine: &str) {
        self.with(|state| state.machine(machine).n_refusals += 1);
    }

    /// Undoes one [`Fabric::refuse`].
    pub fn accept(&self, machine: &str) {
        self.with(|state| {
            let n_refusals = &mut state.machine(machine).n_refusals;
            *n_refusals = n_refusals.saturating_sub(1);
        });
    }

    /// The program of a machine is gone, its kernel is not: peers get resets.
    pub(crate) fn crash(&self, machine: &str) {
        self.end_program(machine, true);
    }

    /// The machine is gone: nothing answers any more.
    pub(crate) fn vanish(&self, machine: &str) {
        self.end_program(machine, false);
    }

    fn end_program(&self, machine: &str, has_power: bool) {
        self.with(|state| {
            let entry = state.machine(machine);
            entry.incarnation += 1;
            entry.has_power = has_power;
            let listeners = std::mem::take(&mut entry.listeners);
            for (id, side) in state.sockets_of(machine) {
                if has_power {
                    state.traffic.abandon(id, side, Instant::now());
                } else if let Some(conn) = state.traffic.conns.get_mut(&id) {
                    let end = &mut conn.ends[side];
                    end.gone = true;
                    end.fail(io::ErrorKind::ConnectionAborted, &mut state.traffic.wakers);
                    conn.pipes[side].forget_unsent();
                    state.traffic.probe(id, 1 - side, KEEPALIVE_MAX);
                }
            }
            // Nobody will ever accept these.
            for (conn, _) in listeners.into_values().flat_map(|backlog| backlog.waiting) {
                state.traffic.close(conn, 1);
            }
        });
    }

    /// Gives a machine its power back, if it lost it, and tells who runs there: the number of its next program.
    pub(crate) fn power_on(&self, machine: &str) -> u64 {
        let incarnation = self.with(|state| {
            state.machine(machine).has_power = true;
            for (conn, side) in state.sockets_of(machine) {
                let Some(found) = state.traffic.conns.get_mut(&conn) else { continue };
                // What its peers send again meets a kernel that knows nothing of them.
                if std::mem::take(&mut found.ends[side].gone) {
                    if found.pipes[1 - side].n_window > 0 {
                        found.ends[side].error = None;
                        state.traffic.abandon(conn, side, Instant::now());
                    } else {
                        state.traffic.probe(conn, 1 - side, KEEPALIVE_IDLE);
                    }
                }
            }
            state.machine(machine).incarnation
        });
        self.shared.changed.notify_waiters();
        incarnation
    }
}

impl Fabric {
    /// Who runs on a machine: the number of its program.
    pub(crate) fn incarnation(&self, machine: &str) -> u64 {
        self.with(|state| state.machine(machine).incarnation)
    }
}

impl State {
    fn machine(&mut self, name: &str) -> &mut super::Machine {
        self.machines.get_mut(name).unwrap_or_else(|| panic!("no machine is called {name}"))
    }

    fn sockets_of(&self, machine: &str) -> Vec<(u64, usize)> {
        let ends = |(id, conn): (&u64, &super::pipe::Conn)| {
            [(*id, 0, conn.ends[0].machine == machine), (*id, 1, conn.ends[1].machine == machine)]
        };
        self.traffic.conns.iter().flat_map(ends).filter(|(.., mine)| *mine).map(|(conn, side, _)| (conn, side)).collect()
    }

    fn weather(&mut self, a: &str, b: &str, change: impl FnOnce(&mut super::Link)) -> usize {
        let (link, _) = self.link(place_of(a), place_of(b));
        change(&mut self.traffic.links[link]);
        link
    }

    fn clear_up(&mut self, a: &str, b: &str, after: Duration, count: impl FnOnce(&mut super::Link) -> &mut usize) {
        let (index, _) = self.link(place_of(a), place_of(b));
        let link = &mut self.traffic.links[index];
        let count = count(link);
        *count = count.saturating_sub(1);
        if !link.blocked() {
            self.traffic.resume(index, after, Instant::now());
        }
    }
}
