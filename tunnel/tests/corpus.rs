//! What fuzzing has kept, replayed: every input of every target in `fuzz/`, on any compiler, in milliseconds.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets see it as a crate of its own")]
mod fuzz;
#[path = "corpus/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn every_kept_message_is_a_frame_or_an_error() {
    replay("codec", fuzz::codec::check);
}

#[test]
fn a_session_keeps_its_word_and_its_budget_under_every_kept_script() {
    replay("session", fuzz::session::check);
}

#[test]
fn two_sessions_keep_every_promise_under_every_kept_script() {
    replay("pair", fuzz::pair::check);
}
