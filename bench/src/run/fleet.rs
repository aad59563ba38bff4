//! Agents of many clusters in a few processes, and how many of them the server sees.

use std::net::SocketAddr;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::ask::metric;
use super::column::Addresses;
use super::stage::Turn;
use super::stop::LOOK_EVERY;

/// The name of a process with many agents.
pub(crate) const AGENTS: &str = "agents";

/// How long a fleet may take to be there: four times what the largest is to take at worst.
pub(crate) const THERE_MAX: Duration = Duration::from_secs(120);

impl Turn<'_> {
    /// Where this column's server is. Only Postern has one.
    pub(crate) fn addresses(&self) -> Result<Addresses> {
        self.column.postern.clone().context("only Postern has agents")
    }

    /// Starts a process with the agents of the clusters `first..first + count`, and does not wait for them.
    pub(crate) fn start_agents(&mut self, first: usize, count: usize) -> Result<()> {
        self.start_agents_as(first, count, |command| command)
    }

    fn start_agents_as(&mut self, first: usize, count: usize, as_what: fn(Command) -> Command) -> Result<()> {
        let addresses = self.addresses()?;
        let place = &self.stage.place;
        let command = place.agents(addresses.public, self.stage.upstream_addr, first, count)?;
        let agents = place.start(AGENTS, &mut as_what(command))?;
        // Before the server: what ends first is not told that its server is gone.
        self.column.members.insert(0, agents);
        Ok(())
    }

    /// Starts the agents of the clusters `first..first + count` in `processes` processes at once.
    ///
    /// They have what the others leave of the machine: in life each has one of its own, and takes nothing from the hub's.
    pub(crate) fn start_fleet(&mut self, first: usize, count: usize, processes: usize) -> Result<()> {
        let shares = (0..processes).map(|n| (first + count * n / processes, first + count * (n + 1) / processes));
        shares.filter(|(from, to)| from < to).try_for_each(|(from, to)| self.start_agents_as(from, to - from, nice))
    }

    /// Waits until the server has the sessions of `n` agents.
    pub(crate) fn until_connected(&mut self, n: usize) -> Result<()> {
        let internal = self.addresses()?.internal;
        let until = Instant::now() + THERE_MAX;
        loop {
            self.stage.place.stop.check()?;
            self.column.members.iter_mut().try_for_each(|member| member.alive())?;
            let connected = agents_connected(internal)?;
            if connected == n {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "{connected} of {n} agents were connected after {THERE_MAX:?}; {}",
                    self.column.member(AGENTS)?.last_words()
                );
            }
            sleep(LOOK_EVERY);
        }
    }
}

/// The same command with the lowest priority there is.
fn nice(command: Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    nice
}

/// How many sessions of agents the server has that serves its metrics on `internal`.
pub(crate) fn agents_connected(internal: SocketAddr) -> Result<usize> {
    Ok(metric(internal, "agents_connected")? as usize)
}
