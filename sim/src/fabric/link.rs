//! What lies between two places: the quality of the way, and the state of its two lines.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::pipe::PipeId;
use crate::seed::Dice;

/// The quality of the way between two places. The presets are round numbers of things that people know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wan {
    /// How long a byte travels, one way.
    pub latency: Duration,
    /// A segment may travel this much longer, evenly spread. Order is kept, as TCP keeps it.
    pub jitter: Duration,
    /// Bytes per second towards the far place (the second of the pair).
    pub down: u64,
    /// Bytes per second from the far place.
    pub up: u64,
    /// Share of segments that are lost. TCP repeats them, so a loss is a delay and never a missing byte.
    pub loss: f64,
    /// How many bytes the kernel takes of one connection beyond what it has sent (TCP_NOTSENT_LOWAT).
    pub notsent_lowat: usize,
    /// How many bytes the router or modem before the bottleneck takes in each direction, of all connections together
    /// and in the order of their coming: whoever speaks next waits behind them. At 0 each kernel sees the line itself.
    pub queue_bytes: usize,
}

/// A queue that somebody keeps short: ten full frames, 5 ms at 25 Mbit/s, which is what CoDel aims at (RFC 8289).
const QUEUE_KEPT_SHORT: usize = 16 * 1024;
/// A queue that nobody looks after, though far from the worst in the field: a quarter of a second at 2 Mbit/s.
const QUEUE_BLOATED: usize = 64 * 1024;

/// What the product asks of a real kernel (TCP_NOTSENT_LOWAT in `host`); a world may raise it to show why.
pub const NOTSENT_LOWAT: usize = 32 * 1024;

/// The smallest receive window: less than Linux's default grows to within a few round trips.
const WINDOW_MIN: usize = 256 * 1024;
/// The largest receive window: the third number of Linux's tcp_rmem.
const WINDOW_MAX: usize = 6 * 1024 * 1024;

/// One Ethernet frame's worth of TCP payload.
pub(crate) const MSS: usize = 1448;
/// What a network card cuts up by itself (TSO): larger pieces would only make the line less fair.
const SEGMENT_MAX: usize = 64 * 1024;

/// The least that Linux waits beyond a round trip before it repeats the last segment of a row (TCP_RTO_MIN).
pub(super) const RTO_MIN: Duration = Duration::from_millis(200);

const fn mbit(n: u64) -> u64 {
    n * 1_000_000 / 8
}

impl Wan {
    /// One rack: gigabit Ethernet and a switch or two.
    pub const LAN: Self = Self {
        latency: Duration::from_micros(250),
        jitter: Duration::ZERO,
        down: mbit(1000),
        up: mbit(1000),
        loss: 0.0,
        notsent_lowat: NOTSENT_LOWAT,
        queue_bytes: QUEUE_KEPT_SHORT,
    };
    /// Between continents: a round trip of 100 ms is Frankfurt to Chicago, on a leased 100 Mbit/s.
    pub const OCEAN: Self = Self {
        latency: Duration::from_millis(50),
        jitter: Duration::from_millis(2),
        down: mbit(100),
        up: mbit(100),
        ..Self::LAN
    };
    /// A geostationary satellite: 36,000 km up and down twice, and an upload that is an afterthought.
    pub const SATELLITE: Self =
        Self { latency: Duration::from_millis(300), jitter: Duration::from_millis(10), down: mbit(20), up: mbit(3), ..Self::LAN };
    /// Crowded public Wi-Fi: now quick, now slow, and one segment in two hundred is lost.
    pub const COFFEE_SHOP: Self = Self {
        latency: Duration::from_millis(25),
        jitter: Duration::from_millis(30),
        down: mbit(10),
        up: mbit(4),
        loss: 0.005,
        queue_bytes: QUEUE_BLOATED,
        ..Self::LAN
    };
    /// A cellular modem with a paid volume: what it carries is counted, and it carries little.
    pub const METERED: Self = Self {
        latency: Duration::from_millis(60),
        jitter: Duration::from_millis(15),
        down: mbit(2),
        up: mbit(1),
        queue_bytes: QUEUE_BLOATED,
        ..Self::LAN
    };

    /// The same way with another round-trip time and no jitter.
    pub const fn with_round_trip(mut self, rtt: Duration) -> Self {
        self.latency = Duration::from_nanos((rtt.as_nanos() / 2) as u64);
        self.jitter = Duration::ZERO;
        self
    }

    /// The same way with `bytes` per second in each direction.
    pub const fn with_bytes_per_second(mut self, bytes: u64) -> Self {
        self.down = bytes;
        self.up = bytes;
        self
    }

    /// The same way under kernels that take `bytes` of each connection before they say stop.
    pub const fn with_notsent_lowat(mut self, bytes: usize) -> Self {
        self.notsent_lowat = bytes;
        self
    }

    /// The same way behind routers or modems that take `bytes` in each direction before the sender's line is full.
    pub const fn with_queue(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// There and back, without jitter.
    pub const fn round_trip(&self) -> Duration {
        Duration::from_nanos(2 * self.latency.as_nanos() as u64)
    }

    /// How much a sender may have under way and unread: twice what the way holds, so that an eager reader never idles it.
    pub(crate) fn window(&self) -> usize {
        let in_flight = self.down.max(self.up) as f64 * (self.round_trip() + self.jitter).as_secs_f64();
        (2.0 * in_flight).clamp(WINDOW_MIN as f64, WINDOW_MAX as f64) as usize
    }
}

/// Two places and what lies between them.
pub(super) struct Link {
    pub(super) wan: Wan,
    /// The places, the nearer first, as [`Wan::down`] and [`Wan::up`] mean them.
    pub(super) places: [String; 2],
    pub(super) n_cuts: usize,
    pub(super) n_stalls: usize,
    /// From the near to the far place, and back.
    pub(super) lines: [Line; 2],
    /// Pipes whose bytes ought to have arrived and are only late.
    pub(super) late: BTreeSet<PipeId>,
}

/// One direction of a link, shared by all connections over it: they take turns, a segment each, to its queue, and
/// leave it in the order of their coming.
pub(super) struct Line {
    pub(super) ready: VecDeque<PipeId>,
    /// Segments in the queue, the one that is leaving among them, and their bytes.
    n_segments: usize,
    n_queued: usize,
    /// When the last segment has left or will have.
    free_at: Instant,
    /// The moment at which the line was last seen at work; see [`Line::start`].
    seen_at: Instant,
    pub(super) dice: Dice,
    pub(super) n_bytes: u64,
}

impl Line {
    pub(super) fn new(now: Instant, dice: Dice) -> Self {
        Self { ready: VecDeque::new(), n_segments: 0, n_queued: 0, free_at: now, seen_at: now, dice, n_bytes: 0 }
    }

    /// Whether another segment of up to `n_bytes` finds room: an idle line always has some.
    fn takes(&self, n_bytes: usize, queue_bytes: usize) -> bool {
        self.n_segments == 0 || self.n_queued + n_bytes <= queue_bytes
    }

    /// Takes a segment of `n_bytes` and tells when its last byte will have left.
    pub(super) fn push(&mut self, n_bytes: usize, takes: Duration, now: Instant) -> Instant {
        self.free_at = self.start(now) + takes;
        self.n_segments += 1;
        self.n_queued += n_bytes;
        self.n_bytes += n_bytes as u64;
        self.free_at
    }

    /// A segment of `n_bytes` has left.
    pub(super) fn left(&mut self, n_bytes: usize, now: Instant) {
        self.n_segments -= 1;
        self.n_queued -= n_bytes;
        self.seen_at = now;
    }

    /// When the next segment may begin to leave.
    ///
    /// Timers have a grain of 1 ms, in which a fast line sends much more than a sender may have waiting. So a line
    /// that became free earlier within the grain that is being worked on goes on from where it was.
    fn start(&self, now: Instant) -> Instant {
        if self.seen_at == now { self.free_at } else { self.free_at.max(now) }
    }
}

impl Link {
    pub(super) fn blocked(&self) -> bool {
        self.n_cuts + self.n_stalls > 0
    }

    pub(super) fn bytes_per_second(&self, direction: usize) -> u64 {
        [self.wan.down, self.wan.up][direction].max(1)
    }

    /// The largest piece that takes its turn: a millisecond's worth.
    pub(super) fn segment_max(&self, direction: usize) -> usize {
        (self.bytes_per_second(direction) as usize / 1000).clamp(MSS, SEGMENT_MAX)
    }

    /// Whether the line takes another segment.
    pub(super) fn has_room(&self, direction: usize) -> bool {
        !self.blocked() && self.lines[direction].takes(self.segment_max(direction), self.wan.queue_bytes)
    }

    /// How long a segment travels, and longer if it has to be repeated: one more round trip when others follow that
    /// betray the loss (RFC 5681 section 3.2), else the retransmission timer.
    pub(super) fn travel(&mut self, direction: usize, others_follow: bool) -> Duration {
        let wan = self.wan;
        let dice = &mut self.lines[direction].dice;
        let mut travel = wan.latency;
        if !wan.jitter.is_zero() {
            travel += wan.jitter.mul_f64(dice.share());
        }
        if wan.loss > 0.0 && dice.share() < wan.loss {
            travel += wan.round_trip();
            if !others_follow {
                travel += RTO_MIN;
            }
        }
        travel
    }
}
