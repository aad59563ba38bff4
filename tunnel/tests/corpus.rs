//! What fuzzing has kept, replayed: every input of every target in `fuzz/`, on any compiler, in milliseconds.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets see it as a crate of its own")]
mod fuzz;

use std::panic::catch_unwind;
use std::path::Path;

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
