//! What fuzzing has kept, replayed: every input of every target in `fuzz/`, on any compiler, in milliseconds.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets see it as a crate of its own")]
mod fuzz;

use std::panic::catch_unwind;
use std::path::Path;

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

#[expect(clippy::disallowed_methods, reason = "the inputs are files of the workspace, not of a simulated machine")]
fn replay(target: &str, check: fn(&[u8])) {
    let folders = ["corpus", "findings"].map(|kind| Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target));
    let mut n_inputs = 0;
    for entry in folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten() {
        let path = entry.expect("the folder can be read").path();
        let input = std::fs::read(&path).expect("a file that can be read");
        assert!(catch_unwind(|| check(&input)).is_ok(), "{} breaks what {target} claims", path.display());
        n_inputs += 1;
    }
    assert!(n_inputs > 0, "no inputs in {folders:?}");
}
