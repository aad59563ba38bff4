//! `cargo xtask release`: what is published under a version, made, checked and pushed.
//!
//! `--dry-run` does all that needs neither a network nor rights, and says what else would be done. The workflow runs the stage
//! `images` once for each architecture, on a machine of that architecture, and then `publish` once.

mod artefacts;
mod changelog;
mod charts;
mod images;
mod provenance;
mod remote;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches};

use crate::image;
use crate::run::{said, step};
use crate::workspace::{root, target_dir};

use remote::Remote;

/// Names the registry and what stands before the names of images there: `ghcr.io/somebody`. Charts go under `charts/`.
const REGISTRY: &str = "RELEASE_REGISTRY";

/// What a dry run writes in a registry's place, where none is named; nobody can own a name under `.invalid` (RFC 2606).
const NO_REGISTRY: &str = "registry.invalid/postern";

/// A program, its image and its chart, which have one name.
struct Part {
    name: &'static str,
    /// Where the chart lies.
    chart: &'static str,
    /// The least that the chart must be told, as `helm --set` takes it.
    least_values: &'static str,
}

/// What is released.
const PARTS: [Part; 2] = [
    Part { name: "postern-server", chart: "charts/server", least_values: "clusters[0].id=edge-1,clusters[0].token=t" },
    Part { name: "postern-agent", chart: "charts/agent", least_values: "serverURL=wss://hub.example/connect,token=t" },
];

/// The verb's command line.
pub(crate) fn command() -> clap::Command {
    clap::Command::new("release")
        .about("Makes, checks and publishes what a version consists of: images, charts, SBOMs, signatures, provenance")
        .long_about(
            "Makes, checks and publishes what a version consists of: images, charts, SBOMs, signatures, provenance.\n\n\
             The version is the workspace's. HEAD must have its tag (v0.1.0), CHANGELOG.md a section of it, and the charts its number. \
             RELEASE_REGISTRY says where images and charts go (ghcr.io/somebody). Everything is left in the target folder, under \
             dist/VERSION. Needs docker and helm; publishing needs also buildx, cosign and gh, and a login for each.",
        )
        .args([
            Arg::new("stage")
                .value_name("STAGE")
                .value_parser(["images", "publish"])
                .help("Only this: images of this machine's architecture; or publish, with the images of all that dist/VERSION knows"),
            Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Push, sign and publish nothing; say what would be"),
            Arg::new("built")
                .long("built")
                .action(ArgAction::SetTrue)
                .requires("dry-run")
                .help("Take the images that are there, such as those of `cargo xtask image --quick`"),
        ])
}

/// The verb.
pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    let stage = args.get_one::<String>("stage").map(String::as_str);
    let release = Release::prepare(args.get_flag("dry-run"))?;
    if stage != Some("publish") {
        release.begin()?;
        images::make(&release, args.get_flag("built"))?;
    }
    if stage != Some("images") {
        let packages = step("charts", || charts::package(&release))?;
        publish(&release, &packages)?;
    }
    eprintln!("== release {}: all of it is in {}", release.version, release.dist.display());
    Ok(())
}

/// A version that is about to be published.
struct Release {
    version: String,
    /// What stands before the names of images.
    registry: String,
    /// Where everything is left.
    dist: PathBuf,
    /// What is new in it, for people.
    notes: String,
    /// The commit that it is made of.
    commit: String,
    remote: Remote,
}

impl Release {
    /// Checks that tag, workspace, charts and changelog speak of the same version.
    fn prepare(dry: bool) -> Result<Self> {
        let version = image::version()?;
        let remote = Remote::new(dry);
        let commit = git(&["rev-parse", "HEAD"])?.trim().to_owned();
        step("version", || {
            charts::check_versions(&root(), &version)?;
            if dry {
                return Ok(());
            }
            let tags = git(&["tag", "--points-at", "HEAD"])?;
            check_tag(&tags, &version)?;
            let tag = format!("v{version}");
            ensure!(!remote.is_published(&tag)?, "{tag} is published, and what is published stays as it is: raise the version");
            let changes = git(&["status", "--porcelain"])?;
            ensure!(
                changes.is_empty(),
                "the tree is not what HEAD says, and what is released must be; commit or stash:\n{changes}"
            );
            Ok(())
        })?;
        let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).context("CHANGELOG.md")?;
        let notes = changelog::section(&changelog, &version)?;
        let registry = registry(std::env::var(REGISTRY).ok(), dry)?;
        let dist = target_dir()?.join("dist").join(&version);
        std::fs::create_dir_all(&dist)?;
        Ok(Self { version, registry, dist, notes, commit, remote })
    }

    /// Leaves nothing of an earlier attempt among what is published.
    fn begin(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.dist)?;
        Ok(std::fs::create_dir_all(&self.dist)?)
    }

    /// An image's name in the registry, without tag or digest.
    fn repository(&self, part: &str) -> String {
        format!("{}/{part}", self.registry)
    }
}

/// Everything that is done once: images joined, charts pushed, all of it signed, and the release's page.
fn publish(release: &Release, packages: &[PathBuf]) -> Result<()> {
    let remote = &release.remote;
    let predicate = release.dist.join("provenance.json");
    match provenance::predicate(&|name| std::env::var(name).ok()) {
        Ok(text) => std::fs::write(&predicate, format!("{text:#}\n"))?,
        Err(missing) if remote.is_dry() => eprintln!("no provenance here: {missing:#}"),
        Err(missing) => return Err(missing),
    }
    images::join(release, &predicate)?;
    for package in packages {
        charts::push(release, package, &predicate)?;
    }
    let sums = step("checksums", || artefacts::checksums(&release.dist))?;
    let bundle = sums.with_extension("sigstore.json");
    remote.run(
        Command::new("cosign").args(["sign-blob", "--yes", "--bundle"]).arg(&bundle).arg(&sums),
        "signs the checksums, and so every file",
    )?;
    let notes = release.dist.join("notes.md");
    std::fs::write(&notes, &release.notes)?;
    let tag = format!("v{}", release.version);
    let mut page = Command::new("gh");
    page.args(["release", "create", &tag, "--verify-tag", "--title", &tag, "--notes-file"]).arg(&notes);
    // What has a part behind a hyphen comes before the version (Semantic Versioning 2.0.0, point 9), and is nobody's latest.
    page.args(release.version.contains('-').then_some("--prerelease"));
    page.args(artefacts::files(&release.dist)?.into_iter().filter(|file| file != &notes && file != &bundle));
    if !remote.is_dry() {
        page.arg(&bundle);
    }
    remote.run(&mut page, "the page of the release")
}

fn git(args: &[&str]) -> Result<String> {
    said(Command::new("git").args(args).current_dir(root()))
}

/// `tags` are those of HEAD, a line each.
fn check_tag(tags: &str, version: &str) -> Result<()> {
    let wanted = format!("v{version}");
    if tags.lines().any(|tag| tag == wanted) {
        return Ok(());
    }
    let others = tags.lines().collect::<Vec<_>>().join(", ");
    bail!(
        "HEAD has no tag {wanted}, which the workspace's version asks for; its tags: [{others}]; set the version in Cargo.toml, or tag"
    )
}

fn registry(named: Option<String>, dry: bool) -> Result<String> {
    match named.filter(|name| !name.is_empty()) {
        // Registries take no capitals, and owners on GitHub have some.
        Some(name) => Ok(name.trim_end_matches('/').to_lowercase()),
        None if dry => Ok(NO_REGISTRY.to_owned()),
        None => bail!("{REGISTRY} says where images and charts go, such as ghcr.io/somebody; or --dry-run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_not_the_workspaces_version_is_refused_with_both() {
        assert!(check_tag("nightly\nv0.1.0\n", "0.1.0").is_ok());
        let error = check_tag("v0.1.1\n", "0.1.0").expect_err("another version").to_string();
        assert!(error.contains("v0.1.0") && error.contains("[v0.1.1]"), "{error}");
        assert!(check_tag("v0.1.0-rc1\n", "0.1.0").is_err());
    }

    #[test]
    fn a_registry_must_be_named_unless_nothing_is_pushed() {
        assert_eq!(registry(Some("ghcr.io/SomeBody/".into()), false).expect("named"), "ghcr.io/somebody");
        assert!(registry(None, false).is_err());
        assert!(registry(Some(String::new()), false).is_err());
        assert_eq!(registry(None, true).expect("dry"), NO_REGISTRY);
    }
}
