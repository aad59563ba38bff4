//! The life of both programs: agents and servers that end and come back while callers go on, and starts that are refused.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Answer, CLUSTER_ID, Kubectl, Pair, Process, Scene, Suite, call, free_addr, get, get_within, product, wait_for};
use serde_json::json;

use crate::api::config_map;

/// For what takes a program a moment: to start, to reconnect, to notice.
const SOON: Duration = Duration::from_secs(20);

/// How long the slow answer of the drain goes on; shorter than any sensible grace.
const SLOW_SECONDS: u32 = 4;

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    suite.step("metrics tell of a connected agent", || connected(scene.pair()?.internal(), 1));
    suite.step("health is told by an exit code, as the exec probe of a container takes it", || health(scene.pair()?.internal()));
    suite.step("a second agent comes and goes and requests go on", || second_agent(scene.pair()?));
    suite.step("a request waits for a killed agent to come back", || killed_agent(scene.pair()?));
    suite.step("a server that is told to end finishes what runs", || drain(scene));
    suite.step("an agent finds a server that was killed and came back", || killed_server(scene.pair()?));
    suite.step("bad configuration ends with 64 and names file and key", || bad_configuration(scene));
}

fn health(internal: SocketAddr) -> Result<()> {
    let (at, nobody) = (internal.to_string(), free_addr()?.to_string());
    let through = |cluster| format!("http://{at}/tunnel/{cluster}/version");
    let (there, nowhere) = (through(CLUSTER_ID), through("nowhere"));
    let expected: [(&[&str], i32, &str); 6] = [
        (&["--internal-addr", &at], 0, "/healthz: 200 OK: ok"),
        (&["--ready", "--internal-addr", &at], 0, "/readyz/self: 200 OK: ok"),
        (&["--url", &there], 0, "gitVersion"),
        (&["--url", &nowhere], 1, "502 Bad Gateway"),
        (&["--ready", "--internal-addr", &nobody], 1, "cannot be reached"),
        (&["--readyz"], 64, "--ready"),
    ];
    for (args, code, words) in expected {
        let mut command = Command::new(product("postern-server")?);
        command.arg("health").args(args);
        let output = call(command, b"")?;
        ensure!(output.code == Some(code), "{args:?}: {output:?}");
        ensure!(format!("{}{}", output.text(), output.stderr).contains(words), "{args:?}: {output:?}");
    }
    Ok(())
}

fn second_agent(pair: &mut Pair) -> Result<()> {
    let internal = pair.internal();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| call_until(&done, internal));
        let result = (0..5).try_for_each(|_| -> Result<()> {
            pair.start_agent("agent-2")?;
            connected(internal, 2)?;
            end_gracefully(pair.take_agent("agent-2")?)?;
            connected(internal, 1)
        });
        done.store(true, Ordering::Relaxed);
        let answered = caller.join().unwrap_or_else(|_| bail!("the caller panicked"));
        result.and(answered)
    })
}

/// One request after the other; none may fail.
fn call_until(done: &AtomicBool, internal: SocketAddr) -> Result<()> {
    let mut n = 0;
    while !done.load(Ordering::Relaxed) {
        let answer = version(internal).with_context(|| format!("request {n}"))?;
        ensure!(answer.status == 200, "request {n}: {}: {}", answer.status, answer.text());
        n += 1;
    }
    ensure!(n > 0, "no request was made");
    Ok(())
}

fn killed_agent(pair: &mut Pair) -> Result<()> {
    let internal = pair.internal();
    // Dropping a process kills it.
    drop(pair.take_agent("agent-1")?);
    connected(internal, 0)?;
    let (answered, answer) = mpsc::channel();
    let caller = thread::spawn(move || answered.send(version(internal)));
    // Half a second of silence is not a refusal, which would come at once.
    ensure!(answer.recv_timeout(Duration::from_millis(500)).is_err(), "answered while no agent was there");
    pair.start_agent("agent-1")?;
    let answer = answer.recv_timeout(SOON).context("the parked request was never answered")??;
    ensure!(answer.status == 200, "the parked request: {}: {}", answer.status, answer.text());
    ensure!(caller.join().is_ok(), "the caller panicked");
    ensure!(version(internal)?.status == 200, "a request after it failed");
    Ok(())
}

fn drain(scene: &mut Scene) -> Result<()> {
    let (through, admin, dir) = (scene.through.clone(), scene.admin.clone(), scene.dir().to_owned());
    admin.create(&config_map("before", &[]))?;
    let mut slow = slow_watch(&through, &dir)?;
    slow.wait_for_line("\"before\"", SOON)?;
    let pair = scene.pair()?;
    pair.server().terminate()?;
    // A caller that comes now must hear so, not hang.
    wait_for("new callers to be turned away", Duration::from_secs(2), || Ok(turned_away(pair.internal()).then_some(())))?;
    admin.create(&config_map("meanwhile", &[]))?;
    slow.wait_for_line("\"meanwhile\"", SOON)?;
    let status = slow.wait_for_exit(SOON)?;
    ensure!(status.success(), "the slow answer was cut off: {}", slow.log());
    let status = pair.server().wait_for_exit(SOON)?;
    ensure!(status.code() == Some(0), "the server's end: {status}");
    pair.restart_server()?;
    connected(pair.internal(), 1)?;
    ensure!(version(pair.internal())?.status == 200, "no answer from the restarted server");
    Ok(())
}

/// A watch that ends by itself, so that its end shows whether it is whole.
fn slow_watch(through: &Kubectl, dir: &Path) -> Result<Process> {
    let home = format!("/api/v1/namespaces/{}/configmaps", through.namespace());
    let path = Pair::tunnel_path(&format!("{home}?watch=1&timeoutSeconds={SLOW_SECONDS}"));
    through.start(dir, "slow", &["get", "--raw", &path])
}

fn killed_server(pair: &mut Pair) -> Result<()> {
    pair.server().kill();
    pair.restart_server()?;
    connected(pair.internal(), 1)?;
    ensure!(version(pair.internal())?.status == 200, "no answer from the restarted server");
    Ok(())
}

fn bad_configuration(scene: &Scene) -> Result<()> {
    let dir = scene.dir();
    let file = |name: &str, content: &str| -> Result<String> {
        let path = dir.join(name);
        fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let missing = dir.join("missing.json").display().to_string();
    let malformed = file("malformed.json", "[{\"id\": \"edge-1\",")?;
    let one = json!({"id": CLUSTER_ID, "token": "t", "targetAddr": "127.0.0.1:6443"});
    let twice = file("twice.json", &json!([one, one]).to_string())?;
    let good = file("good.json", &json!([one]).to_string())?;
    let no_pem = file("no.pem", "this is no certificate")?;
    for (clusters, told) in [(&missing, "clusters"), (&malformed, "clusters"), (&twice, CLUSTER_ID)] {
        refuses_to_start("postern-server", &["--clusters", clusters], &[clusters, told])?;
    }
    refuses_to_start(
        "postern-server",
        &["--clusters", &good, "--tls-cert", &no_pem, "--tls-key", &no_pem],
        &["tls-cert", &no_pem],
    )?;
    let agent = ["--server", "wss://localhost:1/connect", "--token", "t"];
    let no_ca = dir.join("missing.pem").display().to_string();
    refuses_to_start("postern-agent", &[&agent[..], &["--ca-cert", &no_ca]].concat(), &["ca-cert", &no_ca])?;
    refuses_to_start("postern-agent", &["--server", "not a url", "--token", "t"], &["server"])
}

fn refuses_to_start(program: &str, args: &[&str], told: &[&str]) -> Result<()> {
    // Every listener on a port of its own choice, should it start after all.
    let listeners = match program {
        "postern-server" => ["--addr", "127.0.0.1:0", "--internal-addr", "127.0.0.1:0"].as_slice(),
        _ => &["--health-addr", "127.0.0.1:0"],
    };
    let mut command = Command::new(product(program)?);
    command.args(args).args(listeners);
    let output = call(command, b"")?;
    let said = format!("{}{}", output.text(), output.stderr);
    ensure!(output.code == Some(64), "{program} {args:?}: exit code {:?}: {said}", output.code);
    for word in told {
        ensure!(said.contains(word), "{program} {args:?} does not name {word}: {said}");
    }
    Ok(())
}

fn end_gracefully(mut agent: Process) -> Result<()> {
    agent.terminate()?;
    let status = agent.wait_for_exit(SOON)?;
    ensure!(status.code() == Some(0), "the agent's end: {status}: {}", agent.log_tail(20));
    Ok(())
}

/// Waits until the server's metrics count `n_agents`.
fn connected(internal: SocketAddr, n_agents: u32) -> Result<()> {
    let line = format!("agents_connected {n_agents}");
    let counted = || Ok(get(internal, "/metrics")?.text().lines().any(|told| told == line).then_some(()));
    wait_for(&format!("{line:?} in the metrics"), SOON, counted)
}

fn version(internal: SocketAddr) -> Result<Answer> {
    get(internal, &Pair::tunnel_path("/version"))
}

fn turned_away(internal: SocketAddr) -> bool {
    let answer = get_within(internal, &Pair::tunnel_path("/version"), Duration::from_secs(1));
    answer.map_or_else(|_| TcpStream::connect(internal).is_err(), |answer| answer.status == 503)
}
