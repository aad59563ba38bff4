//! What fuzzing has kept, replayed: every input of every target in `fuzz/`, on any compiler, in milliseconds.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets see it as a crate of its own")]
mod fuzz;
#[path = "../../tunnel/tests/corpus/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn no_kept_head_takes_along_what_belongs_to_the_hop_or_the_caller() {
    replay("hygiene", fuzz::hygiene::check);
}

#[test]
fn no_kept_exchange_ends_a_program_carries_a_credential_or_bends_a_path() {
    replay("exchange", fuzz::exchange::check);
}

#[test]
fn every_kept_configuration_is_taken_whole_or_refused_without_telling_a_secret() {
    replay("config", fuzz::config::check);
}
