//! The ways through which each scenario goes in turn: direct, Postern, the nginx chain, and what a user brings.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::ask::status_of;
use super::nginx::Chain;
use super::place::{Place, free_addresses};
use super::process::Process;
use crate::task::{Carried, Relay, Way, cluster, token};

/// The one cluster's name, where one is enough.
pub(crate) const CLUSTER: &str = "bench";

/// The part of the server's path that leads to clusters.
pub(crate) const PREFIX: &str = "/tunnel";

/// The shortest queue in front of a link: a few segments of loopback, or the link could not be kept busy.
const QUEUE_BYTES_MIN: usize = 64 << 10;

/// How much of a link's own rate may wait in front of it: a router with a queue of 10 ms, neither deep nor starved.
const QUEUE_MS: u64 = 10;

/// What leads to the upstream.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// The caller straight to the upstream, over TLS.
    Direct,
    /// Server and agent from a folder of binaries; `name` is `postern` for the build that is measured.
    Postern { name: String, bins: PathBuf },
    /// Two hops of nginx.
    Nginx,
    /// Any URL that leads to the upstream; nobody starts or counts what is behind it.
    Peer { name: String, url: String, ca: Option<String> },
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Postern { name, .. } | Self::Peer { name, .. } => name,
        }
    }
}

/// A link with distance between hub and cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Link {
    pub(crate) round_trip_ms: f64,
    /// None = as fast as the machine.
    pub(crate) mbit: Option<u64>,
}

impl Link {
    /// The relay that is this link.
    pub(crate) fn relay(self, listen: SocketAddr, to: SocketAddr) -> Relay {
        let bits_per_second = self.mbit.map(|mbit| mbit * 1_000_000);
        let queue = bits_per_second.map_or(4 << 20, |bits| (bits / 8 * QUEUE_MS / 1000) as usize);
        Relay { listen, to, latency_ms: self.round_trip_ms / 2.0, bits_per_second, queue_bytes: queue.max(QUEUE_BYTES_MIN) }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms", self.round_trip_ms)?;
        self.mbit.map_or(Ok(()), |mbit| write!(f, ", {mbit} Mbit/s"))
    }
}

/// What a scenario wants of its columns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setup {
    pub(crate) link: Option<Link>,
    /// Let nginx gather answers before it passes them on, as it does by default; not for what streams.
    pub(crate) buffering: bool,
    /// Callers speak HTTP/2.
    pub(crate) http2: bool,
    /// Postern's server knows these many clusters, and nobody starts their agents (see [`Fleet`](super::fleet)); 0 = the one
    /// cluster with its agent. The other columns have one upstream for all.
    pub(crate) clusters: usize,
}

/// A column that is up: each of its processes started for it, and ended with it.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) way: Way,
    /// In the order in which they end.
    pub(crate) members: Vec<Process>,
    /// Of Postern: how its agent was started, to start it again.
    pub(crate) postern: Option<Addresses>,
}

/// Where a Postern's ends meet.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) bins: PathBuf,
    /// The server's public listener, or the link to it.
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    /// The server's public listener, without a link.
    pub(crate) listens: SocketAddr,
    /// The server's clusters file.
    pub(crate) clusters: PathBuf,
}

impl Column {
    /// Starts what `kind` needs, and waits until a request has gone all the way. None if this kind cannot do what is asked.
    pub(crate) fn open(place: &Place, kind: &Kind, setup: &Setup, upstream: SocketAddr) -> Result<Option<Self>> {
        match kind {
            Kind::Direct => direct(place, setup, upstream).map(Some),
            Kind::Postern { name, bins } => postern(place, name, bins.clone(), setup, upstream).map(Some),
            Kind::Nginx => nginx(place, setup, upstream).map(Some),
            // What lies between a peer's ends is not ours to lengthen.
            Kind::Peer { .. } if setup.link.is_some() => Ok(None),
            Kind::Peer { name, url, ca } => {
                let way = Way { base: url.trim_end_matches('/').to_owned(), ca: ca.clone(), http2: setup.http2 };
                Ok(Some(Self { name: name.clone(), way, members: Vec::new(), postern: None }))
            }
        }
    }

    /// Ends a member at once, or all of that name.
    pub(crate) fn kill(&mut self, name: &str) {
        self.members.extract_if(.., |member| member.name() == name).for_each(Process::kill);
    }

    /// The first member of that name.
    pub(crate) fn member(&self, name: &str) -> Result<&Process> {
        let found = self.members.iter().find(|member| member.name() == name);
        found.with_context(|| format!("{} has no {name} that runs", self.name))
    }

    /// Ends the link, and tells what it has carried.
    pub(crate) fn end_link(&mut self) -> Result<Carried> {
        let relay = self.members.extract_if(.., |member| member.name() == "relay").next().context("this column has no link")?;
        let line = relay.end_and_tell()?;
        serde_json::from_str(&line).with_context(|| format!("the relay said {line:?}"))
    }
}

fn direct(place: &Place, setup: &Setup, upstream: SocketAddr) -> Result<Column> {
    let mut members = Vec::new();
    let to = through(place, setup.link, upstream, &mut members)?;
    let way = Way { base: format!("https://{to}"), ca: Some(place.cert("ca.pem").display().to_string()), http2: setup.http2 };
    Ok(Column { name: Kind::Direct.name().to_owned(), way, members, postern: None })
}

fn postern(place: &Place, name: &str, bins: PathBuf, setup: &Setup, upstream: SocketAddr) -> Result<Column> {
    let [public, internal] = free_addresses()?;
    let clusters = match setup.clusters {
        0 => place.clusters("clusters.json", [(CLUSTER.to_owned(), token(0))])?,
        n => place.clusters("clusters.json", (0..n).map(|n| (cluster(n), token(n))))?,
    };
    let mut server = place.start("server", &mut place.server(&bins, public, internal, &clusters))?;
    server.until_listening(internal)?;
    let mut members = vec![server];
    let listens = public;
    let public = through(place, setup.link, public, &mut members)?;
    if setup.clusters > 0 {
        let way = Way { base: format!("http://{internal}{PREFIX}/{{cluster}}"), ca: None, http2: setup.http2 };
        return Ok(Column {
            name: name.to_owned(),
            way,
            members,
            postern: Some(Addresses { bins, public, internal, listens, clusters }),
        });
    }
    let mut agent = place.start("agent", &mut place.agent(&bins, public, upstream, &token(0), None))?;
    let path = format!("{PREFIX}/{CLUSTER}/version");
    agent.until("a first answer through the tunnel", || status_of(internal, &path).is_ok_and(|status| status == 200))?;
    members.insert(0, agent);
    let way = Way { base: format!("http://{internal}{PREFIX}/{CLUSTER}"), ca: None, http2: setup.http2 };
    Ok(Column { name: name.to_owned(), way, members, postern: Some(Addresses { bins, public, internal, listens, clusters }) })
}

fn nginx(place: &Place, setup: &Setup, upstream: SocketAddr) -> Result<Column> {
    let [hub, edge] = free_addresses()?;
    let mut chain = Chain { hub, edge, to_edge: edge, upstream, buffering: setup.buffering, http2: setup.http2 };
    let mut members = vec![chain.start_edge(place)?];
    chain.to_edge = through(place, setup.link, edge, &mut members)?;
    let mut process = chain.start_hub(place)?;
    // A port for HTTP/2 takes nothing else.
    if !setup.http2 {
        process.until("a first answer through nginx", || status_of(hub, "/version").is_ok_and(|status| status == 200))?;
    }
    members.push(process);
    let way = Way { base: format!("http://{hub}"), ca: None, http2: setup.http2 };
    Ok(Column { name: Kind::Nginx.name().to_owned(), way, members, postern: None })
}

/// Puts a link in front of `to`, if one is asked for; gives where to go.
fn through(place: &Place, link: Option<Link>, to: SocketAddr, members: &mut Vec<Process>) -> Result<SocketAddr> {
    let Some(link) = link else { return Ok(to) };
    let [listen] = free_addresses()?;
    let mut relay = place.start("relay", &mut place.part("relay", &link.relay(listen, to))?)?;
    relay.until_listening(listen)?;
    members.push(relay);
    Ok(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_queues_ten_milliseconds_of_its_rate() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let relay = Link { round_trip_ms: 20.0, mbit: Some(200) }.relay(here, here);
        assert_eq!((relay.latency_ms, relay.queue_bytes), (10.0, 250_000));
        assert_eq!(Link { round_trip_ms: 20.0, mbit: Some(10) }.relay(here, here).queue_bytes, QUEUE_BYTES_MIN);
    }
}
