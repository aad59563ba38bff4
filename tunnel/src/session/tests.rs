//! Pair: two sessions back to back, a wire that delays, a clock turned by hand.

mod ends;
mod flow;
mod hostile;
mod model;
mod reference;
mod suspicion;
mod turns;
mod v1;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::budget::Budget;
use crate::frame::Class;

const MIB: usize = 1 << 20;

/// Both ends of one tunnel.
struct Pair {
    now: Instant,
    /// How long a frame is on its way.
    latency: Duration,
    server: End,
    agent: End,
}

/// One session, what is on its way to it, and what came of it.
struct End {
    session: Session,
    budget: Arc<Budget>,
    inbound: VecDeque<(Instant, Bytes)>,
    events: Vec<Event>,
    /// Every frame that left.
    said: Vec<Frame>,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// A pair whose configs `adapt` has changed.
    fn with(adapt: impl Fn(&mut SessionConfig)) -> Self {
        let now = Instant::now();
        let end = |role| {
            let mut config = SessionConfig::new(role, Protocol::Extended, Arc::new(Budget::new(64 * MIB)));
            adapt(&mut config);
            End::new(config, now)
        };
        Self { now, latency: Duration::ZERO, server: end(Role::Server), agent: end(Role::Agent) }
    }

    /// Delivers until nothing is on its way any more; the clock moves as far as that takes.
    fn drive(&mut self) {
        while let Some(at) = self.step() {
            self.now = self.now.max(at);
        }
    }

    /// Lets time pass, with all that happens meanwhile.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let arrival = self.step();
            let due = self.server.session.deadline().min(self.agent.session.deadline());
            let next = arrival.map_or(due, |at| at.min(due));
            if next > until {
                self.now = until;
                return;
            }
            assert!(next >= self.now, "something is due in the past");
            self.now = next;
            self.server.tick(self.now);
            self.agent.tick(self.now);
        }
    }

    /// Sends and delivers what can be at this moment, and says when the next frame arrives.
    fn step(&mut self) -> Option<Instant> {
        loop {
            let arrives_at = self.now + self.latency;
            let mut moved = self.server.send(self.now, arrives_at, &mut self.agent.inbound);
            moved |= self.agent.send(self.now, arrives_at, &mut self.server.inbound);
            moved |= self.server.receive(self.now);
            moved |= self.agent.receive(self.now);
            if !moved {
                let arrivals = [&self.server.inbound, &self.agent.inbound];
                return arrivals.into_iter().filter_map(|inbound| inbound.front().map(|(at, _)| *at)).min();
            }
        }
    }

    /// Opens a stream and waits until the agent has it.
    fn open(&mut self, class: Class) -> StreamId {
        let id = self.server.session.open(Open { class, ..Open::default() }, self.now).unwrap();
        self.drive();
        id
    }

    /// Carries `data` from one end to the other, whose reader keeps up.
    fn carry(&mut self, from: Role, id: StreamId, data: &[u8]) {
        let (mut written, mut read, mut n_idle) = (0, Vec::new(), 0);
        while read.len() < data.len() {
            let (now, before) = (self.now, written);
            // A writer writes again as soon as there is room in the queue.
            while let n @ 1.. = self.end(from).write(id, &data[written..], now) {
                written += n;
                self.step();
            }
            self.step();
            let (bytes, _) = self.end(other(from)).read_all(id, now);
            let arrival = self.step();
            n_idle = if written > before || !bytes.is_empty() || arrival.is_some() { 0 } else { n_idle + 1 };
            assert!(n_idle < 3, "stuck after {} of {} bytes", read.len(), data.len());
            read.extend(bytes);
            self.now = arrival.map_or(now, |at| at.max(now));
        }
        assert!(read == data, "other bytes came than were sent");
    }

    fn end(&mut self, role: Role) -> &mut End {
        match role {
            Role::Server => &mut self.server,
            Role::Agent => &mut self.agent,
        }
    }
}

impl End {
    fn new(config: SessionConfig, now: Instant) -> Self {
        let budget = config.budget.clone();
        let session = Session::new(config, now);
        Self { session, budget, inbound: VecDeque::new(), events: Vec::new(), said: Vec::new() }
    }

    /// Puts everything there is to say on the wire.
    fn send(&mut self, now: Instant, arrives_at: Instant, wire: &mut VecDeque<(Instant, Bytes)>) -> bool {
        let mut moved = false;
        while let Some(frame) = self.session.poll_frame(now) {
            wire.push_back((arrives_at, frame.encode()));
            self.said.push(frame);
            moved = true;
        }
        self.note_events();
        moved
    }

    /// Takes every frame that has arrived.
    fn receive(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((_, message)) = self.inbound.pop_front_if(|(at, _)| *at <= now) {
            let _ = self.session.handle_frame(Frame::decode(message).expect("we wrote it"), now);
            self.note_events();
            moved = true;
        }
        moved
    }

    fn tick(&mut self, now: Instant) {
        if self.session.ended().is_none() && self.session.deadline() <= now && self.session.handle_timeout(now).is_ok() {
            assert!(self.session.deadline() > now, "a timeout that is due again at once");
        }
        self.note_events();
    }

    fn note_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.session.poll_event()));
    }

    fn write(&mut self, id: StreamId, data: &[u8], now: Instant) -> usize {
        let n = self.session.write(id, data, now).expect("the stream takes data");
        self.note_events();
        n
    }

    fn write_all(&mut self, id: StreamId, data: &[u8], now: Instant) {
        assert_eq!(self.write(id, data, now), data.len());
    }

    /// All that can be read, and why there is no more.
    fn read_all(&mut self, id: StreamId, now: Instant) -> (Vec<u8>, Result<Read, StreamError>) {
        let mut read = Vec::new();
        loop {
            match self.session.read(id, 4000, now) {
                Ok(Read::Bytes(bytes)) => read.extend_from_slice(&bytes),
                end => return (read, end),
            }
        }
    }

    /// What the other end has been told by Reset frames.
    fn resets_said(&self) -> Vec<Reason> {
        let reason = |frame: &Frame| if let Frame::Reset { reason, .. } = frame { Some(*reason) } else { None };
        self.said.iter().filter_map(reason).collect()
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Server => Role::Agent,
        Role::Agent => Role::Server,
    }
}

/// What a handle dropped in the middle says: a server has lost its caller, an agent its upstream.
fn dropped_by(role: Role) -> Reason {
    match role {
        Role::Server => Reason::Cancelled,
        Role::Agent => Reason::Broken,
    }
}

/// `n` bytes whose order shows.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8 ^ (i / 251) as u8).collect()
}

fn reset_by_peer(reason: Reason, text: &str) -> StreamError {
    StreamError::Reset { reason, text: text.to_owned() }
}
