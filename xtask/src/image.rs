//! `cargo xtask image`: the programs as images, from static binaries and a plain Docker or Podman.

mod contents;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches};

use crate::machine::Skips;
use crate::run::{run, said, seconds, step, works};
use crate::workspace::{cargo, metadata, root, target_dir};

/// The roots of public certificates, where Debian, Alpine and most others have them.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Programs that have images, the last one for tests alone: name, package, what it is, and how large its image may be in MB. A fleet pulls an agent over its
/// worst links; beyond this something came in that nobody meant to.
const PROGRAMS: [(&str, &str, &str, u64); 3] = [
    ("postern-server", "server", "The hub's end of Postern, where Argo CD and kubectl reach clusters", 20),
    ("postern-agent", "agent", "A cluster's end of Postern, which dials out to the hub", 20),
    ("postern-sim", "sim", "A fake API server and a caller, for tests of Postern", 20),
];

/// How the verb is spelt.
pub(crate) fn command() -> clap::Command {
    clap::Command::new("image")
        .about("Builds the programs as images FROM scratch, and looks at what is in them")
        .long_about(
            "Builds the programs as images FROM scratch, and looks at what is in them.\n\n\
             Takes Docker or Podman, whichever answers first, and no network once the binaries are built. The binaries are static: \
             glibc with crt-static. Another architecture than this machine's needs Rust's target for it and a linker that \
             CARGO_TARGET_..._LINKER names.",
        )
        .arg(crate::flag("quick", "Build for tests, postern-sim too: a third of the time, a little slower and larger than what ships"))
        .arg(crate::text("tag", "The tag; by default the workspace's version").long("tag").value_name("TAG"))
        .arg(Arg::new("arch").long("arch").value_name("ARCH").value_parser(["amd64", "arm64"]).help("By default this machine's"))
}

/// The verb.
pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    let word = |name: &str| args.get_one::<String>(name).cloned();
    let skips = Skips::default();
    let result = build(&Asked { quick: args.get_flag("quick"), tag: word("tag"), arch: word("arch") }, &skips);
    skips.tell();
    for image in result? {
        println!("{image}");
    }
    Ok(())
}

/// Builds what tests on clusters take, unless they are told of images that are elsewhere.
pub(crate) fn for_tests(skips: &Skips) -> Result<()> {
    if std::env::var_os("E2E_SERVER_IMAGE").is_some() {
        return Ok(());
    }
    step("images", || build(&Asked { quick: true, ..Asked::default() }, skips)).map(drop)
}

/// What is to be built.
#[derive(Default)]
pub(crate) struct Asked {
    /// For tests.
    pub(crate) quick: bool,
    /// By default the workspace's version.
    pub(crate) tag: Option<String>,
    /// By default this machine's.
    pub(crate) arch: Option<String>,
}

impl Asked {
    /// Cargo unites the features of what it builds at once: what ships is built without what tests ask of its libraries.
    fn programs(&self) -> &'static [(&'static str, &'static str, &'static str, u64)] {
        if self.quick { &PROGRAMS } else { &PROGRAMS[..2] }
    }
}

/// Builds all images; gives their names with their tags.
pub(crate) fn build(asked: &Asked, skips: &Skips) -> Result<Vec<String>> {
    let engine = engine()?;
    let version = version()?;
    let tag = asked.tag.as_deref().unwrap_or(&version);
    let arch = asked.arch.as_deref().map_or_else(own_arch, Arch::named)?;
    let context = context(asked, arch, skips)?;
    let mut images = Vec::new();
    for &(program, _, title, mb_max) in asked.programs() {
        let image = format!("{program}:{tag}");
        step(&image, || {
            let mut command = Command::new(engine);
            command.args(["build", "--quiet", "--target", program, "--tag", &image]);
            for (label, value) in [("title", program), ("description", title), ("version", &version), ("licenses", "Apache-2.0")]
            {
                command.args(["--label", &format!("org.opencontainers.image.{label}={value}")]);
            }
            for (label, value) in [("revision", revision()), ("source", std::env::var("IMAGE_SOURCE").ok())] {
                if let Some(value) = value {
                    command.args(["--label", &format!("org.opencontainers.image.{label}={value}")]);
                }
            }
            if arch.name != own_arch()?.name {
                command.args(["--platform", &format!("linux/{}", arch.name)]);
            }
            run(command.arg("--file").arg(root().join("ci/images/Dockerfile")).arg(&context))?;
            contents::check(engine, &image, program, is_cyclonedx_there(), mb_max)
        })?;
        if arch.name == own_arch()?.name {
            starts(engine, &image)?;
        }
        images.push(image);
    }
    Ok(images)
}

/// Proves that the binary runs where there is nothing else, and says how long that takes.
fn starts(engine: &str, image: &str) -> Result<()> {
    let started = Instant::now();
    let printed = said(Command::new(engine).args(["run", "--rm", "--network", "none", "--read-only", image, "--version"]))?;
    eprintln!("== {image} says {:?}, {} with its container", printed.trim(), seconds(started.elapsed()));
    Ok(())
}

/// An architecture, as images and as Rust call it.
#[derive(Clone, Copy)]
struct Arch {
    name: &'static str,
    triple: &'static str,
    rustflags: &'static str,
}

const ARCHS: [Arch; 2] = [
    Arch { name: "amd64", triple: "x86_64-unknown-linux-gnu", rustflags: "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS" },
    Arch { name: "arm64", triple: "aarch64-unknown-linux-gnu", rustflags: "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS" },
];

impl Arch {
    fn named(name: &str) -> Result<Self> {
        ARCHS.into_iter().find(|arch| arch.name == name).with_context(|| format!("no architecture {name:?}"))
    }
}

/// This machine's, as images call it.
pub(crate) fn architecture() -> Result<&'static str> {
    Ok(own_arch()?.name)
}

fn own_arch() -> Result<Arch> {
    let own = ARCHS.into_iter().find(|arch| arch.triple.starts_with(std::env::consts::ARCH));
    own.with_context(|| format!("images are built on amd64 and arm64; this machine is {}", std::env::consts::ARCH))
}

/// Docker or Podman.
fn engine() -> Result<&'static str> {
    let answers = |engine: &&str| works(engine, &["info"]);
    ["docker", "podman"]
        .into_iter()
        .find(answers)
        .context("neither docker nor podman answers: start one, then `docker info` says so")
}

/// The workspace's version.
pub(crate) fn version() -> Result<String> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let server = packages.iter().find(|package| package["name"] == "server").context("cargo metadata has no server")?;
    Ok(server["version"].as_str().context("the server has no version")?.to_owned())
}

/// The commit, where there is one, and whether the tree is another.
fn revision() -> Option<String> {
    let git = |args: &[&str]| said(Command::new("git").args(args).current_dir(root())).ok();
    let dirty = if git(&["status", "--porcelain"])?.is_empty() { "" } else { "-dirty" };
    Some(format!("{}{dirty}", git(&["rev-parse", "HEAD"])?.trim()))
}

/// Builds the binaries and lays everything that the images take into one folder.
fn context(asked: &Asked, arch: Arch, skips: &Skips) -> Result<PathBuf> {
    // Apart from what is built otherwise, so that neither throws the other's work away.
    let target = target_dir()?.join("image");
    let profile = if asked.quick { "quick" } else { "release" };
    step(&format!("static binaries, {profile}"), || {
        let mut command = cargo(&["build", "--locked", "--bins", "--profile", profile, "--target", arch.triple, "--target-dir"]);
        command.arg(&target).env(arch.rustflags, "-C target-feature=+crt-static").env_remove("RUSTFLAGS");
        for (_, package, ..) in asked.programs() {
            command.args(["--package", package]);
        }
        run(&mut command)
    })?;
    let context = target.join(format!("context-{}", arch.name));
    fs::create_dir_all(&context)?;
    for (program, package, ..) in asked.programs() {
        let built = target.join(arch.triple).join(profile).join(program);
        fs::copy(&built, context.join(program)).with_context(|| built.display().to_string())?;
        materials(package, program, arch, &context, skips)?;
    }
    let roots = std::env::var_os("SSL_CERT_FILE").map_or_else(|| PathBuf::from(ROOTS), PathBuf::from);
    let copied = fs::copy(&roots, context.join("ca-certificates.crt"));
    copied.with_context(|| {
        format!("{}: the images need the roots of public certificates (package ca-certificates)", roots.display())
    })?;
    Ok(context)
}

/// Writes what a program is made of, as CycloneDX.
fn materials(package: &str, program: &str, arch: Arch, context: &Path, skips: &Skips) -> Result<()> {
    let list = context.join(format!("{program}.cdx.json"));
    if !is_cyclonedx_there() {
        skips.add(CYCLONEDX);
        // One of an earlier build would lie.
        return if list.exists() { Ok(fs::remove_file(list)?) } else { Ok(()) };
    }
    // It writes beside the manifest of every package of the workspace, and knows no other place.
    let name = format!("{program}.cdx");
    let manifest = root().join(package).join("Cargo.toml");
    let mut command = cargo(&["cyclonedx", "--quiet", "--format", "json", "--no-build-deps", "--override-filename", &name]);
    let made = run(command.args(["--target", arch.triple, "--manifest-path"]).arg(manifest));
    let mut found = false;
    for folder in fs::read_dir(root())?.filter_map(Result::ok) {
        let written = folder.path().join(format!("{name}.json"));
        if !written.is_file() {
            continue;
        }
        if folder.file_name() == package {
            fs::copy(&written, &list)?;
            found = true;
        }
        fs::remove_file(written)?;
    }
    made?;
    ensure!(found, "cargo cyclonedx wrote nothing for {package}");
    Ok(())
}

const CYCLONEDX: &str = "lists of what images are made of: cargo install --locked cargo-cyclonedx";

/// Whether lists of materials can be made.
pub(crate) fn is_cyclonedx_there() -> bool {
    works("cargo", &["cyclonedx", "--version"])
}
