//! Where the product's programs are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The path of one of the product's programs, for example `postern-agent`.
///
/// Looks into `POSTERN_BIN_DIR`, else into the profile folder of the target directory that this test was built into.
///
/// # Errors
/// Says what to build when the program is not there.
pub fn product(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("POSTERN_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = std::env::current_exe().context("find this test's own program")?;
            let profile = test.parent().and_then(|deps| deps.parent());
            profile.context("this test lies outside of a target directory")?.to_owned()
        }
    };
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} is missing: build it with `cargo build -p server -p agent -p sim`", path.display());
    }
    Ok(path)
}
