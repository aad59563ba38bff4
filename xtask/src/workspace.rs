//! Where things are: the root, the target folder, the binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::said;

/// Says where the product's binaries are; the end-to-end tests read it too.
pub(crate) const BIN_DIR: &str = "POSTERN_BIN_DIR";

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // Cargo and nextest say where the package lies when they run it; a binary run by hand knows where it was built.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// A cargo command in the root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// What cargo knows about the workspace's own packages.
pub(crate) fn metadata() -> Result<Value> {
    serde_json::from_str(&said(&mut cargo(&["metadata", "--format-version", "1", "--no-deps"]))?).context("cargo metadata")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata()?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

/// The folder of the product's binaries, where somebody says that they are built.
pub(crate) fn given_bins() -> Option<PathBuf> {
    std::env::var_os(BIN_DIR).map(PathBuf::from)
}

/// The folder of the product's binaries.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    given_bins().map_or_else(|| Ok(target_dir()?.join("debug")), Ok)
}
