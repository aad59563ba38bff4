//! Two honest sessions under any interleaving of calls, deliveries and time: what is written arrives once and in order,
//! what was finished arrives whole, everybody learns of an end, and nothing is left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tunnel::frame::{Frame, Open};
use tunnel::id::StreamId;
use tunnel::{Budget, Event, Protocol, Read, Reason, Role, Session, SessionConfig, StreamError};

use super::script::Script;

const WINDOW: u32 = 2000;

/// Virtual time in which nothing need be delivered: below the limit of silence.
const HELD_BACK_MAX: Duration = Duration::from_secs(40);

/// Rounds of talk after which two ends that only answer each other must have come to rest.
const ROUNDS_MAX: usize = 10_000;

/// Runs the script `input`: its first byte says which pair, then come steps.
pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let mut pair = Pair::new(script.byte());
    while !script.is_over() {
        pair.step(&mut script);
        pair.assert_sound();
    }
    pair.settle();
}

struct Pair {
    protocol: Protocol,
    now: Instant,
    held_back: Duration,
    /// Server and agent.
    ends: [End; 2],
}

struct End {
    session: Session,
    budget: Arc<Budget>,
    inbound: VecDeque<Bytes>,
    handles: BTreeMap<StreamId, Handle>,
}

/// What one end did with a stream, and what came of it.
#[derive(Debug, Default, Clone)]
struct Handle {
    n_written: usize,
    n_read: usize,
    finished: bool,
    reset: bool,
    dropped: bool,
    end: Option<Result<(), StreamError>>,
}

impl Handle {
    /// Whether this end has not given up a direction that it had left open.
    fn kept_faith(&self) -> bool {
        !self.reset && (self.finished || !self.dropped)
    }

    /// Whether the stream was refused by the other end, which then knows nothing of it.
    fn was_refused(&self) -> bool {
        matches!(self.end, Some(Err(StreamError::Reset { reason: Reason::Limit, .. })))
    }
}

impl Pair {
    fn new(kind: u8) -> Self {
        let protocol = if kind & 1 == 0 { Protocol::Extended } else { Protocol::V1 };
        let bytes = if kind & 2 == 0 { 4 << 20 } else { 60_000 + 1000 * usize::from(kind) };
        let now = Instant::now();
        let end = |role, streams_max| {
            let budget = Arc::new(Budget::new(bytes));
            let mut config = SessionConfig::new(role, protocol, budget.clone());
            (config.initial_window, config.streams_max, config.v1_stream_max) = (WINDOW, streams_max, 20_000);
            let session = Session::new(config, now);
            End { session, budget, inbound: VecDeque::new(), handles: BTreeMap::new() }
        };
        Self { protocol, now, held_back: Duration::ZERO, ends: [end(Role::Server, 8), end(Role::Agent, 6)] }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let verb = script.byte();
        let side = usize::from(verb & 1);
        match verb >> 1 & 0x0f {
            0 | 1 => {
                let open = Open { class: script.class(), ..Open::default() };
                if let Ok(id) = self.ends[0].session.open(open, self.now) {
                    self.ends[0].handles.insert(id, Handle::default());
                }
            }
            2..=4 => self.with_nth(side, script, |pair, id, script| pair.write(side, id, script.size())),
            5..=7 => self.with_nth(side, script, |pair, id, script| pair.read(side, id, 1 + script.size())),
            8 => self.with_nth(side, script, |pair, id, _| {
                pair.ends[side].session.finish(id, pair.now);
                pair.handle(side, id).finished = true;
            }),
            9 => self.with_nth(side, script, |pair, id, script| pair.end_or_accept(side, id, script.below(4))),
            10 | 11 => {
                self.send(side, script.below(16).into());
            }
            12 | 13 => {
                self.deliver(side, script.below(16).into());
            }
            14 => self.pass(script.pause() / 8),
            _ if verb >> 5 == 7 => self.ends[side].session.go_away(Reason::Draining, script.pause()),
            _ => self.drive(),
        }
    }

    /// Does something with a stream whose handle the end has.
    fn with_nth(&mut self, side: usize, script: &mut Script<'_>, act: impl FnOnce(&mut Self, StreamId, &mut Script<'_>)) {
        let nth = usize::from(script.byte());
        let held: Vec<_> = self.ends[side].handles.iter().filter(|(_, handle)| !handle.dropped).map(|(id, _)| *id).collect();
        if let Some(id) = held.get(nth % held.len().max(1)) {
            act(self, *id, script);
        }
    }

    fn end_or_accept(&mut self, side: usize, id: StreamId, choice: u8) {
        match choice {
            0 => {
                self.ends[side].session.reset(id, Reason::Protocol, "enough");
                self.handle(side, id).reset = true;
            }
            1 => self.drop_handle(side, id),
            _ => self.accept(side, id),
        }
    }

    /// It is the agent that takes streams.
    fn accept(&mut self, side: usize, id: StreamId) {
        if side == 1 {
            self.ends[1].session.accept(id, self.now);
        }
    }

    fn write(&mut self, side: usize, id: StreamId, n: usize) {
        let begin = self.handle(side, id).n_written;
        let data: Vec<u8> = (begin..begin + n).map(|at| byte(id, side, at)).collect();
        match self.ends[side].session.write(id, &data, self.now) {
            Ok(taken) => self.handle(side, id).n_written += taken,
            Err(error) => self.assert_just(side, id, &error),
        }
    }

    fn read(&mut self, side: usize, id: StreamId, max: usize) {
        let result = self.ends[side].session.read(id, max, self.now);
        let extended = self.protocol == Protocol::Extended;
        let peer = self.peer_of(side, id);
        let handle = self.handle(side, id);
        match result {
            Ok(Read::Bytes(bytes)) => {
                assert_eq!(handle.end, None, "data after the end");
                for read in bytes {
                    assert_eq!(read, byte(id, 1 - side, handle.n_read), "byte {} of {id}", handle.n_read);
                    handle.n_read += 1;
                }
                assert!(handle.n_read <= peer.n_written);
            }
            Ok(Read::Blocked) => assert_eq!(handle.end, None, "an end that was none"),
            Ok(Read::End) => {
                // Version 1 has one word for all ends of a stream.
                let whole = peer.finished && handle.n_read == peer.n_written;
                assert!(whole || !extended, "an end after {} of {} bytes", handle.n_read, peer.n_written);
                assert_eq!(*handle.end.get_or_insert(Ok(())), Ok(()), "one end");
            }
            Err(error) => {
                assert_eq!(*handle.end.get_or_insert(Err(error.clone())), Err(error.clone()), "one end");
                self.assert_just(side, id, &error);
            }
        }
    }

    /// An error has a cause: somebody gave the stream up, or had no room for it.
    fn assert_just(&mut self, side: usize, id: StreamId, error: &StreamError) {
        let (own, peer) = (self.handle(side, id).clone(), self.peer_of(side, id));
        let just = match error {
            StreamError::Closed => own.reset || own.finished,
            StreamError::Reset { reason: Reason::Limit, .. } => side == 0 && peer.n_read + peer.n_written == 0,
            StreamError::Reset { .. } => peer.reset || peer.dropped || self.protocol == Protocol::V1,
            StreamError::SessionEnded(_) => false,
        };
        assert!(just, "{error:?} of {id}, own {own:?}, peer {peer:?}");
    }

    fn drop_handle(&mut self, side: usize, id: StreamId) {
        self.ends[side].session.detach(id);
        self.handle(side, id).dropped = true;
    }

    fn send(&mut self, side: usize, n: usize) -> usize {
        let (now, session) = (self.now, &mut self.ends[side].session);
        let frames: Vec<_> = (0..n).map_while(|_| session.poll_frame(now)).map(|frame| frame.encode()).collect();
        let n_sent = frames.len();
        self.ends[1 - side].inbound.extend(frames);
        n_sent
    }

    fn deliver(&mut self, side: usize, n: usize) -> usize {
        let end = &mut self.ends[side];
        let mut n_delivered = 0;
        while n_delivered < n
            && let Some(message) = end.inbound.pop_front()
        {
            let frame = Frame::decode(message).expect("a session wrote it");
            end.session.handle_frame(frame, self.now).expect("an honest peer breaks no rule");
            while let Some(event) = end.session.poll_event() {
                if let Event::Opened(id, _) = event {
                    end.handles.insert(id, Handle::default());
                }
            }
            n_delivered += 1;
        }
        n_delivered
    }

    fn pass(&mut self, duration: Duration) {
        let duration = duration.min(HELD_BACK_MAX - self.held_back);
        self.held_back += duration;
        self.now += duration;
        for end in &mut self.ends {
            if end.session.deadline() <= self.now {
                end.session.handle_timeout(self.now).expect("nobody was silent for long");
                assert!(end.session.deadline() > self.now, "a timeout that is due again at once");
            }
        }
    }

    /// Sends and delivers until nothing is on its way.
    fn drive(&mut self) {
        let moves = |pair: &mut Self| -> usize {
            (0..2).map(|side| pair.send(side, usize::MAX) + pair.deliver(1 - side, usize::MAX)).sum()
        };
        let n_rounds = (0..ROUNDS_MAX).take_while(|_| moves(self) > 0).count();
        assert!(n_rounds < ROUNDS_MAX, "two ends that talk for ever");
    }

    fn assert_sound(&self) {
        for End { session, budget, .. } in &self.ends {
            assert_eq!(session.ended(), None);
            assert!(budget.used() <= budget.max());
        }
    }

    /// Everybody takes, reads and finishes what is open, the network delivers: every promise is kept.
    fn settle(mut self) {
        let n_read = |pair: &Self| -> usize { pair.ends.iter().flat_map(|end| end.handles.values()).map(|h| h.n_read).sum() };
        for round in 0..ROUNDS_MAX {
            self.drive();
            let before = n_read(&self);
            for side in [0, 1] {
                let held = self.ends[side].handles.iter().filter(|(_, handle)| !handle.dropped);
                for id in held.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.accept(side, id);
                    self.read(side, id, usize::MAX);
                    self.ends[side].session.finish(id, self.now);
                    self.handle(side, id).finished = true;
                }
            }
            self.assert_sound();
            if round > 3 && n_read(&self) == before {
                break;
            }
        }
        if self.protocol == Protocol::Extended {
            self.assert_kept();
        }
        for side in [0, 1] {
            for id in self.ends[side].handles.keys().copied().collect::<Vec<_>>() {
                self.drop_handle(side, id);
            }
        }
        self.drive();
        for End { session, budget, handles, .. } in &self.ends {
            assert_eq!((session.n_streams(), budget.used()), (0, 0), "nothing is left of {handles:?}");
        }
    }

    /// Who still reads has learnt of an end, and has all that was finished.
    fn assert_kept(&self) {
        for (id, on_server) in self.ends[0].handles.iter().filter(|(_, handle)| !handle.was_refused()) {
            let Some(on_agent) = self.ends[1].handles.get(id) else { continue };
            for (reader, writer) in [(on_server, on_agent), (on_agent, on_server)] {
                if reader.dropped {
                    continue;
                }
                assert!(reader.end.is_some(), "somebody waits on {id} for ever: {reader:?} {writer:?}");
                if writer.finished && writer.kept_faith() && !reader.reset {
                    assert_eq!((&reader.end, reader.n_read), (&Some(Ok(())), writer.n_written), "{id} is whole");
                }
            }
        }
    }

    fn handle(&mut self, side: usize, id: StreamId) -> &mut Handle {
        self.ends[side].handles.get_mut(&id).expect("only those that it has are asked for")
    }

    /// What the other end did with a stream, nothing so far if it does not know of it.
    fn peer_of(&self, side: usize, id: StreamId) -> Handle {
        self.ends[1 - side].handles.get(&id).cloned().unwrap_or_default()
    }
}

/// The byte that an end writes at this place.
fn byte(id: StreamId, side: usize, at: usize) -> u8 {
    (at % 253) as u8 ^ (at / 253) as u8 ^ (id.0 as u8) << 4 ^ (side as u8) << 7
}
