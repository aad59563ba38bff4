//! Middleboxes: what stands on the way from the agents to the hub and has a mind of its own.
//!
//! A box is a machine with a program: it ends the connection of who dials and dials on. `hub/box` stands before the hub,
//! `edge-1/box` beside a cluster's agents; [`Hub::behind`](crate::world::Hub::behind) and
//! [`Cluster::behind`](crate::world::Cluster::behind) put them there. What it does for good is in its plan, what it does
//! for a while are faults of the story.

mod flow;
mod http;
mod program;
mod tls;

use std::time::Duration;

pub use http::dial_through;
pub(crate) use program::{Controls, Placed};

/// The name of a CONNECT proxy within its cluster.
pub const PROXY_NAME: &str = "proxy";

/// Where a CONNECT proxy listens, as squid does.
pub const PROXY_PORT: u16 = 3128;

/// The plan of a middlebox.
#[derive(Debug, Clone)]
pub struct Middlebox {
    kind: Kind,
    idle_timeout: Option<Duration>,
    max_age: Option<Duration>,
    /// Tells both ends when it ends a flow; otherwise it forgets the flow and tells nobody.
    resets: bool,
    /// Ends a flow when one half of it has ended.
    closes_halves: bool,
    buffer: Option<Buffer>,
    /// Keeps for itself what the hub says behind a 101.
    holds_upgraded: bool,
    /// Takes `Upgrade` and `Connection` out of requests, as gateways do that were not told otherwise.
    drops_upgrades: bool,
    tls: Tls,
}

/// What a box has to do with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    /// It passes bytes on.
    None,
    /// It has a certificate of its own, as an https proxy has.
    Own,
    /// It ends the TLS of who dials with a certificate that it made for the place dialled, and begins another.
    Intercepts,
}

/// How a box knows where to dial on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// There is one place.
    LoadBalancer,
    /// It is told by a CONNECT (RFC 9110 section 9.3.6), with `user:password` if it asks for that.
    ConnectProxy { credentials: Option<String> },
}

/// Small writes are kept until they are this much, or this old.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    bytes: usize,
    time: Duration,
}

impl Middlebox {
    /// A TCP load balancer without any limit; it forwards half-closes.
    pub const fn load_balancer() -> Self {
        Self::new(Kind::LoadBalancer)
    }

    /// An HTTP proxy for CONNECT, at [`PROXY_PORT`]. Who does not ask it dials past it.
    pub const fn connect_proxy() -> Self {
        Self::new(Kind::ConnectProxy { credentials: None })
    }

    /// The same proxy for those who say `user:password` (Basic, RFC 7617); others get 407.
    pub fn with_basic_auth(mut self, user: &str, password: &str) -> Self {
        self.kind = Kind::ConnectProxy { credentials: Some(format!("{user}:{password}")) };
        self
    }

    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            idle_timeout: None,
            max_age: None,
            resets: false,
            closes_halves: false,
            buffer: None,
            holds_upgraded: false,
            drops_upgrades: false,
            tls: Tls::None,
        }
    }

    /// Ends a flow on which no byte came for `time`.
    pub const fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time);
        self
    }

    /// Ends a flow at this age, whatever happens on it.
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Ends flows with a reset to both ends, instead of forgetting them.
    pub const fn resets(mut self) -> Self {
        self.resets = true;
        self
    }

    /// Ends a flow when either end has sent its last byte: a half-close becomes a full one.
    pub const fn closes_halves(mut self) -> Self {
        self.closes_halves = true;
        self
    }

    /// Keeps what it reads until it is `bytes` much or `time` old, as buffering proxies do.
    pub const fn buffers(mut self, bytes: usize, time: Duration) -> Self {
        self.buffer = Some(Buffer { bytes, time });
        self
    }

    /// Passes on a 101 and holds what comes behind it, as gateways do that wait for the whole of an answer.
    pub const fn holds_what_is_upgraded(mut self) -> Self {
        self.holds_upgraded = true;
        self
    }

    /// Does not know upgrades: their headers are of one hop (RFC 9110 section 7.6.1), and it does not pass them on.
    pub const fn drops_upgrades(mut self) -> Self {
        self.drops_upgrades = true;
        self
    }

    /// Is spoken to by TLS, as [`PROXY_NAME`], with a certificate of [`pki::NEW`](crate::pki::NEW).
    pub const fn with_tls(mut self) -> Self {
        self.tls = Tls::Own;
        self
    }

    /// Reads what TLS hides: shows who dials a certificate for the hub of [`pki::INSPECTION`](crate::pki::INSPECTION).
    pub const fn intercepts(mut self) -> Self {
        self.tls = Tls::Intercepts;
        self
    }

    /// Whether who dials the hub arrives here without knowing it.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.kind == Kind::LoadBalancer
    }
}
