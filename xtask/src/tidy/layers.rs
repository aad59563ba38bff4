//! Who may know whom: the workspace's crates, and crates that some of them never see.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use crate::workspace::{metadata, root};

/// One crate's place.
struct Layer {
    name: &'static str,
    /// The workspace crates it may depend on.
    may: &'static [&'static str],
    /// Crates from elsewhere that it may not.
    never: &'static [&'static str],
    reason: &'static str,
}

/// Only commands and tests may have errors that nobody can match on.
const LAYERS: [Layer; 9] = [
    Layer {
        name: "host",
        may: &[],
        never: &["kube", "k8s-openapi", "clap", "anyhow"],
        reason: "the door to the operating system stands below everything, so that all of it can be simulated",
    },
    Layer {
        name: "tunnel",
        may: &["host"],
        never: &["kube", "k8s-openapi", "clap", "anyhow"],
        reason: "the wire carries streams; what runs in them and how it is configured is not its business",
    },
    Layer {
        name: "proxy",
        may: &["host"],
        never: &["kube", "k8s-openapi", "tokio-tungstenite", "anyhow"],
        reason: "what both ends share about a request would hold without any tunnel or any Kubernetes client",
    },
    Layer {
        name: "server",
        may: &["host", "tunnel", "proxy"],
        never: &["anyhow"],
        reason: "server and agent meet on the wire alone, or versions could not differ",
    },
    Layer {
        name: "agent",
        may: &["host", "tunnel", "proxy"],
        never: &["anyhow", "kube", "k8s-openapi"],
        reason: "server and agent meet on the wire alone, or versions could not differ; an agent stays small and dumb",
    },
    Layer {
        name: "sim",
        may: &["host", "tunnel", "proxy", "server", "agent", "e2e"],
        never: &[],
        reason: "the world sees the product, and the product never the world; its fake API server is measured against e2e's real one",
    },
    Layer {
        name: "e2e",
        may: &[],
        never: &[],
        reason: "it tests what ships: binaries, images and charts; who links the code tests something else",
    },
    Layer {
        name: "bench",
        may: &["host", "tunnel", "proxy", "server", "agent", "sim"],
        never: &["kube", "k8s-openapi"],
        reason: "it measures the programs as they ship; it links agents to run thousands of them, and the hot paths to count them",
    },
    Layer {
        name: "xtask",
        may: &[],
        never: &["tokio", "kube", "k8s-openapi"],
        reason: "every command waits until it is compiled, so it stays at seconds",
    },
];

pub(crate) fn check() -> Result<Vec<Finding>> {
    judge(&metadata()?, |name| std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap_or_default())
}

fn judge(metadata: &Value, manifest: impl Fn(&str) -> String) -> Result<Vec<Finding>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut found = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let text = manifest(name);
        let line = |word: &str| text.lines().position(|line| line.starts_with(word)).map_or(1, |index| index + 1);
        let mut find = |word: &str, what: String, reason: &'static str, cure: &str| {
            found.push(Finding {
                file: format!("{name}/Cargo.toml"),
                line: line(word),
                rule: "layers",
                what,
                reason,
                cure: cure.into(),
            });
        };
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
            let cure = "give it a place in LAYERS (xtask/src/tidy/layers.rs)";
            find("name", format!("{name} has no place in the table"), "the folder list is the architecture", cure);
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().context("a dependency without a name")?;
            let member = LAYERS.iter().any(|layer| layer.name == on) && dependency["path"].is_string();
            if layer.never.contains(&on) || member && !layer.may.contains(&on) {
                let cure = "move the code that needs it to who may, or turn the knowledge into an argument";
                find(on, format!("{name} depends on {on}"), layer.reason, cure);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whats(package: &Value) -> Vec<String> {
        let found = judge(&json!({ "packages": [package] }), |_| "[package]\n\n[dependencies]\nagent.workspace = true\n".into());
        found.expect("well-formed metadata").into_iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn a_dependency_against_the_direction_is_found_at_its_line() {
        let agent = json!({ "name": "agent", "path": "/src/agent" });
        assert_eq!(whats(&json!({ "name": "server", "dependencies": [agent] })), ["4: server depends on agent"]);
        assert_eq!(whats(&json!({ "name": "sim", "dependencies": [agent] })), [""; 0]);
    }

    #[test]
    fn a_crate_that_is_kept_out_is_found() {
        assert_eq!(whats(&json!({ "name": "tunnel", "dependencies": [{ "name": "kube" }] })), ["1: tunnel depends on kube"]);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(whats(&json!({ "name": "extra", "dependencies": [] })), ["1: extra has no place in the table"]);
    }
}
