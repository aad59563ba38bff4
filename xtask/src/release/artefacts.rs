//! The files of a release, and their checksums.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// As `sha256sum --check` reads it.
const SUMS: &str = "SHA256SUMS";

/// The files of `dist`, in the order of their names.
pub(super) fn files(dist: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dist)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the SHA-256 of every file of `dist` into one more, and returns that one.
pub(super) fn checksums(dist: &Path) -> Result<PathBuf> {
    let sums = dist.join(SUMS);
    let mut text = String::new();
    for file in files(dist)?.into_iter().filter(|file| !is_about_sums(file)) {
        let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        text += &sum(&name, &std::fs::read(&file)?);
    }
    std::fs::write(&sums, text)?;
    Ok(sums)
}

/// Whether it is the sums of an earlier run, or their signature.
fn is_about_sums(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SUMS))
}

fn sum(name: &str, content: &[u8]) -> String {
    let mut line = String::new();
    for byte in Sha256::digest(content) {
        let _ = write!(line, "{byte:02x}");
    }
    line + "  " + name + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_what_sha256sum_prints() {
        // The example of FIPS 180-2, appendix B.1.
        assert_eq!(sum("abc.txt", b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc.txt\n");
    }

    #[test]
    fn the_sums_of_an_earlier_run_are_not_summed_again() {
        assert!(is_about_sums(Path::new("dist/SHA256SUMS")) && is_about_sums(Path::new("dist/SHA256SUMS.sigstore.json")));
        assert!(!is_about_sums(Path::new("dist/postern-agent-0.1.0.tgz")));
    }
}
