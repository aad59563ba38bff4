//! Names and addresses: what a resolver says in each place, and the ways in which it fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::{Fabric, State, place_of};

/// Addresses at which nobody lives and about which no router says so: a dial there hangs (TEST-NET-1, RFC 5737).
/// Any other address without a machine is told to be unreachable at once.
pub(super) fn is_nowhere(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == Ipv4Addr::new(192, 0, 2, 0).octets()[..3])
}

impl Fabric {
    /// Makes `name` resolve to `targets`, machines or addresses: in one place, or everywhere if `place` is empty. Tells
    /// what it was in that place before.
    pub fn add_name(&self, place: &str, name: &str, targets: &[&str]) -> Option<Vec<String>> {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        self.with(|state| state.names.insert((place.to_owned(), name.to_owned()), targets))
    }

    /// Takes a name from a place, which then asks what it is everywhere.
    pub fn remove_name(&self, place: &str, name: &str) {
        self.with(|state| state.names.remove(&(place.to_owned(), name.to_owned())));
    }

    /// The resolver of `place` says that there is no such name.
    pub fn lose_name(&self, place: &str, name: &str) {
        self.with(|state| *state.lost_names.entry((place.to_owned(), name.to_owned())).or_default() += 1);
    }

    /// Undoes one [`Fabric::lose_name`].
    pub fn find_name(&self, place: &str, name: &str) {
        self.with(|state| {
            if let Some(n) = state.lost_names.get_mut(&(place.to_owned(), name.to_owned())) {
                *n = n.saturating_sub(1);
            }
        });
    }

    /// The resolver of `place` answers nothing.
    pub fn mute_resolver(&self, place: &str) {
        self.with(|state| *state.mute_resolvers.entry(place.to_owned()).or_default() += 1);
    }

    /// Undoes one [`Fabric::mute_resolver`]; who waits is answered at once.
    pub fn unmute_resolver(&self, place: &str) {
        self.with(|state| {
            if let Some(n) = state.mute_resolvers.get_mut(place) {
                *n = n.saturating_sub(1);
            }
        });
        self.shared.changed.notify_waiters();
    }

    /// The addresses of `name` as `machine` sees them: a literal, a name of its place, a name of everywhere, a machine.
    /// Hangs while the resolver of the place is mute.
    pub(crate) async fn resolve(&self, machine: &str, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        loop {
            // Registered before the look, so that no change between the two is missed.
            let changed = self.shared.changed.notified();
            match self.with(|state| state.look_up(place_of(machine), name)) {
                Some(answer) => return answer,
                None => changed.await,
            }
        }
    }
}

impl State {
    /// What the resolver of a place says of a name; nothing while it is mute.
    fn look_up(&self, place: &str, name: &str) -> Option<io::Result<Vec<IpAddr>>> {
        let key = |place: &str| (place.to_owned(), name.to_owned());
        if self.mute_resolvers.get(place).is_some_and(|n| *n > 0) {
            return None;
        }
        if self.lost_names.get(&key(place)).is_some_and(|n| *n > 0) {
            return Some(Err(io::Error::new(io::ErrorKind::NotFound, format!("no such name: {name}"))));
        }
        let named = self.names.get(&key(place)).or_else(|| self.names.get(&key("")));
        let targets = named.cloned().unwrap_or_else(|| vec![name.to_owned()]);
        let address = |target: &String| target.parse().ok().or_else(|| self.machines.get(target).map(|machine| machine.ip));
        Some(Ok(targets.iter().filter_map(address).collect()))
    }
}
