//! `cargo xtask e2e`: the end-to-end tests against real processes and real clusters.

use anyhow::{Context, Result};
use clap::{ArgMatches, Command};

use crate::image;
use crate::machine::Skips;
use crate::test::{Scope, build, build_release, suite};
use crate::workspace::BIN_DIR;

/// Asks the tests for all that they can do, where they would else do a selection.
pub(crate) const EVERYTHING: &str = "E2E_ALL";

/// Kubeconfigs and manifests: the flag, the variable that the tests read, what it stands for, and what it does.
const FILES: [(&str, &str, &str, &str); 4] = [
    ("hub", "E2E_HUB", "KUBECONFIG", "Install what ships in the cluster of this kubeconfig, and in that of --edge"),
    ("edge", "E2E_EDGE", "KUBECONFIG", "Use the cluster of this kubeconfig"),
    ("argocd-manifests", "E2E_ARGOCD_MANIFESTS", "FILE", "Install Argo CD itself in the hub, from these"),
    ("argocd-images", "E2E_ARGOCD_IMAGES", "TAR", "Its images, as `docker save` writes them, for kind clusters that pull none"),
];

/// How the verb is spelt.
pub(crate) fn command() -> Command {
    let files = FILES.map(|(name, _, value, help)| crate::text(name, help).long(name).value_name(value));
    Command::new("e2e")
        .about("Runs the end-to-end tests against real processes, separate hosts and, when asked, real clusters")
        .long_about(
            "Runs the end-to-end tests against real processes, separate hosts and, when asked, real clusters.\n\n\
             The separate hosts are network namespaces made for the tests: root on Linux with iproute2 may make them. \
             There the programs are cut off, stopped, killed and started again. What a machine lacks is skipped, and said.\n\n\
             With --kind the images are built and the charts installed by helm in two kind clusters, a hub and an edge: first contact, \
             streams, upgrades, rotation, kills and cuts under a caller that plays Argo CD's part, and nothing left at the end. \
             --hub and --edge do the same in two clusters that you have, with the images that E2E_SERVER_IMAGE, \
             E2E_AGENT_IMAGE and E2E_SIM_IMAGE name. What may say why a step failed is gathered in a folder of target/e2e.",
        )
        .arg(crate::flag("kind", "Create kind clusters for them"))
        .args(files)
        .arg(crate::flag("release", "Run the programs as they ship, built with optimisations; else those of a debug build"))
        .arg(crate::flag("keep", "Leave what they created for a look afterwards"))
}

/// The verb.
pub(crate) fn run_verb(args: &ArgMatches) -> Result<()> {
    let mut env = Vec::new();
    for (name, variable, ..) in FILES {
        let Some(file) = args.get_one::<String>(name) else { continue };
        let there = std::path::absolute(file).and_then(|file| file.metadata().map(|_| file)).with_context(|| file.clone())?;
        env.push((variable, there.to_string_lossy().into_owned()));
    }
    for (flag, variable) in [("kind", "E2E_KIND"), ("keep", "E2E_KEEP")] {
        if args.get_flag(flag) {
            env.push((variable, "1".to_owned()));
        }
    }
    let on_clusters = args.get_flag("kind") || args.get_one::<String>("hub").is_some();
    if on_clusters {
        env.push((EVERYTHING, "1".to_owned()));
    }
    let skips = Skips::default();
    let result = build().and_then(|()| {
        if on_clusters {
            image::for_tests(&skips)?;
        }
        if args.get_flag("release") {
            env.push((BIN_DIR, build_release()?));
        }
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        suite(Scope::E2e, None, &env, &skips)
    });
    skips.tell();
    result
}
