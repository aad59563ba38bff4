//! One session against a reference that is too simple to be wrong: any frames of the peer, any calls of the local side.
//!
//! The reference knows no windows, queues, schedules or budgets. It sees what goes in and what comes out, and says of each
//! answer whether it may be given.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::frame::PAYLOAD_MAX;

const WINDOW: usize = 1000;
const STREAMS_MAX: usize = 5;
const BUDGET: usize = 8 * (WINDOW + SEND_QUEUE_MIN);

/// What a correct session is known to be in, seen from outside.
struct Reference {
    role: Role,
    /// The peer's initial window, once it said hello.
    hello: Option<usize>,
    last: u32,
    table: BTreeMap<u32, Known>,
    draining: bool,
    ended: Option<SessionError>,
    heard_at: Instant,
    n_late: u64,
    /// Resets that must leave, in this order.
    resets_due: VecDeque<(u32, Reason)>,
}

/// One stream of it.
struct Known {
    receiving: Side,
    granted: usize,
    unread: VecDeque<u8>,
    sending: Side,
    credit: usize,
    unsent: VecDeque<u8>,
    /// The peer reads no more and has no complaint.
    ignored: bool,
    detached: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    /// The end is asked for and has not left.
    Finishing,
    Whole,
    Cut,
}

impl Side {
    fn is_over(self) -> bool {
        matches!(self, Self::Whole | Self::Cut)
    }
}

impl Reference {
    fn add(&mut self, id: u32) {
        self.last = id;
        let known = Known {
            receiving: Side::Open,
            granted: WINDOW,
            unread: VecDeque::new(),
            sending: Side::Open,
            credit: self.hello.unwrap_or(0),
            unsent: VecDeque::new(),
            ignored: false,
            detached: false,
        };
        self.table.insert(id, known);
    }

    /// Three quarters of the budget are for streams.
    fn is_full(&self) -> bool {
        self.table.len() >= STREAMS_MAX.min(BUDGET / 4 * 3 / (WINDOW + SEND_QUEUE_MIN))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only what may be said is listed; all else is refused or has no effect")]
    fn hear(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let id = frame.stream();
        if let Frame::Hello(hello) = frame {
            return self.hear_hello(hello);
        }
        if self.hello.is_none() {
            return Err(ProtocolError::NoHello);
        }
        match frame {
            Frame::Ping { .. } | Frame::Pong { .. } => return Ok(()),
            Frame::GoAway { .. } => {
                self.draining = true;
                return Ok(());
            }
            Frame::Open { open, .. } if self.role == Role::Agent => return self.hear_open(id.0, open),
            Frame::Data { .. } | Frame::Credit { .. } | Frame::Return { .. } | Frame::HalfClose { .. } | Frame::Reset { .. } => {}
            _ => return Err(ProtocolError::NotAllowed { kind: frame.kind() }),
        }
        if id.0 > self.last {
            return Err(ProtocolError::NeverOpened(id));
        }
        let Some(known) = self.table.get_mut(&id.0) else {
            self.n_late += 1;
            return Ok(());
        };
        match frame {
            Frame::Data { payload, .. } => match known.receiving {
                Side::Open if payload.len() > known.granted => return Err(ProtocolError::Overspent(id)),
                Side::Open => {
                    known.granted -= payload.len();
                    if !known.detached {
                        known.unread.extend(&payload[..]);
                    }
                }
                Side::Finishing | Side::Whole => return Err(ProtocolError::NotAllowed { kind: 3 }),
                Side::Cut => self.n_late += 1,
            },
            Frame::Credit { bytes, .. } if known.credit + *bytes as usize > 1 << 31 => return Err(ProtocolError::Credit(id)),
            Frame::Credit { bytes, .. } => known.credit += *bytes as usize,
            Frame::Return { bytes, .. } if known.receiving == Side::Open => {
                known.granted = known.granted.checked_sub(*bytes as usize).ok_or(ProtocolError::Credit(id))?;
            }
            Frame::HalfClose { .. } if known.receiving == Side::Open => known.receiving = Side::Whole,
            Frame::Reset { reason, .. } => {
                known.ignored |= *reason == Reason::Done && !known.sending.is_over();
                known.cut_sending();
                known.cut_receiving();
            }
            _ => {}
        }
        self.forget_if_over(id.0);
        Ok(())
    }

    fn hear_hello(&mut self, hello: &Hello) -> Result<(), ProtocolError> {
        let window = hello.initial_window as usize;
        if hello.version_min > 2 || hello.version_max < 2 || window > 1 << 31 {
            return Err(ProtocolError::NoHello);
        }
        if self.hello.is_none() {
            self.hello = Some(window);
            self.table.values_mut().for_each(|known| known.credit = window);
        }
        Ok(())
    }

    fn hear_open(&mut self, id: u32, open: &Open) -> Result<(), ProtocolError> {
        if id <= self.last {
            return Err(ProtocolError::OutOfOrder(StreamId(id)));
        }
        self.last = id;
        let refusal = [(open.not_understood, Reason::NotUnderstood), (self.is_full(), Reason::Limit)];
        match refusal.into_iter().find(|(refused, _)| *refused) {
            Some((_, reason)) => self.resets_due.push_back((id, reason)),
            None => self.add(id),
        }
        Ok(())
    }

    fn reset(&mut self, id: u32, reason: Reason) {
        let Some(known) = self.table.get_mut(&id) else { return };
        if !(known.receiving.is_over() && known.sending.is_over()) {
            known.cut_sending();
            known.cut_receiving();
            self.resets_due.push_back((id, reason));
        }
        self.forget_if_over(id);
    }

    fn detach(&mut self, id: u32) {
        let Some(known) = self.table.get_mut(&id) else { return };
        known.detached = true;
        match known.sending {
            Side::Open => self.reset(id, dropped_by(self.role)),
            Side::Finishing => {}
            Side::Whole | Side::Cut => self.leave(id),
        }
        self.forget_if_over(id);
    }

    /// Nobody reads any more: a peer that still speaks is told.
    fn leave(&mut self, id: u32) {
        let Some(known) = self.table.get_mut(&id) else { return };
        if known.receiving == Side::Open {
            known.receiving = Side::Cut;
            self.resets_due.push_back((id, Reason::Done));
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: u32) {
        if self.table.get(&id).is_some_and(|known| known.detached && known.receiving.is_over() && known.sending.is_over()) {
            self.table.remove(&id);
        }
    }

    fn end(&mut self, error: SessionError) {
        self.ended = Some(error);
        for id in self.table.keys().copied().collect::<Vec<_>>() {
            let known = self.table.get_mut(&id).expect("it is there");
            known.cut_sending();
            known.cut_receiving();
            self.forget_if_over(id);
        }
    }

    /// Checks a frame that leaves.
    fn say(&mut self, frame: &Frame) {
        let id = frame.stream().0;
        match frame {
            Frame::Data { payload, .. } => {
                let known = self.table.get_mut(&id).expect("data of a stream that is there");
                assert!(matches!(known.sending, Side::Open | Side::Finishing) && !payload.is_empty());
                assert!(payload.len() <= PAYLOAD_MAX);
                assert!(took(&mut known.unsent, payload), "other bytes than were written");
            }
            Frame::HalfClose { .. } => {
                let known = self.table.get_mut(&id).expect("the end of a stream that is there");
                assert!(known.sending == Side::Finishing && known.unsent.is_empty());
                known.sending = Side::Whole;
                if known.detached {
                    self.leave(id);
                }
            }
            Frame::Credit { bytes, .. } => {
                let known = self.table.get_mut(&id).expect("credit for a stream that is there");
                assert!(known.receiving == Side::Open && !known.detached && *bytes > 0);
                known.granted += *bytes as usize;
            }
            Frame::Reset { reason, .. } => assert_eq!(self.resets_due.pop_front(), Some((id, *reason))),
            Frame::Open { .. } => assert!(self.role == Role::Server && id <= self.last),
            // A return is checked when it is made.
            Frame::Ping { .. } | Frame::Pong { .. } | Frame::Hello(_) | Frame::GoAway { .. } | Frame::Return { .. } => {}
            Frame::Connect { .. } | Frame::Connected { .. } | Frame::Error { .. } | Frame::Close { .. } => {
                panic!("a frame of version 1 left: {frame:?}")
            }
        }
    }

    /// Checks credit that is given back.
    fn give_back(&mut self, id: StreamId, bytes: usize) {
        let known = self.table.get_mut(&id.0).expect("a return of a stream that is there");
        assert!(known.sending == Side::Open && known.unsent.is_empty());
        known.credit -= bytes;
        assert_eq!(Some(known.credit), self.hello, "all but the initial window goes back");
    }
}

impl Known {
    fn cut_sending(&mut self) {
        if !self.sending.is_over() {
            self.sending = Side::Cut;
        }
        self.unsent.clear();
    }

    fn cut_receiving(&mut self) {
        if self.receiving == Side::Open {
            self.receiving = Side::Cut;
            self.unread.clear();
        }
    }
}

/// Takes `bytes` from the front; false when others are there.
fn took(queue: &mut VecDeque<u8>, bytes: &[u8]) -> bool {
    let same = queue.make_contiguous().starts_with(bytes);
    queue.drain(..bytes.len().min(queue.len()));
    same
}

#[derive(Debug, Clone)]
enum Step {
    Hear(Frame),
    /// A frame that may be right: its stream is counted among those there were.
    HearUsual(Frame),
    Open,
    Write(u32, usize),
    Read(u32, usize),
    Finish(u32),
    Reset(u32),
    Detach(u32),
    GoAway,
    Poll(usize),
    Pass(u64),
}

/// The session and what is known of it, step by step.
struct Duel {
    session: Session,
    budget: Arc<Budget>,
    reference: Reference,
    now: Instant,
    n_written: usize,
}

impl Duel {
    fn new(role: Role) -> Self {
        let now = Instant::now();
        let budget = Arc::new(Budget::new(BUDGET));
        let mut config = SessionConfig::new(role, Protocol::Extended, budget.clone());
        (config.initial_window, config.streams_max) = (WINDOW as u32, STREAMS_MAX);
        let reference = Reference {
            role,
            hello: None,
            last: 0,
            table: BTreeMap::new(),
            draining: false,
            ended: None,
            heard_at: now,
            n_late: 0,
            resets_due: VecDeque::new(),
        };
        let mut session = Session::new(config, now);
        assert!(matches!(session.poll_frame(now), Some(Frame::Hello(_))), "hello goes first");
        Self { session, budget, reference, now, n_written: 0 }
    }

    fn apply(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Hear(frame) => self.hear(frame),
            Step::HearUsual(frame) => self.hear(self.aimed(frame)),
            Step::Open => self.open(),
            Step::Write(nth, n) => self.write(self.nth(nth), n),
            Step::Read(nth, n) => self.read(self.nth(nth), n),
            Step::Finish(nth) => {
                let id = self.nth(nth);
                self.session.finish(StreamId(id), now);
                if let Some(known) = self.reference.table.get_mut(&id).filter(|known| known.sending == Side::Open) {
                    known.sending = Side::Finishing;
                }
            }
            Step::Reset(nth) => {
                let id = self.nth(nth);
                self.session.reset(StreamId(id), Reason::Broken, "why");
                self.reference.reset(id, Reason::Broken);
            }
            Step::Detach(nth) => self.detach(self.nth(nth)),
            Step::GoAway => {
                self.session.go_away(Reason::Draining, Duration::ZERO);
                self.reference.draining |= self.reference.ended.is_none();
            }
            Step::Poll(n) => (0..n).map_while(|_| self.session.poll_frame(now)).for_each(|frame| self.reference.say(&frame)),
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
        }
        while self.session.poll_event().is_some() {}
        self.compare();
    }

    /// The nth latest of the streams there were.
    fn nth(&self, nth: u32) -> u32 {
        self.reference.last.saturating_sub(nth).max(1)
    }

    fn aimed(&self, mut frame: Frame) -> Frame {
        match &mut frame {
            Frame::Open { stream, .. } => stream.0 = self.reference.last.saturating_add(1),
            Frame::Data { stream, .. }
            | Frame::Credit { stream, .. }
            | Frame::Return { stream, .. }
            | Frame::HalfClose { stream }
            | Frame::Reset { stream, .. } => stream.0 = self.nth(stream.0),
            Frame::Connect { .. } | Frame::Connected { .. } | Frame::Error { .. } | Frame::Close { .. } => {}
            Frame::Ping { .. } | Frame::Pong { .. } | Frame::Hello(_) | Frame::GoAway { .. } => {}
        }
        frame
    }

    fn hear(&mut self, frame: Frame) {
        let result = self.session.handle_frame(frame.clone(), self.now);
        if let Some(ended) = &self.reference.ended {
            assert_eq!(result, Err(ended.clone()));
            return;
        }
        self.reference.heard_at = self.now;
        let expected = self.reference.hear(&frame).map_err(SessionError::Protocol);
        assert_eq!(result, expected, "{frame:?}");
        if let Err(error) = expected {
            self.reference.end(error);
        }
    }

    fn open(&mut self) {
        if self.reference.role == Role::Agent {
            return;
        }
        let full = self.reference.is_full();
        match self.session.open(Open::default(), self.now) {
            Ok(id) => {
                assert!(!full && !self.reference.draining && self.reference.ended.is_none());
                assert_eq!(id.0, self.reference.last + 1);
                self.reference.add(id.0);
            }
            Err(OpenError::Ended) => assert!(self.reference.ended.is_some()),
            Err(OpenError::Draining) => assert!(self.reference.draining),
            Err(OpenError::Streams { .. } | OpenError::Budget) => assert!(full),
            Err(OpenError::Ids) => panic!("five ids are not all"),
        }
    }

    fn write(&mut self, id: u32, n: usize) {
        let data: Vec<u8> = (0..n).map(|i| ((self.n_written + i) % 251) as u8).collect();
        let result = self.session.write(StreamId(id), &data, self.now);
        let Some(known) = self.reference.table.get_mut(&id).filter(|known| known.sending == Side::Open || known.ignored) else {
            assert!(result.is_err());
            return;
        };
        if known.ignored {
            assert_eq!(result, Ok(n));
            return;
        }
        let taken = result.expect("an open stream takes data");
        let certain = SEND_QUEUE_MIN.saturating_sub(known.unsent.len());
        assert!(taken <= n.min(known.credit) && taken >= n.min(known.credit).min(certain), "{taken} of {n}");
        known.credit -= taken;
        known.unsent.extend(&data[..taken]);
        self.n_written += taken;
    }

    fn read(&mut self, id: u32, max: usize) {
        if self.reference.table.get(&id).is_some_and(|known| known.detached) {
            // Nobody has a handle to read with.
            return;
        }
        let result = self.session.read(StreamId(id), max, self.now);
        let Some(known) = self.reference.table.get_mut(&id).filter(|known| known.receiving != Side::Cut) else {
            assert!(result.is_err());
            return;
        };
        match result.expect("a stream that was not cut is read") {
            Read::Bytes(bytes) => {
                assert!(bytes.len() <= max && (max == 0 || !bytes.is_empty()));
                assert!(took(&mut known.unread, &bytes), "other bytes than came");
            }
            Read::Blocked => assert!(known.unread.is_empty() && known.receiving == Side::Open),
            Read::End => assert!(known.unread.is_empty() && known.receiving == Side::Whole),
        }
    }

    fn detach(&mut self, id: u32) {
        self.session.detach(StreamId(id));
        self.reference.detach(id);
    }

    fn pass(&mut self, duration: Duration) {
        self.now += duration;
        let returns = |session: &Session| {
            let bytes_of =
                |frame: &Frame| if let Frame::Return { stream, bytes } = frame { Some((*stream, *bytes)) } else { None };
            session.control.iter().filter_map(bytes_of).collect::<Vec<_>>()
        };
        let before = returns(&self.session).len();
        let result = self.session.handle_timeout(self.now);
        let silence = self.now - self.reference.heard_at;
        if self.reference.ended.is_none() && silence >= self.session.config.silence_max {
            self.reference.end(SessionError::PeerSilent { silence });
        }
        for (id, bytes) in returns(&self.session).split_off(before) {
            self.reference.give_back(id, bytes as usize);
        }
        if result.is_ok() {
            assert!(self.session.deadline() > self.now, "a timeout that is due again at once");
        }
    }

    /// What must hold at any time.
    fn compare(&self) {
        assert_eq!(self.session.ended(), self.reference.ended.as_ref());
        assert_eq!(self.session.n_streams(), self.reference.table.len());
        assert_eq!(self.session.stats().frames_late, self.reference.n_late);
        let mut held = 0;
        for (id, known) in &self.reference.table {
            let stream = self.session.streams.get(StreamId(*id)).expect("both know it");
            if known.receiving == Side::Open {
                held += known.granted;
            }
            held += known.unread.len() + known.unsent.len();
            assert_eq!((stream.credit, stream.unsent.len()), (known.credit, known.unsent.len()));
        }
        assert!(held <= self.budget.used(), "held {held}, reserved {}", self.budget.used());
        assert!(self.budget.used() <= BUDGET);
    }

    /// Every handle is dropped, and everything leaves.
    fn finish(mut self) {
        for id in self.reference.table.keys().copied().collect::<Vec<_>>() {
            self.detach(id);
        }
        self.apply(Step::Poll(usize::MAX));
        assert_eq!(self.reference.resets_due, [], "resets that never left");
        assert_eq!((self.session.n_streams(), self.budget.used()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_session_answers_any_peer_as_the_reference_does(
        role in prop_oneof![Just(Role::Server), Just(Role::Agent)],
        polite in any::<bool>(),
        steps in prop::collection::vec(any_step(), 0..200),
    ) {
        let mut duel = Duel::new(role);
        if polite {
            duel.apply(Step::Hear(hello(2, 500)));
        }
        steps.into_iter().for_each(|step| duel.apply(step));
        duel.finish();
    }
}

fn hello(version: u8, initial_window: u32) -> Frame {
    let name = String::new();
    Frame::Hello(Hello {
        version_min: version,
        version_max: version,
        initial_window,
        streams_max: 100,
        streams: 0,
        name,
        ..Hello::default()
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    // A walk that ends at the first rude frame sees little: most frames are such as may be right.
    prop_oneof![
        30 => usual_frame().prop_map(Step::HearUsual),
        1 => prop_oneof![usual_frame(), crate::frame::codec::tests::any_frame()].prop_map(Step::Hear),
        1 => prop_oneof![Just(hello(2, 700)), Just(hello(2, u32::MAX)), Just(hello(3, 1))].prop_map(Step::Hear),
        6 => Just(Step::Open),
        10 => (nth(), prop_oneof![4 => 0usize..2000, 1 => 0usize..40_000]).prop_map(|(nth, n)| Step::Write(nth, n)),
        10 => (nth(), 0usize..1500).prop_map(|(nth, n)| Step::Read(nth, n)),
        3 => nth().prop_map(Step::Finish),
        1 => nth().prop_map(Step::Reset),
        3 => nth().prop_map(Step::Detach),
        1 => Just(Step::GoAway),
        10 => (1usize..6).prop_map(Step::Poll),
        4 => prop_oneof![0u64..3000, Just(20_000)].prop_map(Step::Pass),
    ]
}

fn usual_frame() -> impl Strategy<Value = Frame> {
    let stream = || nth().prop_map(StreamId);
    prop_oneof![
        3 => (stream(), prop::bool::weighted(0.1)).prop_map(|(stream, not_understood)| {
            Frame::Open { stream, open: Open { not_understood, ..Open::default() } }
        }),
        6 => (stream(), any::<u8>(), prop_oneof![8 => 0usize..400, 1 => 0usize..1200])
            .prop_map(|(stream, byte, n)| Frame::Data { stream, payload: vec![byte; n].into() }),
        4 => (stream(), 0u32..40_000).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
        1 => (stream(), 0u32..400).prop_map(|(stream, bytes)| Frame::Return { stream, bytes }),
        1 => stream().prop_map(|stream| Frame::HalfClose { stream }),
        1 => (stream(), 0u16..5).prop_map(|(stream, code)| {
            Frame::Reset { stream, reason: Reason::from_code(code), text: String::new() }
        }),
        1 => Just(Frame::Ping { token: Some(1) }),
    ]
}

/// Mostly the latest streams, so that steps meet.
fn nth() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..2, 2 => 2u32..7]
}
