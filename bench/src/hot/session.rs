//! Two sessions back to back: a stream opens, carries bytes both ways under credit, half-closes and is forgotten.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;
use tunnel::frame::{Class, Open};
use tunnel::id::StreamId;
use tunnel::{Budget, Event, Protocol, Read, Role, Session, SessionConfig};

/// What each side says on a stream: more than the initial window, so that credit is granted on the way.
const BYTES: usize = 64 * 1024;

/// What one write offers and one read takes: about what an HTTP library does.
const PIECE: usize = 16 * 1024;

/// What a session may hold, as the programs have it.
const BUDGET: usize = 64 << 20;

/// How far the clock goes on between two deliveries: a round trip within a data centre.
const STEP: Duration = Duration::from_micros(250);

/// No exchange takes as many deliveries: a pair that does not go on would spin.
const STEPS_MAX: usize = 1000;

pub(super) fn run(count: u64) -> Result<()> {
    let mut pair = Pair::new();
    for _ in 0..count {
        pair.exchange()?;
    }
    Ok(())
}

struct Pair {
    now: Instant,
    server: End,
    agent: End,
    data: Vec<u8>,
}

struct End {
    session: Session,
    /// Of the running stream.
    written: usize,
    read: usize,
    has_read_all: bool,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let end = |role| {
            let config = SessionConfig::new(role, Protocol::Extended, Arc::new(Budget::new(BUDGET)));
            End { session: Session::new(config, now), written: 0, read: 0, has_read_all: false }
        };
        Self { now, server: end(Role::Server), agent: end(Role::Agent), data: vec![b'x'; BYTES] }
    }

    fn exchange(&mut self) -> Result<()> {
        self.deliver()?;
        let open = Open { class: Class::Small, request_id: "6f1c3f0a".to_owned(), ..Open::default() };
        let id = self.server.session.open(open, self.now)?;
        self.deliver()?;
        for end in [&mut self.server, &mut self.agent] {
            (end.written, end.read, end.has_read_all) = (0, 0, false);
        }
        self.agent.session.accept(id, self.now);
        for _ in 0..STEPS_MAX {
            self.server.write(id, &self.data, self.now)?;
            self.agent.write(id, &self.data, self.now)?;
            self.deliver()?;
            self.server.read(id, self.now)?;
            self.agent.read(id, self.now)?;
            self.deliver()?;
            if self.server.has_read_all && self.agent.has_read_all {
                return self.part(id);
            }
        }
        bail!("the exchange stands still after {} and {} bytes", self.server.read, self.agent.read)
    }

    /// Both let go of the stream, which is then forgotten.
    fn part(&mut self, id: StreamId) -> Result<()> {
        self.server.session.detach(id);
        self.agent.session.detach(id);
        self.deliver()?;
        ensure!(self.server.read == BYTES && self.agent.read == BYTES, "other bytes came than were sent");
        ensure!(self.server.session.n_streams() + self.agent.session.n_streams() == 0, "a stream that ended is still held");
        Ok(())
    }

    /// Hands over what each has to say, and hears its events.
    fn deliver(&mut self) -> Result<()> {
        self.now += STEP;
        loop {
            let moved = pass(&mut self.server, &mut self.agent, self.now)? + pass(&mut self.agent, &mut self.server, self.now)?;
            if moved == 0 {
                return Ok(());
            }
        }
    }
}

/// Hands all frames of one side to the other; how many.
fn pass(from: &mut End, to: &mut End, now: Instant) -> Result<usize> {
    let mut n = 0;
    while let Some(frame) = from.session.poll_frame(now) {
        to.session.handle_frame(frame, now).context("a frame of the other side")?;
        n += 1;
    }
    // As a driver does after each batch.
    black_box(from.session.deadline());
    while let Some(event) = to.session.poll_event() {
        ensure!(!matches!(event, Event::GoAway { .. } | Event::Suspect), "unasked for: {event:?}");
    }
    Ok(n)
}

impl End {
    fn write(&mut self, id: StreamId, data: &[u8], now: Instant) -> Result<()> {
        while let Some(left) = data.get(self.written..).filter(|left| !left.is_empty()) {
            let n = self.session.write(id, &left[..left.len().min(PIECE)], now)?;
            self.written += n;
            if self.written == data.len() {
                self.session.finish(id, now);
            }
            if n == 0 {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, id: StreamId, now: Instant) -> Result<()> {
        while !self.has_read_all {
            match self.session.read(id, PIECE, now)? {
                Read::Bytes(bytes) => self.read += black_box(bytes).len(),
                Read::Blocked => break,
                Read::End => self.has_read_all = true,
            }
        }
        Ok(())
    }
}
