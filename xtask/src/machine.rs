//! What some tests need beyond Rust: what a run insists on, and what it had to leave out.

use std::collections::BTreeSet;
use std::env::var_os;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, bail};

use crate::run::works;

/// Something that some tests need and a machine may lack.
struct Need {
    /// As `CI_REQUIRE` spells it.
    name: &'static str,
    how: &'static str,
    present: fn() -> bool,
}

/// All needs. The tests look for the same things, and skip themselves where nobody insists.
const NEEDS: [Need; 14] = [
    Need {
        name: "assets",
        how: "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver (`setup-envtest use -p path` prints one)",
        present: || {
            let has = |dir| ["etcd", "kube-apiserver"].iter().all(|program| Path::new(&dir).join(program).is_file());
            var_os("KUBEBUILDER_ASSETS").is_some_and(has)
        },
    },
    Need {
        name: "chromium",
        how: "install chromium, or name one in E2E_CHROMIUM",
        present: || works(var_os("E2E_CHROMIUM").unwrap_or_else(|| "chromium".into()), &["--version"]),
    },
    Need { name: "fuzz", how: "cargo install --locked cargo-fuzz", present: crate::fuzz::is_there },
    Need { name: "helm", how: "install helm, version 3 or 4", present: crate::charts::is_there },
    Need { name: "helm-python-sdk", how: "pip install helm-python-sdk==0.2.2", present: crate::charts::has_sdk },
    Need {
        name: "images",
        how: "`cargo xtask image --quick` builds them",
        present: || {
            let image = |program| format!("{program}:{}", env!("CARGO_PKG_VERSION"));
            let there = |program| works("docker", &["image", "inspect", &image(program)]);
            var_os("E2E_SERVER_IMAGE").is_some() || ["postern-server", "postern-agent", "postern-sim"].into_iter().all(there)
        },
    },
    Need {
        name: "kubectl",
        how: "install kubectl, or name one in E2E_KUBECTL",
        present: || works(var_os("E2E_KUBECTL").unwrap_or_else(|| "kubectl".into()), &["version", "--client"]),
    },
    Need { name: "kubernetes-validate", how: "pip install kubernetes-validate==1.37.0", present: crate::charts::has_schemas },
    Need {
        name: "kind",
        how: "install kind and docker, or name a cluster's kubeconfig in E2E_EDGE",
        present: || var_os("E2E_EDGE").is_some() || works("kind", &["version"]) && works("docker", &["info"]),
    },
    Need {
        name: "namespaces",
        how: "be root on Linux, with iproute2",
        present: || works("unshare", &["--net", "--mount", "true"]) && works("ip", &["netns", "list"]),
    },
    Need { name: "nginx", how: "install nginx, beside which the benchmark measures", present: || works("nginx", &["-v"]) },
    Need {
        name: "prometheus",
        how: "install prometheus, with promtool",
        present: || works("prometheus", &["--version"]) && works("promtool", &["--version"]),
    },
    Need { name: "tinyproxy", how: "install tinyproxy", present: || works("tinyproxy", &["-v"]) },
    Need { name: "valgrind", how: "install valgrind, which counts instructions", present: crate::bench::is_there },
];

/// Fails when something that `CI_REQUIRE`, a comma-separated list, names is not there.
pub(crate) fn insist() -> Result<()> {
    check(&std::env::var("CI_REQUIRE").unwrap_or_default(), |need| (need.present)())
}

/// Whether the machine has what a need is called.
pub(crate) fn has(name: &str) -> bool {
    NEEDS.iter().any(|need| need.name == name && (need.present)())
}

fn check(required: &str, present: impl Fn(&Need) -> bool) -> Result<()> {
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match NEEDS.iter().find(|need| need.name == name) {
            Some(need) if present(need) => {}
            Some(need) => bail!("CI_REQUIRE names {name}, and this machine lacks it: {}", need.how),
            None => bail!("CI_REQUIRE names {name:?}, which is none of {}", NEEDS.map(|need| need.name).join(", ")),
        }
    }
    Ok(())
}

/// How to get something that is needed, as it is told where it lacks.
pub(crate) fn how(name: &str) -> String {
    let need = NEEDS.iter().find(|need| need.name == name).expect("the name stands in the table");
    format!("{name}: {}", need.how)
}

/// What a run left out, gathered while it runs.
#[derive(Default)]
pub(crate) struct Skips(Mutex<BTreeSet<String>>);

impl Skips {
    /// The mark that stands before what was skipped and how to get it.
    const MARK: &str = "SKIPPED: ";

    /// Notes a line of output when it tells of a skip.
    pub(crate) fn see(&self, line: &str) {
        if let Some((_, skip)) = line.split_once(Self::MARK) {
            self.add(skip);
        }
    }

    /// Notes a skip: what, and how to get it.
    pub(crate) fn add(&self, skip: &str) {
        self.0.lock().expect("nobody panics while holding it").insert(skip.trim().to_owned());
    }

    /// Prints what was skipped.
    pub(crate) fn tell(&self) {
        for skip in self.0.lock().expect("nobody panics while holding it").iter() {
            eprintln!("{}{skip}", Self::MARK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_need_that_is_absent_fails_with_the_way_to_get_it() {
        let error = check("assets, kind", |need| need.name == "assets").expect_err("kind is absent").to_string();
        assert!(error.contains("install kind"), "{error}");
        assert!(check("assets, kind", |_| true).is_ok());
        assert!(check("", |_| false).is_ok());
    }

    #[test]
    fn a_required_need_that_nobody_knows_is_refused() {
        assert!(check("kinder", |_| true).is_err());
    }

    #[test]
    fn a_skip_is_found_inside_a_runners_own_words_and_told_once() {
        let skips = Skips::default();
        skips.see("    SKIPPED: a cluster: cargo xtask e2e --kind");
        skips.see("SKIPPED: a cluster: cargo xtask e2e --kind");
        skips.see("test result: ok");
        assert_eq!(skips.0.lock().unwrap().iter().collect::<Vec<_>>(), ["a cluster: cargo xtask e2e --kind"]);
    }
}
