//! What the documents tell people to type is typed here, and what they quote is looked for where it comes from.
//!
//! Helm renders instead of installing, and kubectl does nothing: there is no cluster. Everything else is as a person would do it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it starts processes and reads files, as the tool beside it"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Stands before `helm` on the path: renders what would be installed, from this tree.
const HELM: &str = r#"#!/bin/sh
set -e
if [ "$1" = --kube-context ]; then shift 2; fi
verb=$1
case $verb in
  install | upgrade) name=$2 chart=$3; shift 3 ;;
  test | rollback | uninstall | get) exit 0 ;;
  *) echo "no such verb: $verb" >&2; exit 1 ;;
esac
case $chart in
  oci://ghcr.io/OWNER/charts/postern-server | charts/server) chart=$ROOT/charts/server ;;
  oci://ghcr.io/OWNER/charts/postern-agent | charts/agent) chart=$ROOT/charts/agent ;;
  argocd-cluster-proxy/*) exit 0 ;;
  *) echo "no such chart: $chart" >&2; exit 1 ;;
esac
for arg do
  shift
  case $arg in --create-namespace | --reuse-values) ;; *) set -- "$@" "$arg" ;; esac
done
KUBECONFIG=/dev/null "$REAL_HELM" template "$name" "$chart" "$@" >> rendered.yaml
echo "$name" >> installed
"#;

/// Stands before `kubectl`: notes what it was asked, and knows the one Deployment that argocd-cluster-proxy's chart makes for the release `proxy-server`.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >> kubectl.log
case "$*" in *"get deployments --selector app.kubernetes.io/instance=proxy-server --output name") echo "deployment.apps/$OLD_NAME" ;; esac
"#;

/// And what it is called: by release and chart.
const OLD_NAME: &str = "proxy-server-argocd-cluster-proxy-server";

/// Stands before all else that needs a cluster.
const NOTHING: &str = "#!/bin/sh\nexit 0\n";

/// A values file of argocd-cluster-proxy, as its README has it.
const SERVER_VALUES: &str = "replicas: 1
pdb: {enabled: true, minAvailable: 0}
resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}
topologySpreadConstraints:
- {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {}}}
clusters: [{id: staging, token: t-1}, {id: production, token: t-2}]
argocd: {enabled: true, namespace: argocd, caData: Y2E=, clientCertData: Yw==, clientKeyData: aw==}
tls: {enabled: true, certSecret: proxy-server-tls, clientCASecret: proxy-ca-keypair}
";

/// And its agent's.
const AGENT_VALUES: &str = r#"replicas: 1
pdb: {enabled: true, minAvailable: 0}
maxRetryInterval: "60s"
serverURL: wss://proxy.management.example.com/connect
token: t-1
tls: {serverCASecret: proxy-server-ca, clientCertSecret: proxy-client-tls}
rbac:
  create: true
  clusterWide: true
  rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch, create, update, patch, delete]}]
"#;

#[test]
fn the_readme_can_be_typed_from_top_to_bottom() {
    let Some(place) = Place::new("readme") else { return };
    let readme = read("README.md");
    place.type_in(&blocks(between(&readme, "## Install in five minutes", "## Argo CD"), "sh"));
    assert_eq!(place.text("installed"), "postern-server\npostern-server\npostern-agent\n");
    let rendered = place.text("rendered.yaml");
    for expected in [
        "hub.example.com",
        "--argocd-client-cert=",
        "secretName: \"postern-ca\"",
        "secretName: \"postern-client-tls\"",
        "--server=wss://hub.example.com:8443/connect",
    ] {
        assert!(rendered.contains(expected), "no {expected} is rendered");
    }
    // What OpenSSL was asked for is what it made.
    let shown = |file: &str| said(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(place.dir.join(file)));
    assert!(shown("hub.crt").contains("DNS:postern-server-internal.postern.svc"));
    assert!(shown("tls.crt").contains("CN = edge-1") || shown("tls.crt").contains("CN=edge-1"));
}

#[test]
fn upgrading_and_migrating_can_be_typed() {
    let Some(place) = Place::new("upgrading") else { return };
    for (file, values) in [
        ("hub.yaml", SERVER_VALUES),
        ("server-values.yaml", SERVER_VALUES),
        ("edge-1.yaml", AGENT_VALUES),
        ("agent-values.yaml", AGENT_VALUES),
    ] {
        fs::write(place.dir.join(file), values).expect("written");
    }
    place.type_in(&blocks(&read("UPGRADING.md"), "sh"));
    place.type_in(&blocks(&read("charts/MIGRATION.md"), "sh"));
    assert_eq!(place.text("installed"), "postern-server\npostern-agent\nproxy-server\npostern-agent\nproxy-server\n");
    for name in ["-internal", "-cluster-staging"].map(|end| format!("  name: \"{OLD_NAME}{end}\"\n")) {
        assert!(place.text("rendered.yaml").contains(&name), "nothing has the {name} that it had");
    }
    // Secrets are handed over to the hub by the name that the chart gives it.
    let log = place.text("kubectl.log");
    let hub = log.split("postern/hub=").nth(1).and_then(|rest| rest.lines().next()).expect("nothing is handed over");
    assert!(place.text("rendered.yaml").contains(&format!("--argocd-hub={hub}\n")), "no hub is called {hub}");
}

#[test]
fn each_thing_that_the_migration_turns_on_renders_beside_the_values_that_were_there() {
    let Some(place) = Place::new("migration") else { return };
    let migration = read("charts/MIGRATION.md");
    let parts = blocks(between(&migration, "## 3. ", "\u{0}"), "yaml");
    assert_eq!(parts.len(), 4, "one for each thing with values");
    for part in parts {
        let (chart, base) = if part.contains("guard:") { ("agent", AGENT_VALUES) } else { ("server", SERVER_VALUES) };
        fs::write(place.dir.join("base.yaml"), base).expect("written");
        fs::write(place.dir.join("part.yaml"), &part).expect("written");
        place.type_in(&[format!("helm upgrade x charts/{chart} --values base.yaml --values part.yaml")]);
    }
}

/// What the troubleshooting table quotes of our own words, each in the crate that says it.
#[test]
fn what_the_readme_says_that_people_see_is_what_the_programs_say() {
    let table = read("README.md");
    let table = between(&table, "## Troubleshooting", "## More");
    for (crate_name, words) in [
        ("agent", "certificate not valid for name"),
        ("agent", "invalid peer certificate"),
        ("agent", "the hub wants a client certificate of a CA that it knows"),
        ("server", "the token is missing or unknown"),
        ("server", "the client certificate is not the one that goes with the token"),
        ("server", "the agent of cluster"),
        ("server", "is offline since"),
        ("server", "there is no cluster"),
        ("server", "see the server's clusters file"),
        ("server", "this is not allowed, or there is no such cluster"),
        ("server", "without the header the request would have the agent's own rights"),
        ("server", "denied:"),
        ("server", "unhealthy"),
    ] {
        assert!(table.contains(words), "the table has no {words:?}");
        assert!(sources(&root().join(crate_name).join("src")).contains(words), "the {crate_name} never says {words:?}");
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for document in [
        "README.md",
        "UPGRADING.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "charts/MIGRATION.md",
        "charts/README.md",
        "ci/README.md",
    ] {
        let text = read(document);
        let folder = Path::new(document).parent().unwrap_or(Path::new("")).to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // Pages of the forge, beside the tree.
            if link.contains("://") || link.starts_with("../../") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { PathBuf::from(document) } else { folder.join(file) };
            let is_there = root().join(&target).exists();
            if !is_there || !anchor.is_empty() && !anchors(&target).iter().any(|heading| heading == anchor) {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A claim without its test would be a mere word.
#[test]
fn every_test_that_a_document_names_is_there() {
    let tests: String = ["sim/tests", "e2e/tests", "host/src", "tunnel/src", "proxy/src", "server/src", "agent/src"]
        .map(|place| sources(&root().join(place)))
        .concat();
    let mut n_named = 0;
    for document in ["UPGRADING.md", "SECURITY.md", "charts/MIGRATION.md"] {
        let text = read(document);
        for word in text.split('`').filter(|word| word.contains("::") && !word.contains(char::is_whitespace)) {
            let name = word.rsplit("::").next().unwrap_or_default();
            // Shorter ones are modules.
            if name.matches('_').count() < 2 {
                continue;
            }
            n_named += 1;
            assert!(tests.contains(&format!("fn {name}(")), "{document} names {word}, which is not there");
        }
    }
    assert!(n_named > 30, "{n_named} are found in documents that name many");
}

/// A folder to type in, with programs that touch no cluster.
struct Place {
    dir: PathBuf,
    helm: PathBuf,
}

impl Place {
    /// None, and a word about it, where Helm or OpenSSL is missing.
    fn new(name: &str) -> Option<Self> {
        let missing = ["helm", "openssl"].into_iter().find(|program| on_path(program).is_none());
        if let Some(program) = missing {
            // Past what libtest keeps to itself while a test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: the commands of the documents: install {program}");
            return None;
        }
        let helm = on_path("helm")?;
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("bin")).expect("a folder");
        for (program, script) in [("helm", HELM), ("kubectl", KUBECTL), ("curl", NOTHING), ("cosign", NOTHING)] {
            let path = dir.join("bin").join(program);
            fs::write(&path, script).expect("written");
            said(Command::new("chmod").arg("+x").arg(&path));
        }
        Some(Self { dir, helm })
    }

    /// Types blocks into one shell, which ends at the first command that fails.
    fn type_in(&self, blocks: &[String]) {
        assert!(!blocks.is_empty(), "there is nothing to type");
        let path = std::env::var("PATH").expect("a path");
        let mut shell = Command::new("sh");
        shell.arg("-eux").arg("-c").arg(blocks.join("\n")).current_dir(&self.dir).stdin(Stdio::null());
        shell.env("PATH", format!("{}:{path}", self.dir.join("bin").display()));
        said(shell.env("ROOT", root()).env("REAL_HELM", &self.helm).env("OLD_NAME", OLD_NAME));
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).expect(document)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What stands between two marks; to the end without the second.
fn between<'a>(text: &'a str, first: &str, second: &str) -> &'a str {
    let (_, rest) = text.split_once(first).expect(first);
    rest.split_once(second).map_or(rest, |(middle, _)| middle)
}

/// The blocks of code in one language, less deep by what they are indented.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() == format!("```{language}") {
            let indent = line.len() - line.trim_start().len();
            let body = lines.by_ref().take_while(|line| line.trim_start() != "```");
            found.push(body.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect());
        }
    }
    found
}

/// The anchors of a document's headings, as forges make them.
fn anchors(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// All Rust under a folder, as one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).expect("text");
        }
    }
    text
}
