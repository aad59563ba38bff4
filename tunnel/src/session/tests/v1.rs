//! Version 1, each role against the frames of a recorded conversation, and against a peer that breaks its rules.

use super::*;

const TARGET: &str = "127.0.0.1:16443";
const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: 127.0.0.1:16443\r\nConnection: close\r\n\r\n";
const ONE: StreamId = StreamId(1);
const TWO: StreamId = StreamId(2);

/// One end that speaks version 1 with a peer that the test plays.
struct Scripted {
    end: End,
    now: Instant,
}

impl Scripted {
    fn new(role: Role) -> Self {
        let now = Instant::now();
        Self { end: End::new(SessionConfig::new(role, Protocol::V1, Arc::new(Budget::new(64 * MIB))), now), now }
    }

    /// A server whose first stream is connected.
    fn connected_server() -> Self {
        let mut server = Self::new(Role::Server);
        server.open();
        server.hears(Frame::Connected { stream: ONE });
        server.says(&[Frame::Connect { stream: ONE, target: TARGET.into() }]);
        server
    }

    fn open(&mut self) -> StreamId {
        let open = Open { target: TARGET.into(), ..Open::default() };
        self.end.session.open(open, self.now).unwrap()
    }

    fn hears(&mut self, frame: Frame) {
        self.end.session.handle_frame(frame, self.now).expect("the session goes on");
        self.end.note_events();
    }

    /// These frames leave, and no other.
    fn says(&mut self, frames: &[Frame]) {
        let said: Vec<_> = std::iter::from_fn(|| self.end.session.poll_frame(self.now)).collect();
        assert_eq!(said, frames);
    }

    fn hears_data(&mut self, stream: StreamId, payload: &[u8]) {
        self.hears(data(stream, payload));
    }

    fn reads(&mut self, id: StreamId) -> (Vec<u8>, Result<Read, StreamError>) {
        self.end.read_all(id, self.now)
    }

    fn n_late(&self) -> u64 {
        self.end.session.stats().frames_late
    }
}

fn data(stream: StreamId, payload: &[u8]) -> Frame {
    Frame::Data { stream, payload: Bytes::copy_from_slice(payload) }
}

#[test]
fn as_a_server_we_speak_as_the_recorded_one_does() {
    let mut server = Scripted::new(Role::Server);
    assert!(server.end.session.is_established(), "there is no hello to wait for");
    assert_eq!(server.open(), ONE);
    server.end.write_all(ONE, REQUEST, server.now);
    server.says(&[Frame::Connect { stream: ONE, target: TARGET.into() }]);
    server.hears(Frame::Connected { stream: ONE });
    server.says(&[data(ONE, REQUEST)]);
    server.hears_data(ONE, &pattern(1186));
    server.hears_data(ONE, &pattern(991));
    assert_eq!(server.reads(ONE), ([pattern(1186), pattern(991)].concat(), Ok(Read::Blocked)));
    server.end.session.detach(ONE);
    server.says(&[Frame::Close { stream: ONE }]);
    assert_eq!(server.end.session.n_streams(), 0);
    server.hears(Frame::Close { stream: ONE });
    server.says(&[]);
}

#[test]
fn as_an_agent_we_speak_as_the_recorded_one_does() {
    let mut agent = Scripted::new(Role::Agent);
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    let opened = Open { target: TARGET.into(), ..Open::default() };
    assert_eq!(agent.end.events, [Event::Opened(ONE, opened)]);
    agent.end.session.accept(ONE, agent.now);
    agent.says(&[Frame::Connected { stream: ONE }]);
    agent.hears_data(ONE, REQUEST);
    assert_eq!(agent.reads(ONE), (REQUEST.to_vec(), Ok(Read::Blocked)));
    agent.end.write_all(ONE, &pattern(1186), agent.now);
    agent.says(&[data(ONE, &pattern(1186))]);
    // The recorded one waits for the server's Close before it says its own, which may then cross.
    agent.end.session.finish(ONE, agent.now);
    agent.says(&[Frame::Close { stream: ONE }]);
    agent.hears(Frame::Close { stream: ONE });
    assert_eq!(agent.reads(ONE).1, Ok(Read::End));
    agent.end.session.detach(ONE);
    agent.says(&[]);
    assert_eq!((agent.end.session.n_streams(), agent.end.budget.used()), (0, 0));
}

#[test]
fn pings_have_no_token_and_measure_the_distance() {
    let mut server = Scripted::new(Role::Server);
    assert_eq!(server.end.session.handle_timeout(server.now), Ok(()));
    server.says(&[Frame::Ping { token: None }]);
    server.hears(Frame::Ping { token: None });
    server.says(&[Frame::Pong { token: None }]);
    server.now += Duration::from_millis(30);
    server.hears(Frame::Pong { token: None });
    assert_eq!(server.end.session.rtt(), Some(Duration::from_millis(30)));
    assert_eq!(server.end.session.deadline(), server.now + Duration::from_millis(14_970));
}

#[test]
fn an_agent_that_goes_on_after_close_harms_nobody() {
    let mut server = Scripted::connected_server();
    server.open();
    server.hears(Frame::Connected { stream: TWO });
    server.hears_data(ONE, b"8\r\n{\"n\":0}\n\r\n");
    server.end.session.detach(ONE);
    server.says(&[Frame::Connect { stream: TWO, target: TARGET.into() }, Frame::Close { stream: ONE }]);
    for _ in 0..20 {
        server.hears_data(ONE, b"8\r\n{\"n\":3}\n\r\n");
    }
    server.hears_data(StreamId(77), b"never opened");
    assert_eq!(server.n_late(), 21);
    server.says(&[]);
    server.hears_data(TWO, b"served");
    assert_eq!(server.reads(TWO).0, b"served");
}

#[test]
fn nothing_is_sent_or_taken_before_connected() {
    let mut server = Scripted::new(Role::Server);
    server.open();
    server.end.write_all(ONE, REQUEST, server.now);
    server.end.session.finish(ONE, server.now);
    server.hears_data(ONE, b"too early");
    server.says(&[Frame::Connect { stream: ONE, target: TARGET.into() }]);
    assert_eq!((server.reads(ONE), server.n_late()), ((vec![], Ok(Read::Blocked)), 1));

    let mut agent = Scripted::new(Role::Agent);
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    agent.hears_data(ONE, b"too early");
    agent.end.session.accept(ONE, agent.now);
    assert_eq!((agent.reads(ONE), agent.n_late()), ((vec![], Ok(Read::Blocked)), 1));
}

#[test]
fn connected_twice_ends_that_stream_alone() {
    let mut server = Scripted::connected_server();
    server.open();
    server.hears(Frame::Connected { stream: ONE });
    assert_eq!(server.reads(ONE).1, Err(reset_by_peer(Reason::Protocol, "connected twice")));
    server.says(&[Frame::Connect { stream: TWO, target: TARGET.into() }, Frame::Close { stream: ONE }]);
    server.hears(Frame::Connected { stream: ONE });
    server.says(&[]);
    assert_eq!(server.n_late(), 1, "what has ended does not end again");
    server.hears(Frame::Connected { stream: TWO });
    server.hears_data(TWO, b"served");
    assert_eq!(server.reads(TWO).0, b"served");
}

#[test]
fn an_error_before_connected_is_a_refusal_and_after_it_a_break() {
    let mut server = Scripted::new(Role::Server);
    server.open();
    server.hears(Frame::Error { stream: ONE, text: "connection refused".into() });
    assert_eq!(server.reads(ONE).1, Err(reset_by_peer(Reason::Refused, "connection refused")));

    let mut server = Scripted::connected_server();
    server.hears_data(ONE, b"half");
    server.hears(Frame::Error { stream: ONE, text: "broken pipe".into() });
    assert_eq!(server.reads(ONE), (vec![], Err(reset_by_peer(Reason::Broken, "broken pipe"))));
    server.end.session.detach(ONE);
    assert_eq!(server.end.budget.used(), 0);
}

#[test]
fn what_came_before_close_is_read_before_the_end() {
    let mut server = Scripted::connected_server();
    server.hears_data(ONE, b"all of it");
    server.hears(Frame::Close { stream: ONE });
    assert_eq!(server.reads(ONE), (b"all of it".to_vec(), Ok(Read::End)));
    assert_eq!(server.end.session.write(ONE, b"x", server.now), Err(reset_by_peer(Reason::Done, "")));
    server.end.session.detach(ONE);
    server.says(&[]);
}

#[test]
fn a_dropped_handle_after_finish_sends_everything_and_then_close() {
    let mut agent = Scripted::new(Role::Agent);
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    agent.end.session.accept(ONE, agent.now);
    agent.end.write_all(ONE, b"answer", agent.now);
    agent.end.session.finish(ONE, agent.now);
    agent.end.session.detach(ONE);
    agent.says(&[Frame::Connected { stream: ONE }, data(ONE, b"answer"), Frame::Close { stream: ONE }]);
    assert_eq!((agent.end.session.n_streams(), agent.end.budget.used()), (0, 0));
}

#[test]
fn who_has_said_all_closes_both_ways_and_holds_nothing() {
    let mut server = Scripted::connected_server();
    server.hears_data(ONE, b"what had come");
    server.end.write_all(ONE, b"the last word", server.now);
    server.end.session.finish(ONE, server.now);
    server.says(&[data(ONE, b"the last word"), Frame::Close { stream: ONE }]);
    server.hears_data(ONE, b"too late");
    assert_eq!((server.reads(ONE), server.n_late()), ((b"what had come".to_vec(), Ok(Read::End)), 1));
    server.end.session.detach(ONE);
    server.hears(Frame::Close { stream: ONE });
    server.says(&[]);
    assert_eq!((server.end.session.n_streams(), server.end.budget.used()), (0, 0));
}

#[test]
fn an_agent_that_cannot_connect_says_error() {
    let mut agent = Scripted::new(Role::Agent);
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    agent.end.session.reset(ONE, Reason::Refused, "connection refused");
    agent.end.session.detach(ONE);
    agent.says(&[Frame::Error { stream: ONE, text: "connection refused".into() }]);
}

#[test]
fn a_full_agent_refuses_a_stream_and_serves_the_others() {
    let mut agent = Scripted::new(Role::Agent);
    agent.end.session.config.streams_max = 1;
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    agent.hears(Frame::Connect { stream: TWO, target: TARGET.into() });
    agent.says(&[Frame::Error { stream: TWO, text: "no room for another stream".into() }]);
    agent.end.session.accept(ONE, agent.now);
    agent.hears_data(ONE, b"served");
    assert_eq!(agent.reads(ONE).0, b"served");
}

#[test]
fn a_reader_too_slow_for_version_1_loses_its_stream_visibly_and_nobody_else_does() {
    let mut server = Scripted::connected_server();
    server.open();
    server.hears(Frame::Connected { stream: TWO });
    server.says(&[Frame::Connect { stream: TWO, target: TARGET.into() }]);
    let (max, mut held) = (server.end.session.config.v1_stream_max, 0);
    while held + 32 * 1024 <= max {
        server.hears_data(ONE, &pattern(32 * 1024));
        held += 32 * 1024;
    }
    assert_eq!(held, max, "the whole bound may be used");
    server.says(&[]);
    server.hears_data(ONE, b"!");
    server.says(&[Frame::Close { stream: ONE }]);
    let overrun = reset_by_peer(Reason::Overrun, "the reader is too slow for a version 1 peer");
    assert_eq!(server.reads(ONE), (vec![], Err(overrun)));
    server.end.session.detach(ONE);
    server.hears_data(TWO, b"served");
    assert_eq!(server.reads(TWO).0, b"served");
    server.end.session.detach(TWO);
    assert_eq!(server.end.budget.used(), 0);
}

#[test]
fn a_version_1_stream_holds_no_more_than_the_budget_has() {
    let mut server = Scripted::connected_server();
    while server.end.budget.reserve_growth(64 * 1024) {}
    server.hears_data(ONE, &pattern(32 * 1024));
    assert_eq!(server.reads(ONE).0.len(), 32 * 1024, "the stream's own part");
    server.hears_data(ONE, &pattern(32 * 1024));
    server.hears_data(ONE, &pattern(64 * 1024));
    assert!(matches!(server.reads(ONE).1, Err(StreamError::Reset { reason: Reason::Overrun, .. })));
}

#[test]
fn a_fast_reader_of_version_1_reads_any_amount_and_says_nothing_of_credit() {
    let mut server = Scripted::connected_server();
    let held = server.end.budget.used();
    for _ in 0..1000 {
        server.hears_data(ONE, &pattern(32 * 1024));
        assert_eq!(server.reads(ONE).0.len(), 32 * 1024);
    }
    server.says(&[]);
    assert_eq!(server.end.budget.used(), held);
}

#[test]
fn frames_that_version_1_does_not_have_end_the_session() {
    let hello = Frame::Hello(Scripted::new(Role::Agent).end.session.hello());
    let frames = [
        hello,
        Frame::Open { stream: ONE, open: Open::default() },
        Frame::Credit { stream: ONE, bytes: 1 },
        Frame::Return { stream: ONE, bytes: 1 },
        Frame::HalfClose { stream: ONE },
        Frame::Reset { stream: ONE, reason: Reason::Done, text: String::new() },
        Frame::GoAway { reason: Reason::Done, grace: Duration::ZERO },
        Frame::Connect { stream: TWO, target: TARGET.into() },
    ];
    for frame in frames {
        let mut server = Scripted::connected_server();
        let not_allowed = SessionError::Protocol(ProtocolError::NotAllowed { kind: frame.kind() });
        assert_eq!(server.end.session.handle_frame(frame, server.now), Err(not_allowed.clone()));
        assert_eq!(server.reads(ONE).1, Err(StreamError::SessionEnded(not_allowed)));
    }
}

#[test]
fn a_version_1_session_drains_without_a_word() {
    let mut agent = Scripted::new(Role::Agent);
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    agent.end.session.accept(ONE, agent.now);
    agent.end.session.go_away(Reason::Draining, Duration::from_secs(1));
    agent.hears(Frame::Connect { stream: TWO, target: TARGET.into() });
    let full = Frame::Error { stream: TWO, text: "no room for another stream".into() };
    agent.says(&[Frame::Connected { stream: ONE }, full]);
    agent.end.session.detach(ONE);
    agent.says(&[Frame::Close { stream: ONE }]);
    assert!(agent.end.session.is_drained());
}

#[test]
fn a_stream_that_is_finished_and_dropped_before_it_was_accepted_is_refused() {
    let mut agent = Scripted::new(Role::Agent);
    agent.hears(Frame::Connect { stream: ONE, target: TARGET.into() });
    agent.end.session.finish(ONE, agent.now);
    agent.end.session.detach(ONE);
    agent.says(&[Frame::Error { stream: ONE, text: String::new() }]);
    assert_eq!((agent.end.session.n_streams(), agent.end.budget.used()), (0, 0));
}
