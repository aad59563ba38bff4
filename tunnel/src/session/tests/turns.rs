//! Who speaks first.

use super::*;

/// The streams of the data frames that wait, in the order in which they leave.
fn order(pair: &mut Pair) -> Vec<StreamId> {
    let mut order = Vec::new();
    while let Some(frame) = pair.server.session.poll_frame(pair.now) {
        if let Frame::Data { stream, .. } = frame {
            order.push(stream);
        }
    }
    order
}

#[test]
fn interactive_goes_before_watch_before_small_before_bulk() {
    let mut pair = Pair::new();
    let ids = [Class::Bulk, Class::Small, Class::Watch, Class::Interactive].map(|class| pair.open(class));
    for id in ids {
        pair.server.write_all(id, &pattern(1000), pair.now);
    }
    assert_eq!(order(&mut pair), ids.into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn what_is_urgent_overtakes_what_waits() {
    let mut pair = Pair::with(|config| config.initial_window = MIB as u32);
    let (bulk, typed) = (pair.open(Class::Bulk), pair.open(Class::Interactive));
    pair.server.write_all(bulk, &pattern(128 * 1024), pair.now);
    assert!(matches!(pair.server.session.poll_frame(pair.now), Some(Frame::Data { stream, .. }) if stream == bulk));
    pair.server.write_all(typed, b"ls\n", pair.now);
    let next = order(&mut pair);
    assert_eq!(next, [typed, bulk, bulk, bulk]);
}

#[test]
fn equals_take_turns() {
    let mut pair = Pair::with(|config| config.initial_window = MIB as u32);
    let (one, two) = (pair.open(Class::Small), pair.open(Class::Small));
    for id in [one, two] {
        pair.server.write_all(id, &pattern(96 * 1024), pair.now);
    }
    assert_eq!(order(&mut pair), [one, two, one, two, one, two]);
}

#[test]
fn a_big_talker_is_bulk_whatever_it_was_opened_as_until_it_was_quiet() {
    let mut pair = Pair::with(|config| config.initial_window = 8 * MIB as u32);
    let (terminal, download) = (pair.open(Class::Small), pair.open(Class::Interactive));
    let talk = |pair: &mut Pair| {
        pair.server.write_all(download, &pattern(64 * 1024), pair.now);
        pair.server.write_all(terminal, b"x", pair.now);
        order(pair).first() == Some(&download)
    };
    assert_eq!([(); 6].map(|()| talk(&mut pair)), [true, true, true, true, true, false], "after 256 KiB");
    pair.now += schedule::BURST_PERIOD;
    assert!(talk(&mut pair));
}

#[test]
fn control_and_credit_go_before_data() {
    let mut pair = Pair::new();
    let (busy, read) = (pair.open(Class::Interactive), pair.open(Class::Bulk));
    pair.agent.write_all(read, &pattern(20_000), pair.now);
    pair.drive();
    pair.server.write_all(busy, b"data", pair.now);
    assert_eq!(pair.server.read_all(read, pair.now).0.len(), 20_000);
    pair.server.session.handle_frame(Frame::Ping { token: Some(5) }, pair.now).unwrap();
    let third = pair.server.session.open(Open::default(), pair.now).unwrap();
    let left: Vec<_> = std::iter::from_fn(|| pair.server.session.poll_frame(pair.now)).map(|frame| frame.kind()).collect();
    assert_eq!(left, [0x11, 0x07, 0x12, 0x03], "open of {third}, pong, credit, data");
}

#[test]
fn a_writer_that_waits_is_woken_when_there_is_room() {
    let mut pair = Pair::with(|config| config.initial_window = 8 * MIB as u32);
    let id = pair.open(Class::Small);
    let queued = pair.server.write(id, &pattern(MIB), pair.now);
    assert_eq!(queued, streams::SEND_QUEUE_MAX);
    assert_eq!(pair.server.write(id, b"x", pair.now), 0);
    pair.server.events.clear();
    assert!(pair.server.session.poll_frame(pair.now).is_some());
    pair.server.note_events();
    assert_eq!(pair.server.events, [Event::Writable(id)]);
    assert!(pair.server.write(id, &pattern(MIB), pair.now) > 0);
}

#[test]
fn without_room_to_grow_a_writer_still_has_its_least_queue() {
    let mut pair = Pair::with(|config| {
        config.initial_window = MIB as u32;
        config.budget = Arc::new(Budget::new(8 * MIB));
    });
    let (one, two) = (pair.open(Class::Small), pair.open(Class::Small));
    while pair.server.budget.reserve_growth(1024) {}
    assert_eq!(pair.server.write(one, &pattern(MIB), pair.now), SEND_QUEUE_MIN);
    assert_eq!(pair.server.write(two, &pattern(MIB), pair.now), SEND_QUEUE_MIN);
}
