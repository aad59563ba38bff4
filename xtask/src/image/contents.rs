//! What is in an image: exactly the files that were meant, and not more bytes than were allowed.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::said;

/// What Docker and Podman put into every container for themselves.
const OF_THE_ENGINE: [&str; 7] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "run/.containerenv"];

/// Fails when `image` holds anything but its program, its list of materials and the roots, or more than `mb_max` MB.
pub(super) fn check(engine: &str, image: &str, program: &str, has_list: bool, mb_max: u64) -> Result<()> {
    let size = said(Command::new(engine).args(["image", "inspect", "--format", "{{.Size}}", image]))?;
    let bytes: u64 = size.trim().parse().with_context(|| format!("the size of {image}: {size:?}"))?;
    eprintln!("== {image}: {:.1} MB", bytes as f64 / 1e6);
    ensure!(bytes <= mb_max * 1_000_000, "{image} has {bytes} bytes, and {mb_max} MB are enough");

    let container = said(Command::new(engine).args(["create", image]))?;
    let container = container.trim();
    let listed = list(engine, container);
    said(Command::new(engine).args(["rm", container]))?;
    judge(&listed?, program, has_list)
}

fn list(engine: &str, container: &str) -> Result<Vec<String>> {
    // By a pipe: an archive of some MB is not worth a file.
    let mut export = Command::new(engine);
    let mut export = export.args(["export", container]).stdout(std::process::Stdio::piped()).spawn().context("export")?;
    let archive = export.stdout.take().context("an export without output")?;
    let listed = Command::new("tar").args(["--list", "--file", "-"]).stdin(archive).output().context("tar")?;
    ensure!(export.wait()?.success() && listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    Ok(String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect())
}

fn judge(files: &[String], program: &str, has_list: bool) -> Result<()> {
    let mut meant = vec![program.to_owned(), "etc/ssl/certs/ca-certificates.crt".to_owned()];
    meant.extend(has_list.then(|| format!("{program}.cdx.json")));
    for file in &meant {
        ensure!(files.contains(file), "{file} is missing");
    }
    // Folders end in a slash.
    let is_strange = |file: &&String| !file.ends_with('/') && !meant.contains(file) && !OF_THE_ENGINE.contains(&file.as_str());
    let strange: Vec<_> = files.iter().filter(is_strange).collect();
    ensure!(strange.is_empty(), "nobody meant these to be in the image: {strange:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_with_a_shell_or_without_its_roots_is_refused() {
        let files = |more: &[&str]| -> Vec<String> {
            let all =
                [".dockerenv", "dev/", "dev/console", "etc/hosts", "etc/ssl/certs/", "postern-agent", "postern-agent.cdx.json"];
            all.iter().chain(more).map(|file| (*file).to_owned()).collect()
        };
        let roots = "etc/ssl/certs/ca-certificates.crt";
        assert!(judge(&files(&[roots]), "postern-agent", true).is_ok());
        for more in ["bin/sh", "etc/passwd", "dev/sh"] {
            assert!(judge(&files(&[roots, more]), "postern-agent", true).is_err_and(|told| told.to_string().contains(more)));
        }
        assert!(judge(&files(&[roots]), "postern-agent", false).is_err_and(|told| told.to_string().contains("cdx")));
        assert!(judge(&files(&[]), "postern-agent", true).is_err_and(|told| told.to_string().contains(roots)));
    }
}
