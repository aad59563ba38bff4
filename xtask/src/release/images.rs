//! Images of a release: built here, pushed for each architecture, joined under one name, signed by digest.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{PARTS, Part, Release, artefacts};
use crate::image;
use crate::machine::Skips;
use crate::run::{run, step};
use crate::workspace::target_dir;

/// What their list calls the commit that they were made of.
const COMMIT: &str = "commit";

/// Builds the images for this machine's architecture unless they are there, keeps them as archives and pushes them, named after the architecture.
pub(super) fn make(release: &Release, are_built: bool) -> Result<()> {
    let Release { version, remote, dist, .. } = release;
    if !are_built {
        step("images", || image::build(&image::Asked::default(), &Skips::default()))?;
    }
    let arch = image::architecture()?;
    let mut pushed = serde_json::Map::from_iter([(COMMIT.to_owned(), release.commit.as_str().into())]);
    for Part { name: part, .. } in PARTS {
        let local = format!("{part}:{version}");
        materials(release, part, arch)?;
        // For clusters whose nodes can reach no registry.
        run(Command::new("docker")
            .args(["save", "--output"])
            .arg(dist.join(format!("{part}-{version}-linux-{arch}.tar")))
            .arg(&local))?;
        let repository = release.repository(part);
        let name = format!("{repository}:{version}-{arch}");
        run(Command::new("docker").args(["tag", &local, &name]))?;
        remote.run(Command::new("docker").args(["push", "--quiet", &name]), "the image of this architecture")?;
        let mut ask = Command::new("docker");
        ask.args(["image", "inspect", "--format", "{{json .RepoDigests}}", &name]);
        pushed.insert(part.to_owned(), remote.digest(&mut ask, "its digest", |said| repo_digest(said, &repository))?.into());
    }
    std::fs::write(dist.join(pushed_file(arch)), format!("{:#}\n", Value::from(pushed)))?;
    Ok(())
}

/// Joins the pushed images of all architectures under the version's name, and signs what comes of it.
pub(super) fn join(release: &Release, predicate: &Path) -> Result<()> {
    let Release { version, remote, dist, .. } = release;
    let pushed = pushed(dist)?;
    for (arch, of) in &pushed {
        check_commit(arch, of, &release.commit)?;
    }
    for Part { name: part, .. } in PARTS {
        let repository = release.repository(part);
        for (arch, digests) in &pushed {
            attest_materials(release, part, arch, &format!("{repository}@{}", digest_of(digests, part)?))?;
        }
        let whole = format!("{repository}:{version}");
        let mut create = Command::new("docker");
        create.args(["buildx", "imagetools", "create", "--tag", &whole]);
        for (_, digests) in &pushed {
            create.arg(format!("{repository}@{}", digest_of(digests, part)?));
        }
        remote.run(&mut create, "one name for the images of all architectures")?;
        let mut ask = Command::new("docker");
        ask.args(["buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", &whole]);
        let digest = remote.digest(&mut ask, "its digest", |said| {
            let manifest: Value = serde_json::from_str(said)?;
            Ok(manifest["digest"].as_str().context("a manifest without a digest")?.to_owned())
        })?;
        sign(release, &format!("{repository}@{digest}"), predicate)?;
    }
    Ok(())
}

/// Signs what `reference` names by digest, and where it came from, with the identity of the workflow's run.
pub(super) fn sign(release: &Release, reference: &str, predicate: &Path) -> Result<()> {
    let remote = &release.remote;
    remote.run(Command::new("cosign").args(["sign", "--yes", "--recursive", reference]), "the signature")?;
    let mut attest = Command::new("cosign");
    attest.args(["attest", "--yes", "--type", "slsaprovenance1", "--predicate"]).arg(predicate).arg(reference);
    remote.run(&mut attest, "the provenance")
}

/// Lays beside the image what it is made of, which `cargo xtask image` has listed.
fn materials(release: &Release, part: &str, arch: &str) -> Result<()> {
    let listed = target_dir()?.join("image").join(format!("context-{arch}")).join(format!("{part}.cdx.json"));
    if listed.is_file() {
        std::fs::copy(&listed, materials_file(release, part, arch))?;
        return Ok(());
    }
    ensure!(release.remote.is_dry(), "nothing says what {part} is made of: cargo install --locked cargo-cyclonedx");
    eprintln!("no list of what {part} is made of, for which a release needs cargo-cyclonedx");
    Ok(())
}

fn attest_materials(release: &Release, part: &str, arch: &str, reference: &str) -> Result<()> {
    let mut attest = Command::new("cosign");
    attest
        .args(["attest", "--yes", "--type", "cyclonedx", "--predicate"])
        .arg(materials_file(release, part, arch))
        .arg(reference);
    release.remote.run(&mut attest, "what it is made of")
}

fn materials_file(release: &Release, part: &str, arch: &str) -> PathBuf {
    release.dist.join(format!("{part}-{}-linux-{arch}.cdx.json", release.version))
}

fn digest_of<'a>(digests: &'a Value, part: &str) -> Result<&'a str> {
    digests[part].as_str().with_context(|| format!("no digest of {part} was noted when it was pushed"))
}

/// What is signed as made of a commit was made of it.
fn check_commit(arch: &str, pushed: &Value, commit: &str) -> Result<()> {
    let of = pushed[COMMIT].as_str().unwrap_or_default();
    ensure!(of == commit, "the images for {arch} were made of {of:?}, and this is {commit}: run the stage `images` anew");
    Ok(())
}

fn pushed_file(arch: &str) -> String {
    format!("pushed-{arch}.json")
}

/// What was pushed for each architecture that `dist` knows.
fn pushed(dist: &Path) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for file in artefacts::files(dist)? {
        if let Some(arch) = arch_of(&file) {
            let digests = serde_json::from_slice(&std::fs::read(&file)?).with_context(|| file.display().to_string())?;
            all.push((arch, digests));
        }
    }
    ensure!(!all.is_empty(), "{} knows no pushed image; run the stage `images` first, once on each architecture", dist.display());
    Ok(all)
}

fn arch_of(file: &Path) -> Option<String> {
    Some(file.file_name()?.to_str()?.strip_prefix("pushed-")?.strip_suffix(".json")?.to_owned())
}

/// The digest under which `repository` has an image, of what `docker image inspect` says.
fn repo_digest(said: &str, repository: &str) -> Result<String> {
    let digests: Vec<String> = serde_json::from_str(said)?;
    let ours = digests.iter().find_map(|digest| digest.strip_prefix(repository)?.strip_prefix('@'));
    Ok(ours.with_context(|| format!("docker knows no digest of {repository}, which was pushed"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_digests_the_registrys_own_counts() {
        let said = r#"["other.example/postern-server@sha256:aa","ghcr.io/a/postern-server@sha256:bb"]"#;
        assert_eq!(repo_digest(said, "ghcr.io/a/postern-server").expect("there"), "sha256:bb");
        assert!(repo_digest("[]", "ghcr.io/a/postern-server").is_err());
        assert!(repo_digest(r#"["ghcr.io/a/postern-server-old@sha256:aa"]"#, "ghcr.io/a/postern-server").is_err());
    }

    #[test]
    fn images_of_another_commit_are_not_signed_as_if_they_were_of_this_one() {
        let pushed = serde_json::json!({"commit": "aa", "postern-server": "sha256:bb"});
        assert!(check_commit("arm64", &pushed, "aa").is_ok());
        assert!(check_commit("arm64", &pushed, "ab").is_err());
        assert!(check_commit("arm64", &serde_json::json!({}), "aa").is_err());
    }

    #[test]
    fn a_file_of_pushed_images_says_their_architecture() {
        assert_eq!(arch_of(Path::new("dist/pushed-arm64.json")).as_deref(), Some("arm64"));
        assert_eq!(arch_of(Path::new("dist/provenance.json")), None);
    }
}
