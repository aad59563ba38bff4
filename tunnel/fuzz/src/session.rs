//! One session, a hostile peer and a busy local side: whatever they do, the session keeps its word and its budget.
//!
//! A ledger stands beside the session, made of nothing but what went in and what came out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tunnel::frame::{Frame, Hello, Open};
use tunnel::id::StreamId;
use tunnel::{Budget, Event, OpenError, Protocol, Read, Reason, Role, Session, SessionConfig, SessionError, StreamError};

use super::script::Script;

/// Small, so that a few hundred bytes of script reach every limit.
const WINDOW: usize = 1000;
const STREAMS_MAX: usize = 6;
const V1_STREAM_MAX: usize = 5000;

/// Room for five streams, and growth for little.
const BUDGET: usize = 7 * 17_000;

/// More frames than a session may have to say at once: it would speak for ever.
const FRAMES_MAX: usize = 10_000;

/// Runs the script `input`: its first byte says which session, then come steps.
pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let mut siege = Siege::new(script.byte());
    while !script.is_over() {
        siege.step(&mut script);
        siege.assert_bounds();
    }
    siege.leave();
}

struct Siege {
    session: Session,
    budget: Arc<Budget>,
    role: Role,
    protocol: Protocol,
    now: Instant,
    streams: BTreeMap<StreamId, Ledger>,
    /// The highest id that was opened.
    last: u32,
    /// The peer's initial window, once it said hello.
    peer_window: Option<usize>,
    ended: Option<SessionError>,
    /// Counts the bytes of both directions, so that each is another.
    n_bytes: usize,
    /// Leaves by dropping the session rather than its streams.
    drops_whole: bool,
}

/// One stream as its frames tell it. Where they leave a doubt, it holds less than the session may.
#[derive(Default)]
struct Ledger {
    /// What the peer may still send.
    granted: usize,
    unread: VecDeque<u8>,
    /// What we may still send.
    credit: usize,
    unsent: VecDeque<u8>,
    /// The peer reads no more.
    unheard: bool,
    /// The local side gave it up; what had come whole can still be read.
    reset: bool,
    detached: bool,
}

impl Siege {
    fn new(kind: u8) -> Self {
        let role = if kind & 1 == 0 { Role::Server } else { Role::Agent };
        let protocol = if kind & 2 == 0 { Protocol::Extended } else { Protocol::V1 };
        let (now, budget) = (Instant::now(), Arc::new(Budget::new(BUDGET)));
        let mut config = SessionConfig::new(role, protocol, budget.clone());
        (config.initial_window, config.streams_max, config.v1_stream_max) = (WINDOW as u32, STREAMS_MAX, V1_STREAM_MAX);
        let mut siege = Self {
            session: Session::new(config, now),
            budget,
            role,
            protocol,
            now,
            streams: BTreeMap::new(),
            last: 0,
            peer_window: None,
            ended: None,
            n_bytes: 0,
            drops_whole: kind & 8 != 0,
        };
        if kind & 4 == 0 && protocol == Protocol::Extended {
            siege.hear(Frame::Hello(Hello {
                version_min: 2,
                version_max: 2,
                initial_window: 4000,
                streams_max: 1024,
                streams: 0,
                ..Hello::default()
            }));
        }
        siege
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0..=5 => {
                let stream = self.aimed(script.byte());
                self.hear(script.usual_frame(stream));
            }
            6 => {
                let length = script.byte().into();
                if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(script.take(length))) {
                    self.hear(frame);
                }
            }
            7 | 8 => self.write(self.nth(script.byte()), script.size()),
            9 | 10 => self.read(self.nth(script.byte()), script.size()),
            11 => self.open(script),
            12 => self.end_one(script),
            13 => self.poll(script.byte().into()),
            14 => {
                self.now += script.pause();
                if self.session.handle_timeout(self.now).is_ok() {
                    assert!(self.session.deadline() > self.now, "a timeout that is due again at once");
                }
                self.look();
            }
            _ if self.role == Role::Agent => self.session.accept(self.nth(script.byte()), self.now),
            _ => self.open(script),
        }
    }

    /// One of the latest streams; the first when there were none.
    fn nth(&self, nth: u8) -> StreamId {
        StreamId(self.last.saturating_sub((nth % 8).into()).max(1))
    }

    /// The same, or one that nobody has opened: the next, or one far away.
    fn aimed(&self, at: u8) -> StreamId {
        match at {
            0..=127 => StreamId(self.last.saturating_add(1)),
            255 => StreamId(u32::MAX),
            nth => self.nth(nth),
        }
    }

    fn hear(&mut self, mut frame: Frame) {
        if let Frame::Data { payload, .. } = &mut frame {
            *payload = self.fresh(payload.len()).into();
        }
        let before = self.session.stats();
        let result = self.session.handle_frame(frame.clone(), self.now);
        assert_eq!(result.as_ref().err(), self.session.ended(), "it goes on, or it has ended for this reason");
        assert!(self.ended.is_none() || self.ended.as_ref() == result.as_ref().err(), "it ends once");
        if result.is_ok() {
            let stats = self.session.stats();
            let was_late = stats.frames_late > before.frames_late;
            self.note_heard(frame, was_late, stats.bytes_received > before.bytes_received);
        }
        self.look();
    }

    /// Enters a frame that was taken.
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other frame moves bytes or credit")]
    fn note_heard(&mut self, frame: Frame, was_late: bool, was_delivered: bool) {
        if let Frame::Hello(hello) = &frame {
            let window = hello.initial_window as usize;
            if self.peer_window.replace(self.peer_window.unwrap_or(window)).is_none() {
                self.streams.values_mut().for_each(|ledger| ledger.credit += window);
            }
        }
        let Some(ledger) = self.streams.get_mut(&frame.stream()) else { return };
        match frame {
            Frame::Data { payload, .. } => {
                if self.protocol == Protocol::Extended && !was_late && !ledger.detached {
                    ledger.granted = ledger.granted.checked_sub(payload.len()).expect("no more is taken than was granted");
                }
                if was_delivered {
                    assert!(!ledger.detached, "nobody reads it");
                    ledger.unread.extend(&payload);
                }
            }
            Frame::Credit { bytes, .. } => ledger.credit += bytes as usize,
            Frame::Return { bytes, .. } => ledger.granted = ledger.granted.saturating_sub(bytes as usize),
            Frame::HalfClose { .. } => ledger.granted = 0,
            Frame::Reset { .. } | Frame::Error { .. } | Frame::Close { .. } => {
                (ledger.granted, ledger.unheard) = (0, true);
                ledger.unsent.clear();
            }
            _ => {}
        }
    }

    /// Takes the events, and notes an end.
    fn look(&mut self) {
        let mut n_events = 0;
        while let Some(event) = self.session.poll_event() {
            n_events += 1;
            assert!(n_events <= FRAMES_MAX, "events without end");
            if let Event::Opened(id, _) = event {
                assert_eq!(self.role, Role::Agent);
                self.enter(id);
            }
        }
        if self.ended.is_none() && self.session.ended().is_some() {
            self.ended = self.session.ended().cloned();
            for ledger in self.streams.values_mut() {
                (ledger.granted, ledger.unheard) = (0, true);
                ledger.unsent.clear();
            }
        }
    }

    fn enter(&mut self, id: StreamId) {
        assert!(id.0 > self.last, "ids only count up");
        self.last = id.0;
        let (granted, credit) = match self.protocol {
            Protocol::Extended => (WINDOW, self.peer_window.unwrap_or(0)),
            Protocol::V1 => (0, 0),
        };
        self.streams.insert(id, Ledger { granted, credit, ..Ledger::default() });
    }

    fn open(&mut self, script: &mut Script<'_>) {
        if self.role == Role::Agent {
            return;
        }
        match self.session.open(Open { class: script.class(), ..Open::default() }, self.now) {
            Ok(id) => self.enter(id),
            Err(error) => assert_eq!(error == OpenError::Ended, self.ended.is_some(), "{error}"),
        }
    }

    fn write(&mut self, id: StreamId, n: usize) {
        let data = self.fresh(n);
        let result = self.session.write(id, &data, self.now);
        let Some(ledger) = self.streams.get_mut(&id) else { return };
        if let Ok(n) = result
            && !ledger.unheard
        {
            ledger.unsent.extend(data.get(..n).expect("no more is taken than was given"));
        }
    }

    fn read(&mut self, id: StreamId, max: usize) {
        let result = self.session.read(id, max, self.now);
        let Some(ledger) = self.streams.get_mut(&id).filter(|ledger| !ledger.detached) else { return };
        match result {
            Ok(Read::Bytes(bytes)) => {
                assert!(bytes.len() <= max);
                for byte in bytes {
                    assert_eq!(ledger.unread.pop_front(), Some(byte), "what came is read once and in order");
                }
            }
            Ok(Read::Blocked | Read::End) => assert!(max == 0 || ledger.unread.is_empty(), "what came can be read"),
            Err(StreamError::Closed | StreamError::Reset { .. } | StreamError::SessionEnded(_)) => ledger.unread.clear(),
        }
    }

    /// The local side ends a stream, a direction of it, or all.
    fn end_one(&mut self, script: &mut Script<'_>) {
        let id = self.nth(script.byte());
        match script.below(8) {
            0..=2 => self.session.finish(id, self.now),
            3 => {
                self.session.reset(id, Reason::Broken, "why");
                if let Some(ledger) = self.streams.get_mut(&id) {
                    (ledger.granted, ledger.unheard, ledger.reset) = (0, true, true);
                    ledger.unsent.clear();
                }
            }
            4..=6 => self.detach(id),
            _ => self.session.go_away(Reason::Draining, script.pause()),
        }
    }

    fn detach(&mut self, id: StreamId) {
        self.session.detach(id);
        if let Some(ledger) = self.streams.get_mut(&id) {
            (ledger.granted, ledger.detached) = (0, true);
            ledger.unread.clear();
        }
    }

    /// The socket takes up to `max` frames.
    fn poll(&mut self, max: usize) {
        for _ in 0..max {
            let Some(frame) = self.session.poll_frame(self.now) else { return };
            let is_v1 = frame.kind() <= 0x07;
            let is_common = matches!(frame, Frame::Data { .. } | Frame::Ping { .. } | Frame::Pong { .. });
            assert!(is_common || is_v1 == (self.protocol == Protocol::V1), "{frame:?} is of another dialect");
            assert_eq!(Frame::decode(frame.encode()).as_ref(), Ok(&frame));
            self.note_said(frame);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "no other frame moves bytes or credit")]
    fn note_said(&mut self, frame: Frame) {
        let Some(ledger) = self.streams.get_mut(&frame.stream()) else {
            assert!(!matches!(frame, Frame::Data { .. } | Frame::Credit { .. }), "{frame:?} of a stream that nobody has");
            return;
        };
        match frame {
            Frame::Data { payload, .. } => {
                if self.protocol == Protocol::Extended {
                    ledger.credit = ledger.credit.checked_sub(payload.len()).expect("no more is sent than was granted");
                }
                for byte in payload {
                    assert_eq!(ledger.unsent.pop_front(), Some(byte), "what was written is sent once and in order");
                }
            }
            Frame::Credit { bytes, .. } => {
                assert!(!ledger.detached, "credit for a stream that nobody reads");
                ledger.granted += bytes as usize;
            }
            Frame::Return { bytes, .. } => {
                ledger.credit = ledger.credit.checked_sub(bytes as usize).expect("no more is given back than was granted");
            }
            _ => {}
        }
    }

    /// What peers may send unasked and what waits here is reserved, and no more is reserved than the budget has.
    fn assert_bounds(&self) {
        let is_live = |(id, ledger): &(&StreamId, &Ledger)| !ledger.reset && !ledger.detached && self.session.cut(**id).is_none();
        let held: usize = self
            .streams
            .iter()
            .filter(is_live)
            .map(|(_, ledger)| ledger.granted + ledger.unread.len() + ledger.unsent.len())
            .sum();
        let (used, max) = (self.budget.used(), self.budget.max());
        assert!(held <= used, "{held} bytes are held, {used} reserved");
        assert!(used <= max, "{used} bytes are reserved of {max}");
        assert!(self.session.n_streams() <= STREAMS_MAX);
    }

    /// Everybody leaves, and nothing is left.
    fn leave(mut self) {
        if !self.drops_whole {
            for id in self.streams.keys().copied().collect::<Vec<_>>() {
                self.detach(id);
            }
            self.poll(FRAMES_MAX);
            assert_eq!(self.session.poll_frame(self.now), None, "a session that speaks for ever");
            // A version 1 peer that never answers keeps a stream, until the session ends.
            if self.protocol == Protocol::V1 {
                self.session.end(SessionError::PeerClosed);
            }
            assert_eq!((self.session.n_streams(), self.budget.used()), (0, 0));
        }
        drop(self.session);
        assert_eq!(self.budget.used(), 0);
    }

    /// `n` bytes that follow those before.
    fn fresh(&mut self, n: usize) -> Vec<u8> {
        let begin = self.n_bytes;
        self.n_bytes += n;
        (begin..begin + n).map(|at| (at % 251) as u8).collect()
    }
}
