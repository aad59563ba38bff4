//! Bytes, windows and the budget between two honest ends.

use super::*;

#[test]
fn data_arrives_whole_and_in_order_in_both_directions_at_once() {
    let mut pair = Pair::new();
    pair.latency = Duration::from_millis(7);
    let id = pair.open(Class::Small);
    pair.carry(Role::Server, id, &pattern(MIB + 13));
    pair.carry(Role::Agent, id, &pattern(3 * MIB + 5));
    assert_eq!(pair.server.session.stats().bytes_received, 3 * MIB as u64 + 5);
    assert_eq!(pair.server.session.stats().bytes_sent, MIB as u64 + 13);
}

#[test]
fn a_request_and_its_answer_take_one_round_trip() {
    let mut pair = Pair::new();
    pair.drive();
    pair.latency = Duration::from_millis(50);
    let (began, id) = (pair.now, pair.server.session.open(Open::default(), pair.now).unwrap());
    pair.server.write_all(id, b"GET", pair.now);
    let at = pair.step().expect("the request is on its way");
    pair.now = at;
    pair.step();
    assert_eq!(pair.agent.read_all(id, at).0, b"GET");
    pair.agent.write_all(id, b"200", at);
    pair.drive();
    assert_eq!(pair.server.read_all(id, pair.now).0, b"200");
    assert_eq!(pair.now - began, Duration::from_millis(100));
}

#[test]
fn a_stream_opened_before_the_hello_speaks_as_soon_as_it_comes() {
    let mut pair = Pair::new();
    let id = pair.server.session.open(Open::default(), pair.now).unwrap();
    assert_eq!(pair.server.write(id, b"early", pair.now), 0, "no window is known yet");
    pair.drive();
    assert!(pair.server.events.contains(&Event::Writable(id)));
    pair.server.write_all(id, b"early", pair.now);
    pair.drive();
    assert_eq!(pair.agent.read_all(id, pair.now).0, b"early");
}

#[test]
fn a_stalled_reader_costs_its_window_and_others_go_on() {
    let mut pair = Pair::new();
    let (stalled, other) = (pair.open(Class::Small), pair.open(Class::Small));
    let written = pair.agent.write(stalled, &pattern(MIB), pair.now);
    pair.drive();
    assert_eq!(written, 32 * 1024, "the initial window");
    assert_eq!(pair.agent.write(stalled, b"more", pair.now), 0);
    pair.carry(Role::Agent, other, &pattern(8 * MIB));
    assert_eq!(pair.agent.write(stalled, b"more", pair.now), 0, "still nobody reads");
    assert_eq!(pair.server.read_all(stalled, pair.now).0, pattern(written));
    pair.drive();
    pair.agent.write_all(stalled, b"more", pair.now);
}

#[test]
fn stats_tell_classes_what_waits_and_each_stall_once() {
    let mut pair = Pair::new();
    let (watch, _bulk) = (pair.open(Class::Watch), pair.open(Class::Bulk));
    assert_eq!(pair.agent.session.stats().credit_stalls, 0);
    pair.agent.write(watch, &pattern(MIB), pair.now);
    pair.agent.write(watch, b"more", pair.now);
    pair.drive();
    let stats = pair.agent.session.stats();
    assert_eq!((stats.credit_stalls, stats.streams, stats.buffered), (1, [0, 1, 0, 1], 0));
    assert_eq!(pair.server.session.stats().buffered, 32 * 1024, "came and was not read");
    assert_eq!(pair.server.read_all(watch, pair.now).0.len(), 32 * 1024);
    pair.drive();
    pair.agent.write(watch, &pattern(MIB), pair.now);
    assert_eq!(pair.agent.session.stats().credit_stalls, 2);
}

#[test]
fn a_note_is_told_once_and_the_latest_counts() {
    let mut pair = Pair::new();
    pair.drive();
    for note in ["a:1:x", "a:2:y", "a:2:y"] {
        pair.agent.session.tell(note.to_owned());
        pair.drive();
    }
    assert_eq!(pair.server.session.peer().map(|peer| peer.note.as_str()), Some("a:2:y"));
    assert_eq!(pair.agent.said.iter().filter(|frame| matches!(frame, Frame::Hello(_))).count(), 3, "the first has none");
}

#[test]
fn a_window_grows_until_distance_does_not_slow_the_stream() {
    let mut pair = Pair::new();
    pair.latency = Duration::from_millis(50);
    let id = pair.open(Class::Bulk);
    pair.pass(Duration::from_secs(1));
    let began = pair.now;
    pair.carry(Role::Agent, id, &pattern(16 * MIB));
    let round_trips = (pair.now - began).as_millis() / 100;
    assert!(round_trips < 12, "{round_trips} round trips; 512 without growth");
}

#[test]
fn idle_credit_goes_back_to_the_budget() {
    let mut pair = Pair::new();
    pair.latency = Duration::from_millis(20);
    let id = pair.open(Class::Bulk);
    let fixed = pair.server.budget.used();
    pair.carry(Role::Agent, id, &pattern(4 * MIB));
    pair.drive();
    assert!(pair.server.budget.used() > fixed + MIB, "the window has grown");
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.server.budget.used(), fixed);
    pair.carry(Role::Agent, id, &pattern(4 * MIB));
}

#[test]
fn credit_that_comes_after_the_last_byte_goes_back_too() {
    let mut pair = Pair::new();
    pair.latency = Duration::from_millis(20);
    let id = pair.open(Class::Small);
    let fixed = pair.server.budget.used();
    // Each fills its window to the last byte, and each makes the window grow.
    pair.carry(Role::Agent, id, &pattern(32 * 1024));
    pair.carry(Role::Agent, id, &pattern(64 * 1024));
    pair.drive();
    assert!(pair.server.budget.used() > fixed);
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.server.budget.used(), fixed);
}

#[test]
fn a_slow_reader_gives_the_budget_back_as_it_reads() {
    let mut pair = Pair::new();
    pair.latency = Duration::from_millis(20);
    let id = pair.open(Class::Bulk);
    let fixed = pair.server.budget.used();
    pair.carry(Role::Agent, id, &pattern(4 * MIB));
    pair.drive();
    let written = pair.agent.write(id, &pattern(SEND_QUEUE_MIN), pair.now);
    for _ in 0..20 {
        pair.drive();
        pair.agent.write(id, &pattern(SEND_QUEUE_MIN), pair.now);
    }
    // The agent falls silent and returns its credit while much of what it sent is unread.
    pair.pass(Duration::from_secs(5));
    assert!(pair.server.budget.used() > fixed && written > 0);
    let mut n_read = 0;
    while let Read::Bytes(bytes) = pair.server.session.read(id, 8000, pair.now).unwrap() {
        n_read += bytes.len();
        pair.pass(Duration::from_secs(1));
    }
    assert!(n_read > 32 * 1024, "{n_read}");
    assert_eq!(pair.server.budget.used(), fixed);
}

#[test]
fn at_the_peers_limit_of_streams_an_open_fails_here() {
    let mut pair = Pair::with(|config| config.streams_max = if config.role == Role::Agent { 2 } else { 1024 });
    pair.open(Class::Small);
    let second = pair.open(Class::Small);
    assert_eq!(pair.server.session.open(Open::default(), pair.now), Err(OpenError::Streams { max: 2 }));
    pair.server.session.detach(second);
    assert!(pair.server.session.open(Open::default(), pair.now).is_ok());
}

#[test]
fn streams_over_the_limit_that_were_opened_before_the_hello_are_reset_and_the_others_live() {
    let mut pair = Pair::with(|config| config.streams_max = if config.role == Role::Agent { 2 } else { 1024 });
    let ids: Vec<_> = (0..3).map(|_| pair.server.session.open(Open::default(), pair.now).unwrap()).collect();
    pair.drive();
    let (_, end) = pair.server.read_all(ids[2], pair.now);
    assert_eq!(end, Err(reset_by_peer(Reason::Limit, "too many streams")));
    assert!(Reason::Limit.nothing_was_done());
    pair.carry(Role::Server, ids[0], b"alive");
}

#[test]
fn without_memory_new_streams_are_refused_at_both_ends_and_running_ones_go_on() {
    // Room for two streams of 48 KiB at the agent, for three at the server.
    let mut pair = Pair::with(|config| {
        let n_streams = if config.role == Role::Agent { 2 } else { 3 };
        config.budget = Arc::new(Budget::new(n_streams * 64 * 1024));
    });
    let ids: Vec<_> = (0..3).map(|_| pair.server.session.open(Open::default(), pair.now).unwrap()).collect();
    assert_eq!(pair.server.session.open(Open::default(), pair.now), Err(OpenError::Budget));
    pair.drive();
    let (_, end) = pair.server.read_all(ids[2], pair.now);
    assert_eq!(end, Err(reset_by_peer(Reason::Limit, "no memory for another stream")));
    pair.carry(Role::Server, ids[0], &pattern(MIB));
    pair.carry(Role::Agent, ids[1], &pattern(MIB));
    for id in ids {
        pair.server.session.detach(id);
        pair.agent.session.detach(id);
    }
    pair.drive();
    assert_eq!((pair.server.budget.used(), pair.agent.budget.used()), (0, 0));
}

#[test]
fn a_session_that_ends_gives_everything_back_whatever_was_open() {
    let mut pair = Pair::new();
    let id = pair.open(Class::Small);
    pair.carry(Role::Agent, id, &pattern(MIB));
    pair.agent.write(id, &pattern(MIB), pair.now);
    let budgets = [pair.server.budget.clone(), pair.agent.budget.clone()];
    assert!(budgets.iter().all(|budget| budget.used() > 0));
    drop(pair);
    assert!(budgets.iter().all(|budget| budget.used() == 0));
}

#[test]
fn opens_that_come_and_go_while_the_socket_takes_nothing_do_not_fill_memory() {
    let mut pair = Pair::new();
    pair.drive();
    let mut come_and_go = |_| pair.server.session.open(Open::default(), pair.now).map(|id| pair.server.session.detach(id));
    let opened = (0..100_000).map_while(|n| come_and_go(n).ok()).count();
    assert!(opened < CONTROL_MAX, "{opened}");
    pair.drive();
    assert_eq!(pair.server.session.ended(), None);
    pair.open(Class::Small);
}

#[test]
fn when_the_ids_are_spent_the_session_drains() {
    let mut pair = Pair::new();
    pair.drive();
    pair.server.session.streams.last = u32::MAX - 1;
    let last = pair.open(Class::Small);
    assert_eq!(pair.server.session.open(Open::default(), pair.now), Err(OpenError::Draining));
    assert!(matches!(pair.agent.events.last(), Some(Event::GoAway { .. })), "the agent shall dial another");
    pair.carry(Role::Agent, last, b"the last one runs");
}
