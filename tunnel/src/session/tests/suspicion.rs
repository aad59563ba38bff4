//! Suspicion: long before silence ends a session its owner learns that another might do better.

use super::*;

impl Pair {
    /// Lets time pass with the wires cut: what is sent waits, in order.
    fn pass_cut(&mut self, duration: Duration) {
        self.latency = Duration::from_secs(3600);
        self.pass(duration);
        self.latency = Duration::ZERO;
    }

    /// What was held up arrives.
    fn heal(&mut self) {
        for end in [&mut self.server, &mut self.agent] {
            for (at, _) in &mut end.inbound {
                *at = self.now;
            }
        }
        self.drive();
    }

    fn n_pings(&self) -> [usize; 2] {
        let count = |end: &End| end.said.iter().filter(|frame| matches!(frame, Frame::Ping { .. })).count();
        [count(&self.server), count(&self.agent)]
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn of_two_idle_peers_the_agent_pings() {
    let mut pair = Pair::new();
    pair.drive();
    let before = pair.n_pings();
    pair.pass(SECOND * 81);
    assert_eq!(pair.n_pings(), [before[0], before[1] + 10]);
}

#[test]
fn what_is_said_and_not_answered_provokes_one_ping() {
    let mut pair = Pair::new();
    let id = pair.open(Class::Watch);
    pair.pass(SECOND);
    let before = pair.n_pings();
    pair.agent.write_all(id, b"an event", pair.now);
    pair.pass(SECOND * 3);
    assert_eq!(pair.n_pings(), [before[0], before[1] + 1]);
    pair.pass(SECOND * 4);
    assert_eq!(pair.n_pings(), [before[0], before[1] + 1], "a ping and its answer provoked another");
}

#[test]
fn both_ends_suspect_in_time_and_trust_again_when_answered() {
    let mut pair = Pair::new();
    pair.drive();
    pair.pass(SECOND);
    pair.pass_cut(SECOND * 14);
    for end in [&pair.server, &pair.agent] {
        assert!(end.session.is_suspect() && end.session.is_open());
        assert_eq!(end.events.last(), Some(&Event::Suspect));
    }
    pair.heal();
    for end in [&pair.server, &pair.agent] {
        assert!(!end.session.is_suspect());
        assert_eq!(end.events.last(), Some(&Event::Trusted));
        assert!(end.session.rtt().is_some_and(|rtt| rtt < SECOND), "a cut is no distance");
    }
}

#[test]
fn an_agent_suspects_within_11_s_and_two_round_trips_of_what_it_heard_last() {
    let mut pair = Pair::new();
    pair.drive();
    pair.pass(SECOND);
    pair.pass_cut(SECOND * 9);
    assert!(!pair.agent.session.is_suspect());
    pair.pass_cut(SECOND + Duration::from_millis(200));
    assert!(pair.agent.session.is_suspect());
}

#[test]
fn a_suspect_session_and_its_streams_go_on() {
    let mut pair = Pair::new();
    let id = pair.open(Class::Watch);
    pair.pass_cut(SECOND * 44);
    assert!(pair.agent.session.is_suspect());
    assert_eq!((pair.agent.session.ended(), pair.agent.session.cut(id)), (None, None));
}
