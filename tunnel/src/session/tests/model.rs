//! Two honest sessions under any interleaving of calls, deliveries and time, against a model of what streams promise.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const WINDOW: usize = 2000;

/// Virtual time in which nothing need be delivered: below the limit of silence.
const HELD_BACK_MAX: Duration = Duration::from_secs(40);

#[derive(Debug, Clone)]
enum Step {
    Open(Class),
    Write(Role, usize, usize),
    Read(Role, usize, usize),
    Finish(Role, usize),
    Reset(Role, usize),
    Drop(Role, usize),
    /// So many frames leave for the wire.
    Send(Role, usize),
    /// So many frames arrive at this end.
    Deliver(Role, usize),
    Pass(u64),
}

/// What is known of one end of one stream.
#[derive(Debug, Default)]
struct Side {
    n_written: usize,
    n_read: usize,
    finished: bool,
    reset: bool,
    dropped: bool,
    /// How reading came to its end.
    end: Option<Result<(), StreamError>>,
}

impl Side {
    /// Whether this end has not given up a direction that it had left open.
    fn kept_faith(&self) -> bool {
        !self.reset && (self.finished || !self.dropped)
    }
}

struct World {
    pair: Pair,
    streams: BTreeMap<StreamId, [Side; 2]>,
    held_back: Duration,
}

impl World {
    fn new(budget: usize) -> Self {
        let pair = Pair::with(|config| {
            config.budget = Arc::new(Budget::new(budget));
            config.initial_window = WINDOW as u32;
            config.streams_max = if config.role == Role::Agent { 6 } else { 8 };
        });
        Self { pair, streams: BTreeMap::new(), held_back: Duration::ZERO }
    }

    fn apply(&mut self, step: Step) {
        let now = self.pair.now;
        match step {
            Step::Open(class) => {
                if let Ok(id) = self.pair.server.session.open(Open { class, ..Open::default() }, now) {
                    self.streams.insert(id, Default::default());
                }
            }
            Step::Write(role, nth, n) => self.with_nth(role, nth, |world, id| world.write(role, id, n)),
            Step::Read(role, nth, max) => self.with_nth(role, nth, |world, id| world.read(role, id, max)),
            Step::Finish(role, nth) => self.with_nth(role, nth, |world, id| world.finish(role, id)),
            Step::Reset(role, nth) => self.with_nth(role, nth, |world, id| {
                world.pair.end(role).session.reset(id, Reason::Protocol, "enough");
                world.side(role, id).reset = true;
            }),
            Step::Drop(role, nth) => self.with_nth(role, nth, |world, id| world.drop_handle(role, id)),
            Step::Send(role, n) => {
                let end = self.pair.end(role);
                let frames: Vec<_> = (0..n).map_while(|_| end.session.poll_frame(now)).collect();
                self.pair.end(other(role)).inbound.extend(frames.iter().map(|frame| (now, frame.encode())));
            }
            Step::Deliver(role, n) => {
                for (_, message) in (0..n).map_while(|_| self.pair.end(role).inbound.pop_front()).collect::<Vec<_>>() {
                    let frame = Frame::decode(message).expect("we wrote it");
                    self.pair.end(role).session.handle_frame(frame, now).expect("an honest peer breaks no rule");
                }
            }
            Step::Pass(ms) => {
                let duration = Duration::from_millis(ms).min(HELD_BACK_MAX - self.held_back);
                self.held_back += duration;
                self.pair.now += duration;
                self.pair.server.tick(self.pair.now);
                self.pair.agent.tick(self.pair.now);
            }
        }
        self.check();
    }

    /// Does something with a stream whose handle `role` has.
    fn with_nth(&mut self, role: Role, nth: usize, act: impl FnOnce(&mut Self, StreamId)) {
        let has = |(id, sides): (&StreamId, &[Side; 2])| {
            (!sides[role as usize].dropped && self.end(role).session.streams.get(*id).is_some()).then_some(*id)
        };
        let ids: Vec<_> = self.streams.iter().filter_map(has).collect();
        if let Some(id) = ids.get(nth % ids.len().max(1)) {
            act(self, *id);
        }
    }

    fn write(&mut self, role: Role, id: StreamId, n: usize) {
        let begin = self.side(role, id).n_written;
        let data: Vec<u8> = (begin..begin + n).map(|at| byte(id, role, at)).collect();
        let now = self.pair.now;
        match self.pair.end(role).session.write(id, &data, now) {
            Ok(taken) => self.side(role, id).n_written += taken,
            Err(error) => self.check_error(role, id, &error, true),
        }
    }

    fn read(&mut self, role: Role, id: StreamId, max: usize) {
        let now = self.pair.now;
        let result = self.pair.end(role).session.read(id, max, now);
        let n_written = self.side(other(role), id).n_written;
        let finished = self.side(other(role), id).finished;
        let side = self.side(role, id);
        match result {
            Ok(Read::Bytes(bytes)) => {
                assert_eq!(side.end, None, "data after the end");
                for byte_read in bytes {
                    assert_eq!(byte_read, byte(id, other(role), side.n_read), "byte {} of {id}", side.n_read);
                    side.n_read += 1;
                }
                assert!(side.n_read <= n_written);
            }
            Ok(Read::Blocked) => assert_eq!(side.end, None),
            Ok(Read::End) => {
                assert!(finished && side.n_read == n_written, "an end after {} of {n_written} bytes", side.n_read);
                assert_eq!(*side.end.get_or_insert(Ok(())), Ok(()));
            }
            Err(error) => {
                assert_eq!(*side.end.get_or_insert(Err(error.clone())), Err(error.clone()), "one end");
                self.check_error(role, id, &error, false);
            }
        }
    }

    /// An error says truly who ended the stream and how.
    fn check_error(&mut self, role: Role, id: StreamId, error: &StreamError, writing: bool) {
        let (reset, finished) = (self.side(role, id).reset, self.side(role, id).finished);
        let peer = self.side(other(role), id);
        let just = match error {
            StreamError::Closed => reset || (writing && finished),
            StreamError::Reset { reason: Reason::Done, .. } => writing && peer.dropped && peer.finished,
            StreamError::Reset { reason: Reason::Cancelled | Reason::Broken, .. } => peer.dropped && !peer.finished,
            StreamError::Reset { reason: Reason::Protocol, text } => peer.reset && text == "enough",
            StreamError::Reset { reason: Reason::Limit, .. } => role == Role::Server && peer.n_read + peer.n_written == 0,
            StreamError::Reset { .. } | StreamError::SessionEnded(_) => false,
        };
        assert!(just, "{role:?} of {id} got {error:?} from {peer:?}");
    }

    fn finish(&mut self, role: Role, id: StreamId) {
        let now = self.pair.now;
        let end = self.pair.end(role);
        // Who was cut cannot promise a whole body any more.
        let open = matches!(end.session.streams.get(id).map(|stream| &stream.sending), Some(Half::Open));
        end.session.finish(id, now);
        self.side(role, id).finished |= open;
    }

    fn drop_handle(&mut self, role: Role, id: StreamId) {
        self.pair.end(role).session.detach(id);
        self.side(role, id).dropped = true;
    }

    fn side(&mut self, role: Role, id: StreamId) -> &mut Side {
        &mut self.streams.get_mut(&id).expect("it was opened")[role as usize]
    }

    fn end(&self, role: Role) -> &End {
        match role {
            Role::Server => &self.pair.server,
            Role::Agent => &self.pair.agent,
        }
    }

    /// What must hold at any moment.
    fn check(&self) {
        for role in [Role::Server, Role::Agent] {
            let End { session, budget, .. } = self.end(role);
            assert_eq!(session.ended(), None);
            assert_eq!(budget.used(), session.n_streams() * session.stream_cost() + session.growth());
            assert!(budget.used() <= budget.max());
            assert!(session.grants_due.len().max(session.schedule.len()) <= session.n_streams());
            let held: usize = session.streams.iter().map(|(_, stream)| stream.window.held() + stream.unsent.len()).sum();
            assert!(held <= budget.used(), "held {held}, reserved {}", budget.used());
            for id in self.streams.keys() {
                self.check_credit(role, *id);
            }
        }
    }

    /// Credit is conserved: what the receiver has granted is at the sender, or on its way as data, credit or return.
    fn check_credit(&self, receiver: Role, id: StreamId) {
        let (to, from) = (self.end(receiver), self.end(other(receiver)));
        let (Some(at_receiver), Some(at_sender)) = (to.session.streams.get(id), from.session.streams.get(id)) else { return };
        if at_receiver.receiving != Half::Open || matches!(at_sender.sending, Half::Cut(_)) {
            return;
        }
        let granted = at_receiver.window.granted();
        let on_the_way: usize = from.session.control.iter().map(|frame| towards_receiver(frame, id)).sum();
        let to_receiver: usize = to.inbound.iter().map(|(_, message)| towards_receiver(&decoded(message), id)).sum();
        let to_sender: usize = from.inbound.iter().map(|(_, message)| towards_sender(&decoded(message), id)).sum();
        // Before the hello the sender does not know of the initial window that it has.
        let unknown = if from.session.peer.is_some() { 0 } else { WINDOW };
        let everywhere = at_sender.credit + at_sender.unsent.len() + on_the_way + to_receiver + to_sender + unknown;
        assert_eq!(granted, everywhere, "credit of {id} towards {receiver:?}");
    }

    /// Everybody reads, everybody finishes what is still open, the network delivers: every promise is kept.
    fn settle(mut self) {
        for round in 0.. {
            self.pair.drive();
            let before: usize = self.streams.values().flatten().map(|side| side.n_read).sum();
            for id in self.streams.keys().copied().collect::<Vec<_>>() {
                for role in [Role::Server, Role::Agent] {
                    if !self.side(role, id).dropped && self.end(role).session.streams.get(id).is_some() {
                        self.read_all(role, id);
                        self.finish(role, id);
                    }
                }
            }
            self.check();
            let after: usize = self.streams.values().flatten().map(|side| side.n_read).sum();
            if before == after && round > 2 {
                break;
            }
        }
        for (id, sides) in &self.streams {
            for role in [Role::Server, Role::Agent] {
                let (reader, writer) = (&sides[role as usize], &sides[other(role) as usize]);
                if reader.dropped {
                    continue;
                }
                let refused = reader.end == Some(Err(reset_by_peer(Reason::Limit, "too many streams")))
                    || reader.end == Some(Err(reset_by_peer(Reason::Limit, "no memory for another stream")));
                let agent_has_it = role == Role::Server || self.end(role).session.streams.get(*id).is_some();
                if agent_has_it && !refused {
                    assert!(reader.end.is_some(), "{role:?} waits on {id} for ever: {sides:?}");
                }
                if writer.finished && writer.kept_faith() && !reader.reset && agent_has_it && !refused {
                    assert_eq!((&reader.end, reader.n_read), (&Some(Ok(())), writer.n_written), "{id} to {role:?}");
                }
            }
        }
        self.drop_everything();
    }

    fn read_all(&mut self, role: Role, id: StreamId) {
        loop {
            let before = self.side(role, id).n_read;
            self.read(role, id, 700);
            if self.side(role, id).n_read == before {
                return;
            }
        }
    }

    fn drop_everything(mut self) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.drop_handle(Role::Server, id);
            self.drop_handle(Role::Agent, id);
        }
        self.pair.drive();
        for end in [&self.pair.server, &self.pair.agent] {
            assert_eq!((end.session.n_streams(), end.budget.used()), (0, 0));
            assert_eq!((end.session.grants_due.len(), end.session.schedule.len()), (0, 0));
        }
    }
}

/// The byte that `role` writes at this place.
fn byte(id: StreamId, role: Role, at: usize) -> u8 {
    (at % 253) as u8 ^ (at / 253) as u8 ^ (id.0 as u8) << 4 ^ (role as u8) << 7
}

fn decoded(message: &Bytes) -> Frame {
    Frame::decode(message.clone()).expect("we wrote it")
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other frame carries credit")]
fn towards_receiver(frame: &Frame, id: StreamId) -> usize {
    match frame {
        Frame::Data { stream, payload } if *stream == id => payload.len(),
        Frame::Return { stream, bytes } if *stream == id => *bytes as usize,
        _ => 0,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other frame carries credit")]
fn towards_sender(frame: &Frame, id: StreamId) -> usize {
    match frame {
        Frame::Credit { stream, bytes } if *stream == id => *bytes as usize,
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn bytes_arrive_once_in_order_with_one_end_and_credit_and_budget_are_conserved(
        budget in prop_oneof![Just(4 << 20), 60_000usize..300_000],
        steps in prop::collection::vec(any_step(), 0..250),
    ) {
        let mut world = World::new(budget);
        steps.into_iter().for_each(|step| world.apply(step));
        world.settle();
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let role = || prop_oneof![Just(Role::Server), Just(Role::Agent)];
    let nth = || 0usize..6;
    prop_oneof![
        4 => prop::sample::select(&Class::ALL[..]).prop_map(Step::Open),
        12 => (role(), nth(), prop_oneof![2 => 0usize..3000, 1 => 0usize..20_000])
            .prop_map(|(role, nth, n)| Step::Write(role, nth, n)),
        12 => (role(), nth(), 1usize..20_000).prop_map(|(role, nth, n)| Step::Read(role, nth, n)),
        3 => (role(), nth()).prop_map(|(role, nth)| Step::Finish(role, nth)),
        1 => (role(), nth()).prop_map(|(role, nth)| Step::Reset(role, nth)),
        2 => (role(), nth()).prop_map(|(role, nth)| Step::Drop(role, nth)),
        12 => (role(), 1usize..8).prop_map(|(role, n)| Step::Send(role, n)),
        12 => (role(), 1usize..8).prop_map(|(role, n)| Step::Deliver(role, n)),
        4 => prop_oneof![0u64..50, 0u64..3000].prop_map(Step::Pass),
    ]
}
