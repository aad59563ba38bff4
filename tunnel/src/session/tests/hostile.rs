//! Peers that break the rules: the session ends with the rule they broke, or only their stream does.

use proptest::prelude::*;

use super::*;
use crate::frame::codec::tests::any_frame;

const ONE: StreamId = StreamId(1);
const TWO: StreamId = StreamId(2);

/// An agent that has heard a hello and an open, and whose socket takes nothing.
fn agent() -> (End, Instant) {
    let now = Instant::now();
    let config = SessionConfig::new(Role::Agent, Protocol::Extended, Arc::new(Budget::new(4 * MIB)));
    let mut agent = End::new(config, now);
    agent.session.handle_frame(hello(), now).unwrap();
    agent.session.handle_frame(open(ONE), now).unwrap();
    (agent, now)
}

fn hello() -> Frame {
    Frame::Hello(Hello {
        version_min: 2,
        version_max: 2,
        initial_window: 32 * 1024,
        streams_max: 1024,
        streams: 0,
        ..Hello::default()
    })
}

fn open(stream: StreamId) -> Frame {
    Frame::Open { stream, open: Open::default() }
}

fn data(stream: StreamId, n: usize) -> Frame {
    Frame::Data { stream, payload: vec![7; n].into() }
}

fn reset(stream: StreamId) -> Frame {
    Frame::Reset { stream, reason: Reason::Cancelled, text: String::new() }
}

/// Says `frames` to an agent with one stream; the last of them breaks `rule`.
fn breaks(rule: ProtocolError, frames: &[Frame]) {
    let (mut agent, now) = agent();
    let (last, before) = frames.split_last().expect("a frame");
    for frame in before {
        assert_eq!(agent.session.handle_frame(frame.clone(), now), Ok(()), "{frame:?}");
    }
    let error = SessionError::Protocol(rule);
    assert_eq!(agent.session.handle_frame(last.clone(), now), Err(error.clone()), "{last:?}");
    assert_eq!(agent.session.ended(), Some(&error));
    [ONE, TWO, StreamId(u32::MAX)].into_iter().for_each(|id| agent.session.detach(id));
    assert_eq!(agent.budget.used(), 0);
}

/// Says `frames` to an agent with one stream, which goes on.
fn harms_nobody(frames: &[Frame]) -> End {
    let (mut agent, now) = agent();
    for frame in frames {
        assert_eq!(agent.session.handle_frame(frame.clone(), now), Ok(()), "{frame:?}");
    }
    agent.session.handle_frame(open(StreamId(9)), now).unwrap();
    agent.session.handle_frame(data(StreamId(9), 5), now).unwrap();
    assert_eq!(agent.read_all(StreamId(9), now).0, [7; 5]);
    agent
}

#[test]
fn the_first_frame_is_a_usable_hello_or_the_session_ends() {
    let Frame::Hello(good) = hello() else { unreachable!() };
    let bad = [
        open(ONE),
        data(ONE, 1),
        Frame::Ping { token: None },
        Frame::GoAway { reason: Reason::Done, grace: Duration::ZERO },
        Frame::Hello(Hello { version_min: 3, version_max: 9, ..good.clone() }),
        Frame::Hello(Hello { version_min: 1, version_max: 1, ..good.clone() }),
        Frame::Hello(Hello { version_min: 9, version_max: 1, ..good.clone() }),
        Frame::Hello(Hello { initial_window: u32::MAX, ..good }),
    ];
    for frame in bad {
        for role in [Role::Server, Role::Agent] {
            let config = SessionConfig::new(role, Protocol::Extended, Arc::new(Budget::new(MIB)));
            let now = Instant::now();
            let mut end = End::new(config, now);
            let no_hello = Err(SessionError::Protocol(ProtocolError::NoHello));
            assert_eq!(end.session.handle_frame(frame.clone(), now), no_hello, "{frame:?}");
        }
    }
}

#[test]
fn a_stream_that_was_never_opened_has_no_frames() {
    let frames = [
        data(TWO, 1),
        Frame::Credit { stream: TWO, bytes: 1 },
        Frame::Return { stream: TWO, bytes: 1 },
        Frame::HalfClose { stream: TWO },
        reset(TWO),
    ];
    for frame in frames {
        breaks(ProtocolError::NeverOpened(TWO), &[frame]);
    }
}

#[test]
fn ids_only_count_up() {
    breaks(ProtocolError::OutOfOrder(ONE), &[open(ONE)]);
    breaks(ProtocolError::OutOfOrder(TWO), &[open(TWO), reset(TWO), open(TWO)]);
    breaks(ProtocolError::OutOfOrder(ONE), &[open(StreamId(u32::MAX)), open(ONE)]);
}

#[test]
fn frames_of_version_1_and_of_the_other_role_are_not_allowed() {
    let frames = [
        Frame::Connect { stream: TWO, target: String::new() },
        Frame::Connected { stream: ONE },
        Frame::Error { stream: ONE, text: String::new() },
        Frame::Close { stream: ONE },
    ];
    for frame in frames {
        breaks(ProtocolError::NotAllowed { kind: frame.kind() }, &[frame]);
    }
    let mut pair = Pair::new();
    pair.drive();
    let not_allowed = SessionError::Protocol(ProtocolError::NotAllowed { kind: 0x11 });
    assert_eq!(pair.server.session.handle_frame(open(ONE), pair.now), Err(not_allowed));
}

#[test]
fn credit_is_spent_to_the_last_byte_and_not_beyond() {
    harms_nobody(&[data(ONE, 32 * 1024), data(ONE, 0)]);
    breaks(ProtocolError::Overspent(ONE), &[data(ONE, 32 * 1024), data(ONE, 1)]);
    breaks(ProtocolError::Overspent(ONE), &[data(ONE, 32 * 1024 + 1)]);
    breaks(ProtocolError::Overspent(ONE), &[Frame::Return { stream: ONE, bytes: 32 * 1024 }, data(ONE, 1)]);
}

#[test]
fn credit_is_overspent_by_a_detached_streams_peer_too() {
    let (mut agent, now) = agent();
    agent.write_all(ONE, b"answer", now);
    agent.session.finish(ONE, now);
    agent.session.detach(ONE);
    assert_eq!(agent.session.handle_frame(data(ONE, 32 * 1024), now), Ok(()));
    assert!(agent.session.handle_frame(data(ONE, 1), now).is_err());
}

#[test]
fn nothing_follows_a_half_close() {
    breaks(ProtocolError::NotAllowed { kind: 3 }, &[Frame::HalfClose { stream: ONE }, data(ONE, 1)]);
    harms_nobody(&[Frame::HalfClose { stream: ONE }, Frame::HalfClose { stream: ONE }]);
}

#[test]
fn credit_beyond_every_window_and_returns_of_what_nobody_had_are_refused() {
    let credit = |bytes| Frame::Credit { stream: ONE, bytes };
    breaks(ProtocolError::Credit(ONE), &[credit(u32::MAX)]);
    breaks(ProtocolError::Credit(ONE), &[credit((1 << 31) - 32 * 1024), credit(1)]);
    harms_nobody(&[credit((1 << 31) - 32 * 1024), credit(0)]);
    breaks(ProtocolError::Credit(ONE), &[Frame::Return { stream: ONE, bytes: 32 * 1024 + 1 }]);
    breaks(ProtocolError::Credit(ONE), &[data(ONE, 1), Frame::Return { stream: ONE, bytes: 32 * 1024 }]);
}

#[test]
fn frames_for_a_stream_that_has_ended_are_counted_and_dropped() {
    let late = [data(ONE, 1), Frame::Credit { stream: ONE, bytes: u32::MAX }, Frame::HalfClose { stream: ONE }, reset(ONE)];
    let (mut agent, now) = agent();
    agent.session.detach(ONE);
    for frame in late {
        assert_eq!(agent.session.handle_frame(frame, now), Ok(()));
    }
    assert_eq!(agent.session.stats().frames_late, 4);
}

#[test]
fn a_field_that_must_be_understood_and_is_not_resets_that_stream_alone() {
    let unknown = Frame::Open { stream: TWO, open: Open { not_understood: true, ..Open::default() } };
    let mut agent = harms_nobody(&[unknown]);
    agent.send(Instant::now(), Instant::now(), &mut VecDeque::new());
    assert_eq!(agent.resets_said(), [Reason::NotUnderstood]);
}

#[test]
fn a_second_hello_tells_the_load_and_a_note_and_changes_no_window() {
    let Frame::Hello(hello) = hello() else { unreachable!() };
    let again = Hello { streams: 17, initial_window: 1, note: "a:1:b".into(), ..hello.clone() };
    let agent = harms_nobody(&[Frame::Hello(again)]);
    assert_eq!(agent.session.peer(), Some(&Hello { streams: 17, note: "a:1:b".into(), ..hello }));
}

#[test]
fn a_flood_of_questions_costs_one_answer_and_a_flood_of_opens_the_session() {
    let mut agent = harms_nobody(&vec![Frame::Ping { token: Some(1) }; 10_000]);
    let now = Instant::now();
    agent.send(now, now, &mut VecDeque::new());
    assert_eq!(agent.said.iter().filter(|frame| frame.kind() == 0x07).count(), 1);

    let (mut agent, now) = self::agent();
    agent.session.config.streams_max = 1;
    let ended = (2..).find_map(|n| agent.session.handle_frame(open(StreamId(n)), now).err().map(|error| (n, error)));
    let (n, error) = ended.expect("an end");
    assert_eq!(error, SessionError::Protocol(ProtocolError::Flood));
    assert!((CONTROL_MAX..CONTROL_MAX + 10).contains(&(n as usize)), "{n}");
}

#[test]
fn streams_that_come_and_go_while_the_socket_takes_nothing_leave_nothing() {
    let (mut agent, now) = agent();
    for id in (2..20_000).map(StreamId) {
        agent.session.handle_frame(open(id), now).unwrap();
        agent.session.handle_frame(data(id, 32 * 1024), now).unwrap();
        assert_eq!(agent.read_all(id, now).0.len(), 32 * 1024);
        agent.write_all(id, b"answer", now);
        agent.session.handle_frame(reset(id), now).unwrap();
        agent.session.detach(id);
    }
    assert_eq!(agent.session.n_streams(), 1);
    assert_eq!((agent.session.grants_due.len(), agent.session.schedule.len()), (0, 0));
    assert!(agent.session.control.len() < 10);
}

/// What a hostile peer and a busy local side do by turns.
#[derive(Debug, Clone)]
enum Step {
    Hear(Frame),
    Write(u32, usize),
    Read(u32, usize),
    Finish(u32),
    Accept(u32),
    Reset(u32),
    Detach(u32),
    Open(Class),
    GoAway,
    Poll(usize),
    Pass(u64),
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_frames_whatever_make_a_session_hold_more_than_its_budget_or_keep_it(
        role in prop_oneof![Just(Role::Server), Just(Role::Agent)],
        protocol in prop_oneof![Just(Protocol::V1), Just(Protocol::Extended)],
        steps in prop::collection::vec(any_step(), 0..150),
    ) {
        // Room for five streams, and growth for little.
        let mut config = SessionConfig::new(role, protocol, Arc::new(Budget::new(7 * 17_000)));
        (config.initial_window, config.streams_max, config.v1_stream_max) = (1000, 6, 5000);
        let mut now = Instant::now();
        let mut end = End::new(config, now);
        let _ = end.session.handle_frame(hello(), now);
        let mut ended = None;
        for step in steps {
            apply(&mut end, &step, &mut now);
            end.events.clear();
            let n_streams = end.session.n_streams();
            prop_assert_eq!(end.budget.used(), n_streams * end.session.stream_cost() + end.session.growth());
            prop_assert!(end.budget.used() <= end.budget.max());
            for (_, stream) in end.session.streams.iter() {
                prop_assert!(stream.window.held() <= 1000 + stream.window.reserved());
                prop_assert!(stream.unread.len() <= stream.window.held());
                prop_assert!(stream.unsent.len() + stream.window.reserved() <= SEND_QUEUE_MIN + stream.growth());
            }
            prop_assert!(end.session.grants_due.len() + end.session.schedule.len() <= 2 * n_streams);
            prop_assert!(end.session.control.len() <= CONTROL_MAX + 1);
            prop_assert!(ended.is_none() || ended.as_ref() == end.session.ended(), "it ends once");
            ended = end.session.ended().cloned();
        }
        let ids: Vec<_> = end.session.streams.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| end.session.detach(id));
        while end.session.poll_frame(now).is_some() {}
        // Only a version 1 peer that never answers keeps a stream, until the session ends.
        if protocol == Protocol::V1 {
            end.session.end(SessionError::PeerClosed);
        }
        prop_assert_eq!((end.session.n_streams(), end.budget.used()), (0, 0));
    }
}

fn apply(end: &mut End, step: &Step, now: &mut Instant) {
    let session = &mut end.session;
    match step {
        Step::Hear(frame) => {
            let _ = session.handle_frame(frame.clone(), *now);
        }
        Step::Write(id, n) => {
            let _ = session.write(StreamId(*id), &vec![1; *n], *now);
        }
        Step::Read(id, n) => {
            let _ = session.read(StreamId(*id), *n, *now);
        }
        Step::Finish(id) => session.finish(StreamId(*id), *now),
        Step::Accept(id) => session.accept(StreamId(*id), *now),
        Step::Reset(id) => session.reset(StreamId(*id), Reason::Broken, "why"),
        Step::Detach(id) => session.detach(StreamId(*id)),
        Step::Open(class) => {
            let _ = session.open(Open { class: *class, ..Open::default() }, *now);
        }
        Step::GoAway => session.go_away(Reason::Draining, Duration::ZERO),
        Step::Poll(n) => (0..*n).for_each(|_| {
            session.poll_frame(*now);
        }),
        Step::Pass(ms) => {
            *now += Duration::from_millis(*ms);
            if session.handle_timeout(*now).is_ok() {
                assert!(session.deadline() > *now, "a timeout that is due again at once");
            }
        }
    }
    end.note_events();
}

fn any_step() -> impl Strategy<Value = Step> {
    let id = || 1u32..8;
    let stream = || id().prop_map(StreamId);
    // Frames that a session goes on after, so that the walk gets somewhere.
    let usual = prop_oneof![
        stream().prop_map(open),
        stream().prop_map(|stream| Frame::Connect { stream, target: String::new() }),
        stream().prop_map(|stream| Frame::Connected { stream }),
        (stream(), 0usize..1200).prop_map(|(stream, n)| data(stream, n)),
        (stream(), 0u32..30_000).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
        (stream(), 0u32..1000).prop_map(|(stream, bytes)| Frame::Return { stream, bytes }),
        stream().prop_map(|stream| Frame::HalfClose { stream }),
        stream().prop_map(|stream| Frame::Close { stream }),
        stream().prop_map(reset),
        stream().prop_map(|stream| Frame::Reset { stream, reason: Reason::Done, text: String::new() }),
    ];
    prop_oneof![
        20 => usual.prop_map(Step::Hear),
        1 => any_frame().prop_map(Step::Hear),
        8 => (id(), 0usize..40_000).prop_map(|(id, n)| Step::Write(id, n)),
        8 => (id(), 0usize..3000).prop_map(|(id, n)| Step::Read(id, n)),
        2 => id().prop_map(Step::Finish),
        3 => id().prop_map(Step::Accept),
        1 => id().prop_map(Step::Reset),
        3 => id().prop_map(Step::Detach),
        6 => prop::sample::select(&Class::ALL[..]).prop_map(Step::Open),
        1 => Just(Step::GoAway),
        6 => (0usize..8).prop_map(Step::Poll),
        3 => (0u64..3000).prop_map(Step::Pass),
    ]
}
