//! What a machine may lack: such tests say so and pass, unless `CI_REQUIRE` names what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::Source;
use crate::image::Images;
use crate::namespaces;

/// The kubectl to drive: `E2E_KUBECTL`, else the one on the `PATH`.
pub fn kubectl() -> Option<PathBuf> {
    let program = std::env::var_os("E2E_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
    let works = runs(&program, &["version", "--client"]);
    met("kubectl", "kubectl", "install kubectl, or name one in E2E_KUBECTL", works.then_some(program))
}

/// The folder with etcd and kube-apiserver: `KUBEBUILDER_ASSETS`.
pub fn assets() -> Option<PathBuf> {
    let dir = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let dir = dir.filter(|dir| dir.join("etcd").is_file() && dir.join("kube-apiserver").is_file());
    let how = "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver (`setup-envtest use -p path` prints one)";
    met("assets", "a kube-apiserver", how, dir)
}

/// A whole cluster: the kubeconfig that `E2E_EDGE` names, or a kind cluster of our own where one is asked for.
///
/// Nobody wants a cluster by surprise: kind alone on the `PATH` is not asking, `E2E_KIND=1`, `E2E_KIND_IMAGE` and `CI_REQUIRE` are.
pub fn cluster() -> Option<Source> {
    if let Some(kubeconfig) = std::env::var_os("E2E_EDGE").filter(|file| !file.is_empty()) {
        return Some(Source::Given(kubeconfig.into()));
    }
    let asked = node_image().is_some() || switched_on("E2E_KIND") || required("kind");
    let possible = asked && kind_works();
    let how = "`cargo xtask e2e --kind` (takes kind and docker), or `--edge KUBECONFIG` for a cluster that you have";
    met("kind", "a cluster", how, possible.then(|| Source::Kind { image: node_image() }))
}

/// Kind and docker, for who asks for clusters; gives the node image that `E2E_KIND_IMAGE` names, if it does.
pub fn kind() -> Option<Option<String>> {
    met("kind", "kind", "install kind and docker", kind_works().then(node_image))
}

fn node_image() -> Option<String> {
    std::env::var("E2E_KIND_IMAGE").ok().filter(|image| !image.is_empty())
}

fn kind_works() -> bool {
    runs(Path::new("kind"), &["version"]) && runs(Path::new("docker"), &["info"])
}

/// Two whole clusters, a hub and an edge: the kubeconfigs that `E2E_HUB` and `E2E_EDGE` name, or two kind clusters of our own
/// where they are asked for, as [`cluster`] says.
pub fn clusters() -> Option<(Source, Source)> {
    let given = |name| std::env::var_os(name).filter(|file| !file.is_empty()).map(|file| Source::Given(file.into()));
    match (given("E2E_HUB"), given("E2E_EDGE")) {
        (Some(hub), Some(edge)) => return Some((hub, edge)),
        (None, None) => {}
        _ => return met("kind", "two clusters", "name both: `--hub KUBECONFIG --edge KUBECONFIG`", None),
    }
    Some((cluster()?, cluster()?))
}

/// The helm to drive: `E2E_HELM`, else the one on the `PATH`.
pub fn helm() -> Option<PathBuf> {
    let program = std::env::var_os("E2E_HELM").map_or_else(|| PathBuf::from("helm"), PathBuf::from);
    let works = runs(&program, &["version"]);
    met("helm", "helm", "install helm, or name one in E2E_HELM", works.then_some(program))
}

/// The images that are shipped: those that the environment names, which clusters can pull, or those of the local engine.
pub fn images() -> Option<Images> {
    let images = Images::named();
    let there = |image: &&str| runs(Path::new("docker"), &["image", "inspect", image]);
    let found = images.are_elsewhere() || images.all().iter().all(there);
    met("images", "images", "`cargo xtask image --quick` builds them", found.then_some(images))
}

/// A container engine that answers to `docker`.
pub fn docker() -> Option<()> {
    met("images", "a container engine", "install docker", runs(Path::new("docker"), &["info"]).then_some(()))
}

/// Whether suites that have a short selection are to run whole: `E2E_ALL`.
pub fn everything() -> bool {
    switched_on("E2E_ALL")
}

/// Leave to make hosts as network namespaces of this machine.
pub fn namespaces() -> Option<()> {
    let possible = namespaces::attempt();
    if let Err(error) = &possible {
        eprintln!("no network namespaces: {error:#}");
    }
    met("namespaces", "network namespaces", "be root on Linux, with iproute2", possible.ok())
}

/// The browser to drive: `E2E_CHROMIUM`, else the one on the `PATH`.
pub fn chromium() -> Option<PathBuf> {
    let program = std::env::var_os("E2E_CHROMIUM").map_or_else(|| PathBuf::from("chromium"), PathBuf::from);
    let works = runs(&program, &["--version"]);
    met("chromium", "chromium", "install chromium, or name one in E2E_CHROMIUM", works.then_some(program))
}

/// Prometheus and promtool are on the `PATH`.
pub fn prometheus() -> Option<()> {
    let works = ["prometheus", "promtool"].iter().all(|program| runs(Path::new(program), &["--version"]));
    met("prometheus", "prometheus", "install prometheus, with promtool", works.then_some(()))
}

/// A real HTTP proxy is on the `PATH`.
pub fn tinyproxy() -> Option<()> {
    met("tinyproxy", "tinyproxy", "install tinyproxy", runs(Path::new("tinyproxy"), &["-v"]).then_some(()))
}

/// Whether an environment variable asks for something.
pub(crate) fn switched_on(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

fn met<T>(name: &str, what: &str, how: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        assert!(!required(name), "CI_REQUIRE names {name}, but {what} is missing: {how}");
        eprintln!("SKIPPED: {what}: {how}");
    }
    found
}

fn required(name: &str) -> bool {
    std::env::var("CI_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item.trim() == name))
}

fn runs(program: &Path, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
