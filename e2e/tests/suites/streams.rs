//! Streams: logs that go on, and connections that change their protocol (exec, attach, port-forward).

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Client, Kind, Kubectl, Process, Scene, Suite, get, wait_for};
use serde_json::{Value, json};

/// For what happens within a second or two: the next line of a log, a shell's answer.
const SOON: Duration = Duration::from_secs(30);

/// A pod starts in two seconds when its image is there; a real registry may be slow.
const POD_MAX: &str = "--timeout=100s";

/// What goes through standard input and back; many times every window and buffer on the way.
const THROUGH_STDIN: usize = 20 << 20;

/// The pod in which all of this happens.
const POD: &str = "talker";

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &Scene) {
    if !suite.must("a pod runs", || start_pod(scene)) {
        return;
    }
    suite.step("logs -f", || logs_follow(scene));
    suite.step("exec gives exit codes and both outputs", || exit_codes(&scene.through));
    suite.step("exec -it", || terminal(scene));
    suite.step("exec -i with 20 MiB through stdin and back", || echo(&scene.through));
    match scene.upstream.kind {
        Kind::Fake => suite.step("exec over WebSocket v5 by a client of our own", || websocket(scene, true)),
        Kind::ApiServer => {}
        Kind::Cluster => on_a_cluster(suite, scene),
    }
}

/// What takes a kubelet and controllers.
fn on_a_cluster(suite: &mut Suite, scene: &Scene) {
    let spdy = scene.through.with_env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
    let spdy = spdy.with_env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
    suite.step("exec over SPDY gives exit codes and both outputs", || exit_codes(&spdy));
    suite.step("exec -i over SPDY with 20 MiB through stdin and back", || echo(&spdy));
    suite.step("exec over WebSocket by a client of our own", || websocket(scene, false));
    suite.step("cp", || copy(scene));
    suite.step("attach", || attach(scene));
    suite.step("port-forward carries HTTP both ways", || port_forward(scene, &scene.through));
    suite.step("port-forward over SPDY carries HTTP both ways", || port_forward(scene, &spdy));
    suite.step("rollout status", || rollout(scene));
}

pub(crate) fn start_pod(scene: &Scene) -> Result<()> {
    // It counts aloud, answers HTTP with a CGI that gives back what it is sent, and repeats what is said to it.
    let script = r#"
        mkdir -p /www/cgi-bin
        printf '#!/bin/sh\necho "Content-Type: text/plain"; echo; echo "posted $CONTENT_LENGTH:"; cat\n' >/www/cgi-bin/back
        chmod +x /www/cgi-bin/back
        dd if=/dev/zero of=/www/zeros bs=1024 count=4096 2>/dev/null
        httpd -p 8080 -h /www
        (i=0; while true; do echo "line $i"; i=$((i+1)); sleep 1; done) &
        while read line; do echo "you said $line"; done
        wait
    "#;
    let command = json!(["sh", "-c", script]);
    scene.through.create(&pod(POD, &command))?;
    scene.through.ok(&["wait", "--for=condition=Ready", &format!("pod/{POD}"), POD_MAX])?;
    Ok(())
}

fn logs_follow(scene: &Scene) -> Result<()> {
    let mut logs = scene.through.start(scene.dir(), "logs", &["logs", "-f", POD])?;
    logs.wait_for_line("line 1", SOON)?;
    // What is said from here on can only arrive by following.
    let so_far = logs.log().lines().count();
    logs.wait_until("two more lines", SOON, |log| (log.lines().count() >= so_far + 2).then_some(()))
}

fn exit_codes(kubectl: &Kubectl) -> Result<()> {
    let output = kubectl.run(&["exec", POD, "--", "sh", "-c", "echo out; no-such-program; exit 7"], b"")?;
    ensure!(output.code == Some(7) && output.text() == "out\n" && output.stderr.contains("not found"), "{output:?}");
    let output = kubectl.run(&["exec", POD, "--", "true"], b"")?;
    ensure!(output.code == Some(0) && output.stdout.is_empty(), "{output:?}");
    let output = kubectl.run(&["exec", POD, "--", "/no/such/program"], b"")?;
    ensure!(!matches!(output.code, Some(0) | None), "{output:?}");
    Ok(())
}

/// kubectl asks for a terminal of its own, which `script` gives it.
fn terminal(scene: &Scene) -> Result<()> {
    let exec = scene.through.command(&["exec", "-it", POD, "--", "sh"]);
    let words = std::iter::once(exec.get_program()).chain(exec.get_args()).map(|word| format!("'{}'", word.to_string_lossy()));
    let mut script = Command::new("script");
    script.args(["-qec", &words.collect::<Vec<_>>().join(" "), "/dev/null"]);
    let mut shell = Process::start(scene.dir(), "terminal", script).context("`script` is part of util-linux")?;
    // The shell's prompt: from there on it is the far terminal that echoes.
    shell.wait_until("a prompt", SOON, |log| (log.contains('#') || log.contains('$')).then_some(()))?;
    // What is typed is echoed with all its spaces; the answer has one.
    shell.send(b"echo said    and    done\n")?;
    shell.wait_for_line("said and done", SOON)?;
    shell.send(b"exit 3\n")?;
    let status = shell.wait_for_exit(SOON)?;
    ensure!(status.code() == Some(3), "{status}: {}", shell.log());
    Ok(())
}

fn echo(kubectl: &Kubectl) -> Result<()> {
    let sent: Vec<u8> = (0..THROUGH_STDIN as u32 / 4).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let output = kubectl.run(&["exec", "-i", POD, "--", "cat"], &sent)?;
    ensure!(output.code == Some(0), "exit code {:?}: {}", output.code, output.stderr);
    ensure!(output.stdout.len() == sent.len(), "{} of {} bytes came back", output.stdout.len(), sent.len());
    ensure!(output.stdout == sent, "as many bytes came back as were sent, but others");
    Ok(())
}

fn websocket(scene: &Scene, must_be_v5: bool) -> Result<()> {
    let client = Client::new(&scene.through)?;
    let v5 = client.exec_speaks_v5(POD)?;
    let direct = Client::new(&scene.admin)?.exec_speaks_v5(POD)?;
    ensure!(v5 == direct && (v5 || !must_be_v5), "WebSocket v5: {v5} through the tunnel, {direct} directly");
    let (said, end) = client.exec(POD, &["sh", "-c", "echo out; exit 7"])?;
    ensure!(said == "out\n", "{said}");
    ensure!(end.as_ref().is_some_and(|end| end.contains('7')), "{end:?}");
    let (_, end) = client.exec(POD, &["true"])?;
    ensure!(end.is_none(), "{end:?}");
    let message: Vec<u8> = (0..32 * 1024_u32).map(|n| (n * 7 + n / 256) as u8).collect();
    client.exec_echoes(POD, &message, 64)
}

fn copy(scene: &Scene) -> Result<()> {
    let (here, back) = (scene.dir().join("copied"), scene.dir().join("copied-back"));
    let bytes: Vec<u8> = (0..1 << 20_u32).map(|n: u32| (n * 31 + n / 256) as u8).collect();
    fs::write(&here, &bytes)?;
    scene.through.ok(&["cp", &here.display().to_string(), &format!("{POD}:/tmp/copied")])?;
    scene.through.ok(&["cp", &format!("{POD}:/tmp/copied"), &back.display().to_string()])?;
    ensure!(fs::read(&back)? == bytes, "the file came back different");
    Ok(())
}

fn attach(scene: &Scene) -> Result<()> {
    let mut attached = scene.through.start(scene.dir(), "attached", &["attach", "-i", POD])?;
    attached.wait_for_line("line ", SOON)?;
    attached.send(b"hello there\n")?;
    attached.wait_for_line("you said hello there", SOON)?;
    Ok(())
}

fn port_forward(scene: &Scene, kubectl: &Kubectl) -> Result<()> {
    let mut forward = kubectl.start(scene.dir(), "port-forward", &["port-forward", POD, ":8080"])?;
    let addr: SocketAddr = forward.wait_until("its port", SOON, |log| {
        let address = log.split("Forwarding from ").nth(1)?.split(" ->").next()?;
        address.parse().ok()
    })?;
    let zeros = get(addr, "/zeros")?;
    ensure!(zeros.status == 200 && zeros.body.len() == 4096 * 1024, "{}: {} bytes", zeros.status, zeros.body.len());
    let body = "0123456789abcdef".repeat(16 * 1024);
    let answer = e2e::post(addr, "/cgi-bin/back", body.as_bytes())?;
    let expected = format!("posted {}:\n{body}", body.len());
    ensure!(answer.text() == expected, "{}: {} bytes of {}", answer.status, answer.body.len(), expected.len());
    let missing = get(addr, "/missing")?;
    ensure!(missing.status == 404, "{}", missing.status);
    drop(forward);
    wait_for("the forwarded port to close", SOON, || Ok(get(addr, "/zeros").is_err().then_some(())))
}

fn rollout(scene: &Scene) -> Result<()> {
    let labels = json!({"app": "rolled"});
    let spec = &pod("rolled", &json!(["sleep", "3600"]))["spec"];
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "rolled"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    });
    let kubectl = &scene.through;
    kubectl.ok_with(&["apply", "-f", "-"], deployment.to_string().as_bytes())?;
    let status = kubectl.ok(&["rollout", "status", "deployment/rolled", POD_MAX])?;
    ensure!(status.contains("successfully rolled out"), "{status}");
    kubectl.ok(&["set", "env", "deployment/rolled", "COLOR=blue"])?;
    let status = kubectl.ok(&["rollout", "status", "deployment/rolled", POD_MAX])?;
    ensure!(status.contains("successfully rolled out"), "{status}");
    Ok(())
}

fn pod(name: &str, command: &Value) -> Value {
    let image = std::env::var("E2E_POD_IMAGE").unwrap_or_else(|_| "busybox:1.37".to_owned());
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            // A shell as the first process ignores SIGTERM: nobody waits for its grace to pass.
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": command, "stdin": true}],
        },
    })
}
