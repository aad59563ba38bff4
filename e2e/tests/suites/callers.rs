//! Callers with names: the real kubectl shows a token or a certificate over TLS, and the rules change while it watches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Kubectl, Pair, Scene, Suite, call, product, wait_for};
use serde_json::{Value, json};

use crate::api::config_map;

/// For what takes a program a moment: to notice a changed file, to see a watch end.
const SOON: Duration = Duration::from_secs(20);

/// The callers with which the scene begins: all of loopback, so that the scene itself may ask.
pub(crate) fn at_first() -> String {
    file(&[json!({ "name": "scene", "networks": ["127.0.0.0/8", "::1/128"], "allow": [{ "clusters": ["*"] }] })])
}

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    let certs = scene.dir().join("certs");
    let certificate = [("--client-cert", certs.join("agent.pem")), ("--client-key", certs.join("agent.key"))];
    let Ok(token) = Token::make(scene.dir()) else { panic!("postern-server token makes none") };
    let known = json!({ "name": "token", "tokens": [token.digest], "allow": [{ "clusters": ["edge-1"] }] });
    let certified = json!({ "name": "certificate", "certificates": ["cn:dev agent"], "allow": [{ "clusters": ["edge-*"], "verbs": ["get", "list"] }] });

    suite.step("a token and a certificate that are nobody's are refused", || {
        for credential in [vec![("--token-file", token.path.clone())], certificate.to_vec()] {
            let refused = through(scene, &credential)?.run(&["get", "configmaps"], b"")?;
            ensure!(refused.code == Some(1) && refused.stderr.contains("Forbidden"), "{refused:?}");
        }
        Ok(())
    });
    suite.step("kubectl passes with a token of the callers file", || {
        change(scene, &[known.clone(), certified.clone()])?;
        let kubectl = through(scene, &[("--token-file", token.path.clone())])?;
        wait_for("the token to be good", SOON, || Ok(kubectl.ok(&["get", "configmaps"]).ok()))?;
        kubectl.create(&config_map("by-token", &[])).map(drop)
    });
    suite.step("kubectl passes with a client certificate, and does what its rules say", || {
        let kubectl = through(scene, &certificate)?;
        let listed = kubectl.ok(&["get", "configmaps", "-o", "name"])?;
        ensure!(listed.contains("configmap/by-token"), "{listed}");
        let refused = kubectl.run(&["create", "-f", "-"], config_map("by-certificate", &[]).to_string().as_bytes())?;
        ensure!(refused.code == Some(1) && refused.stderr.contains("may not create"), "{refused:?}");
        Ok(())
    });
    suite.step("a watch ends when its caller is taken out of the file, and others go on", || {
        let args = ["get", "configmaps", "-w", "-o", "name"];
        let mut lost = through(scene, &[("--token-file", token.path.clone())])?.start(scene.dir(), "lost", &args)?;
        let mut kept = scene.through.start(scene.dir(), "kept", &args)?;
        lost.wait_for_line("configmap/by-token", SOON)?;
        kept.wait_for_line("configmap/by-token", SOON)?;
        change(scene, std::slice::from_ref(&certified))?;
        lost.wait_for_exit(SOON)?;
        scene.admin.create(&config_map("after-it", &[]))?;
        kept.wait_for_line("configmap/after-it", SOON).map(drop)
    });
    suite.step("a callers file with mistakes changes nothing", || {
        fs::write(scene.dir().join(Pair::CALLERS_FILE), "callers:\n- name: scene\n  token: x\n")?;
        let told = "callers.yaml:3: callers[0].token: unknown field";
        scene.pair()?.server().wait_for_line(told, SOON)?;
        scene.through.ok(&["get", "configmaps"]).map(drop)
    });
}

struct Token {
    path: PathBuf,
    digest: String,
}

impl Token {
    /// Has the server make one.
    fn make(dir: &Path) -> Result<Self> {
        let mut command = Command::new(product("postern-server")?);
        command.arg("token");
        let text = call(command, b"")?.text();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {text}"))?;
            Ok::<_, anyhow::Error>(line.trim().trim_matches('"').to_owned())
        };
        let path = dir.join("caller.token");
        fs::write(&path, field("token:")?)?;
        Ok(Self { path, digest: field("digest:")? })
    }
}

fn through(scene: &mut Scene, credential: &[(&str, PathBuf)]) -> Result<Kubectl> {
    let program = scene.through.program().to_owned();
    let namespace = scene.namespace().to_owned();
    Ok(scene.pair()?.kubectl_with(&program, credential)?.in_namespace(&namespace))
}

/// Has the callers file say this beside what it said at first.
fn change(scene: &Scene, callers: &[Value]) -> Result<()> {
    let mut all: Value = serde_json::from_str(&at_first())?;
    all["callers"].as_array_mut().context("a list")?.extend_from_slice(callers);
    Ok(fs::write(scene.dir().join(Pair::CALLERS_FILE), all.to_string())?)
}

fn file(callers: &[Value]) -> String {
    json!({ "callers": callers }).to_string()
}
