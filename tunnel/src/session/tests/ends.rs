//! How streams and sessions end, and who learns what.

use super::*;

/// A pair with one stream, open at both ends.
fn with_stream() -> (Pair, StreamId) {
    let mut pair = Pair::new();
    let id = pair.open(Class::Small);
    (pair, id)
}

#[test]
fn each_side_half_closes_on_its_own() {
    for first in [Role::Server, Role::Agent] {
        let (mut pair, id) = with_stream();
        let now = pair.now;
        pair.end(first).write_all(id, b"all of it", now);
        pair.end(first).session.finish(id, now);
        pair.drive();
        assert_eq!(pair.end(other(first)).read_all(id, now), (b"all of it".to_vec(), Ok(Read::End)));
        assert_eq!(pair.end(first).session.write(id, b"x", now), Err(StreamError::Closed));
        pair.carry(other(first), id, &pattern(MIB));
        pair.end(other(first)).session.finish(id, now);
        pair.drive();
        assert_eq!(pair.end(first).read_all(id, now).1, Ok(Read::End));
        pair.server.session.detach(id);
        pair.agent.session.detach(id);
        assert_eq!((pair.server.session.n_streams(), pair.agent.session.n_streams()), (0, 0));
    }
}

#[test]
fn a_handle_dropped_after_its_finish_delivers_everything_and_then_stops_the_peer() {
    let (mut pair, id) = with_stream();
    pair.server.write_all(id, &pattern(30_000), pair.now);
    pair.server.session.finish(id, pair.now);
    pair.server.session.detach(id);
    pair.drive();
    assert_eq!(pair.agent.read_all(id, pair.now), (pattern(30_000), Ok(Read::End)));
    assert_eq!(pair.agent.session.cut(id), Some(&reset_by_peer(Reason::Done, "")));
    assert_eq!(pair.server.session.n_streams(), 0);
}

#[test]
fn who_reads_no_more_grants_no_more() {
    let (mut pair, id) = with_stream();
    pair.server.write_all(id, &pattern(30_000), pair.now);
    pair.drive();
    assert_eq!(pair.agent.read_all(id, pair.now).0.len(), 30_000);
    pair.agent.write_all(id, b"enough", pair.now);
    pair.agent.session.finish(id, pair.now);
    pair.agent.session.detach(id);
    pair.drive();
    assert!(!pair.agent.said.iter().any(|frame| matches!(frame, Frame::Credit { .. })));
    assert_eq!(pair.server.read_all(id, pair.now), (b"enough".to_vec(), Ok(Read::End)));
}

#[test]
fn an_answer_that_ends_before_its_request_is_whole_and_stops_the_request() {
    let (mut pair, id) = with_stream();
    pair.server.write_all(id, b"half a req", pair.now);
    pair.drive();
    pair.agent.write_all(id, b"413", pair.now);
    pair.agent.session.finish(id, pair.now);
    pair.agent.session.detach(id);
    pair.drive();
    assert_eq!(pair.server.session.cut(id), Some(&reset_by_peer(Reason::Done, "")));
    // What is written goes nowhere: an error would keep the answer from being read.
    pair.server.write_all(id, &pattern(MIB), pair.now);
    assert_eq!(pair.server.session.poll_frame(pair.now), None);
    assert_eq!(pair.server.read_all(id, pair.now), (b"413".to_vec(), Ok(Read::End)));
}

#[test]
fn a_handle_dropped_in_the_middle_breaks_the_body_visibly() {
    for dropper in [Role::Server, Role::Agent] {
        let (mut pair, id) = with_stream();
        let now = pair.now;
        pair.end(dropper).write_all(id, b"half of", now);
        pair.drive();
        pair.end(dropper).session.detach(id);
        pair.drive();
        let error = reset_by_peer(dropped_by(dropper), "");
        let (read, end) = pair.end(other(dropper)).read_all(id, now);
        assert_eq!((read, end), (vec![], Err(error.clone())));
        assert_eq!(pair.end(other(dropper)).session.write(id, b"x", now), Err(error));
        pair.end(other(dropper)).session.detach(id);
        pair.drive();
        assert_eq!(pair.end(other(dropper)).resets_said(), [], "a reset is not answered");
    }
}

#[test]
fn a_reset_carries_its_reason_even_one_from_the_future() {
    let (mut pair, id) = with_stream();
    pair.agent.session.reset(id, Reason::Other(999), "the moon");
    pair.drive();
    let error = reset_by_peer(Reason::Other(999), "the moon");
    assert_eq!(pair.server.read_all(id, pair.now).1, Err(error.clone()));
    assert_eq!(pair.server.session.write(id, b"x", pair.now), Err(error));
    assert_eq!(pair.agent.read_all(id, pair.now).1, Err(StreamError::Closed));
}

#[test]
fn what_had_arrived_whole_stays_readable_after_a_reset() {
    let (mut pair, id) = with_stream();
    pair.agent.write_all(id, b"whole", pair.now);
    pair.agent.session.finish(id, pair.now);
    pair.drive();
    pair.agent.session.reset(id, Reason::Broken, "");
    pair.drive();
    assert_eq!(pair.server.read_all(id, pair.now), (b"whole".to_vec(), Ok(Read::End)));
}

#[test]
fn data_that_crosses_a_reset_is_dropped_and_counted() {
    let (mut pair, id) = with_stream();
    pair.latency = Duration::from_millis(10);
    pair.agent.write_all(id, b"on its way", pair.now);
    pair.step();
    pair.server.session.detach(id);
    pair.drive();
    assert_eq!(pair.server.session.stats().frames_late, 1);
    assert_eq!(pair.server.session.ended(), None);
}

#[test]
fn a_draining_session_takes_nothing_new_and_finishes_what_runs() {
    let (mut pair, id) = with_stream();
    pair.server.session.go_away(Reason::Draining, Duration::from_secs(30));
    pair.drive();
    let event = Event::GoAway { reason: Reason::Draining, grace: Duration::from_secs(30) };
    assert!(pair.agent.events.contains(&event));
    assert_eq!(pair.server.session.open(Open::default(), pair.now), Err(OpenError::Draining));
    pair.carry(Role::Agent, id, &pattern(MIB));
    assert!(!pair.server.session.is_drained());
    pair.agent.session.finish(id, pair.now);
    pair.server.session.finish(id, pair.now);
    pair.drive();
    pair.server.session.detach(id);
    assert!(pair.server.session.is_drained());
}

#[test]
fn an_open_that_crosses_the_agents_go_away_is_served() {
    let mut pair = Pair::new();
    pair.drive();
    pair.latency = Duration::from_millis(10);
    let id = pair.server.session.open(Open::default(), pair.now).unwrap();
    pair.step();
    pair.agent.session.go_away(Reason::Draining, Duration::ZERO);
    assert!(!pair.agent.session.is_drained(), "only the server knows that no open is on its way");
    pair.drive();
    assert_eq!(pair.server.session.open(Open::default(), pair.now), Err(OpenError::Draining));
    pair.carry(Role::Agent, id, b"served");
    assert!(!pair.server.session.is_drained());
    pair.server.session.detach(id);
    assert!(pair.server.session.is_drained());
}

#[test]
fn silence_ends_the_session_and_every_stream() {
    let (mut pair, id) = with_stream();
    pair.drive();
    let began = pair.now;
    while pair.server.session.ended().is_none() {
        pair.now = pair.server.session.deadline();
        pair.server.tick(pair.now);
        pair.server.send(pair.now, pair.now, &mut VecDeque::new());
    }
    let silent = SessionError::PeerSilent { silence: Duration::from_secs(45) };
    assert_eq!(pair.server.session.ended(), Some(&silent));
    assert_eq!(pair.now - began, Duration::from_secs(45));
    assert_eq!(pair.server.read_all(id, pair.now).1, Err(StreamError::SessionEnded(silent.clone())));
    assert_eq!(pair.server.session.write(id, b"x", pair.now), Err(StreamError::SessionEnded(silent.clone())));
    assert_eq!(pair.server.session.open(Open::default(), pair.now), Err(OpenError::Ended));
    assert_eq!(pair.server.session.handle_frame(Frame::Ping { token: None }, pair.now), Err(silent));
}

#[test]
fn healthy_peers_are_never_silent_and_know_their_distance() {
    let mut pair = Pair::new();
    pair.latency = Duration::from_millis(40);
    pair.pass(Duration::from_secs(3600));
    for end in [&pair.server, &pair.agent] {
        assert_eq!(end.session.ended(), None);
        assert_eq!(end.session.rtt(), Some(Duration::from_millis(80)));
    }
}

#[test]
fn a_peer_without_a_hello_is_not_pinged_and_falls_silent() {
    let mut pair = Pair::new();
    let deadline = pair.server.session.deadline();
    assert_eq!(deadline, pair.now + Duration::from_secs(45), "nothing is due before");
    pair.server.tick(deadline);
    assert!(matches!(pair.server.session.ended(), Some(SessionError::PeerSilent { .. })));
}

#[test]
fn a_byte_that_is_no_frame_yet_breaks_the_silence() {
    let (mut pair, _) = with_stream();
    pair.server.session.heard(pair.now + Duration::from_secs(44));
    assert_eq!(pair.server.session.handle_timeout(pair.now + Duration::from_secs(88)), Ok(()));
    assert!(pair.server.session.handle_timeout(pair.now + Duration::from_secs(89)).is_err());
}

#[test]
fn the_end_of_a_session_spares_what_had_arrived_whole() {
    let mut pair = Pair::new();
    let (whole, broken) = (pair.open(Class::Small), pair.open(Class::Small));
    pair.agent.write_all(whole, b"whole", pair.now);
    pair.agent.session.finish(whole, pair.now);
    pair.agent.write_all(broken, b"half", pair.now);
    pair.drive();
    pair.server.session.end(SessionError::PeerClosed);
    assert_eq!(pair.server.read_all(whole, pair.now), (b"whole".to_vec(), Ok(Read::End)));
    assert_eq!(pair.server.read_all(broken, pair.now), (vec![], Err(StreamError::SessionEnded(SessionError::PeerClosed))));
    assert_eq!(pair.server.session.end(SessionError::Closed(Reason::Done)), SessionError::PeerClosed, "it ends once");
}

#[test]
fn who_waits_on_a_stream_is_woken_by_its_end() {
    let (mut pair, id) = with_stream();
    pair.agent.session.reset(id, Reason::Broken, "");
    pair.server.events.clear();
    pair.drive();
    assert_eq!(pair.server.events, [Event::Readable(id), Event::Writable(id)]);
}
