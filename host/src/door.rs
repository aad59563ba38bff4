//! A listener and the connections that came through it: told apart by where they come from, counted, limited, waited for.

mod room;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::places::{Place, Places};
use crate::{Connection, Drain, Host, Listen, Source, TrustedProxies, proxy_header};
use room::{Room, Seat};

/// The pause after a failed accept: the usual cause is a lack of file descriptors, which only time cures.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections that come late, at once: each is told to go elsewhere, which takes no time. The oldest make way for more.
const LATE_MAX: usize = 256;

/// Whether a connection came too late to be served in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is served.
    No,
    /// It came during a drain.
    Draining,
    /// All places are taken.
    Crowded,
}

/// How a connection came in. Until it is settled it is a stranger's, and makes way when places are needed.
#[derive(Clone)]
pub struct Arrival {
    late: Late,
    room: Room,
    seat: u64,
}

impl Arrival {
    /// Whether it came too late.
    pub fn late(&self) -> Late {
        self.late
    }

    /// It has shown that it means something; it keeps its place from now on, unless it came late.
    pub fn settle(&self) {
        match self.late {
            Late::No => self.room.settle(self.seat),
            Late::Draining | Late::Crowded => {}
        }
    }
}

/// Connections that a door closed, by listener and reason: `address` (over the places of an address), `crowded` (made way),
/// `proxy-header`.
pub type TurnedAway = Family<TurnedAwayLabels, Counter>;

/// The labels of [`TurnedAway`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TurnedAwayLabels {
    /// The door's name.
    pub listener: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// A bound listener whose connections are served as tasks.
pub struct Door {
    name: &'static str,
    listener: Box<dyn Listen>,
    connections_max: u32,
    room: Room,
    late_room: Room,
    entrance: Arc<Entrance>,
}

/// What each connection passes once it is accepted.
struct Entrance {
    name: &'static str,
    proxies: TrustedProxies,
    of_source: Places<Source>,
    turned_away: TurnedAway,
}

impl Door {
    /// Binds `addr`. At most `connections_max` connections are served at once; when there are more, strangers make way, and
    /// where all are settled whoever comes is late.
    pub async fn bind(host: &Host, name: &'static str, addr: SocketAddr, connections_max: u32) -> io::Result<Self> {
        let listener = host.listen(addr).await?;
        tracing::info!(name, addr = %listener.local_addr(), "listening");
        let (proxies, of_source, turned_away) = (TrustedProxies::default(), Places::new(0), TurnedAway::default());
        let (room, late_room) = (Room::new(connections_max as usize), Room::new(LATE_MAX));
        let entrance = Arc::new(Entrance { name, proxies, of_source, turned_away });
        Ok(Self { name, listener, connections_max, room, late_room, entrance })
    }

    /// Believes `proxies` about who connects, has at most `per_source_max` connections of one source (0 = no limit; more are
    /// closed at once), and counts in `turned_away` whom it did not serve.
    pub fn with_sources(mut self, proxies: TrustedProxies, per_source_max: usize, turned_away: TurnedAway) -> Self {
        self.entrance = Arc::new(Entrance { name: self.name, proxies, of_source: Places::new(per_source_max), turned_away });
        self
    }

    /// The address that was really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves connections until dropped. `serve` hears of those that come during a drain, or when all places are taken, as
    /// late: they are to hear a "no" or a word on health, not silence, and do not count for [`Door::emptied`].
    pub async fn serve<F>(
        &self,
        host: &Host,
        drain: Drain,
        serve: impl Fn(Connection, Arrival) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            match self.listener.accept().await {
                Ok(connection) => {
                    let Some((mut seat, arrival)) = self.place(drain.is_started()).await else { continue };
                    let (entrance, serve) = (self.entrance.clone(), serve.clone());
                    host.spawn(self.name, async move {
                        let served = async {
                            if let Some((connection, _place)) = entrance.enter(connection, &arrival).await {
                                serve(connection, arrival).await;
                            }
                        };
                        tokio::select! {
                            biased;
                            () = seat.has_to_leave() => entrance.turned_away("crowded"),
                            () = served => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(name = self.name, %error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Resolves when no connection from before the drain is left.
    pub async fn emptied(&self) {
        self.room.emptied(self.connections_max).await;
    }

    /// Fails never: there is always somebody in the late room who makes way.
    async fn place(&self, is_draining: bool) -> Option<(Seat, Arrival)> {
        let seat = if is_draining { None } else { self.room.seat().await };
        let (seat, room, late) = match seat {
            Some(seat) => (seat, &self.room, Late::No),
            None if is_draining => (self.late_room.seat().await?, &self.late_room, Late::Draining),
            None => (self.late_room.seat().await?, &self.late_room, Late::Crowded),
        };
        let arrival = Arrival { late, room: room.clone(), seat: seat.id() };
        Some((seat, arrival))
    }
}

impl Entrance {
    /// The connection with its true peer, and its source's place; none when it is not to be served.
    async fn enter(&self, connection: Connection, arrival: &Arrival) -> Option<(Connection, Option<Place<Source>>)> {
        let peer = connection.peer();
        let connection = if self.proxies.sends_header(peer.ip()) {
            match proxy_header::remove(connection).await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::info!(name = self.name, %peer, %error, "a connection was not taken");
                    self.turned_away("proxy-header");
                    return None;
                }
            }
        } else {
            connection
        };
        let Some(source) = self.proxies.source(connection.peer().ip()) else { return Some((connection, None)) };
        arrival.room.locate(arrival.seat, Some(source));
        let Some(place) = self.of_source.take(&source) else {
            // A flood would fill the log.
            tracing::debug!(name = self.name, %source, "a connection was closed: its address has as many as it may");
            self.turned_away("address");
            return None;
        };
        Some((connection, Some(place)))
    }

    fn turned_away(&self, reason: &'static str) {
        self.turned_away.get_or_create(&TurnedAwayLabels { listener: self.name, reason }).inc();
    }
}
