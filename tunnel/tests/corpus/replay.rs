//! Every kept input of a fuzz target goes through its check again; for the crate that includes this file.

use std::panic::catch_unwind;
use std::path::Path;

/// Checks all inputs in `fuzz/corpus` and `fuzz/findings` of `target`.
///
/// # Panics
/// If an input breaks the check, or there is none.
#[expect(clippy::disallowed_methods, reason = "the inputs are files of the workspace, not of a simulated machine")]
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
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
