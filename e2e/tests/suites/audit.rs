//! What both programs have written down is proved by the programs themselves, whatever ended them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Output, Pair, Scene, Suite, call, get, post, product, wait_for};

/// For what takes a program a moment: to end, to write, to reconnect.
const SOON: Duration = Duration::from_secs(20);

/// Runs all of it.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    suite.step("what kubectl did is in both logs, and each is verified", || both_verified(scene));
    suite.step("a second program does not write the same log", || second_writer(scene.pair()?));
    suite.step("a server killed at work leaves a log that is verified", || killed_at_work(scene.pair()?));
    suite.step("a byte that was changed is found", || tampered(scene.pair()?));
}

/// What takes a disk of one's own.
pub(crate) fn run_on_full_disk(suite: &mut Suite, scene: &mut Scene) {
    suite.step("on a full disk reading goes on, writing does not, and all is written once there is room", || {
        full_disk(scene.pair()?)
    });
}

fn both_verified(scene: &mut Scene) -> Result<()> {
    scene.through.ok(&["get", "namespaces"])?;
    scene.through.raw("/version")?;
    let pair = scene.pair()?;
    // A stop is what both write their last records at.
    let mut agent = pair.take_agent("agent-1")?;
    agent.terminate()?;
    agent.wait_for_exit(SOON)?;
    pair.server().terminate()?;
    pair.server().wait_for_exit(SOON)?;
    let [hub, edge] = ["server", "agent-1"].map(|name| pair.audit_log(name));
    for (program, log, other) in [("postern-server", &hub, &edge), ("postern-agent", &edge, &hub)] {
        let text = fs::read_to_string(log)?;
        ensure!(text.contains("\"resource\":\"namespaces\"") && text.contains("\"path\":\"/version\""), "{text}");
        let output = verify(program, &["--against", path(other)?, "--key", path(&pair.audit_key())?, path(log)?])?;
        ensure!(output.code == Some(0), "{}{}", String::from_utf8_lossy(&output.stdout), output.stderr);
    }
    pair.restart_server()?;
    pair.start_agent("agent-1")
}

fn second_writer(pair: &mut Pair) -> Result<()> {
    let second = pair.start_agent("agent-1").map(drop);
    let why = format!("{:#}", second.err().context("two agents write one log")?);
    ensure!(why.contains("another process"), "{why}");
    Ok(())
}

fn killed_at_work(pair: &mut Pair) -> Result<()> {
    let internal = pair.internal();
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Some of them fail: the server is killed.
                    let _ = get(internal, &Pair::tunnel_path("/version"));
                }
            });
        }
        let log = pair.audit_log("server");
        let began = fs::metadata(&log)?.len();
        let grown = wait_for("records", SOON, || Ok((fs::metadata(&log)?.len() > began + 50_000).then_some(())));
        pair.server().kill();
        done.store(true, Ordering::Relaxed);
        grown
    })?;
    pair.restart_server()?;
    let output = verify_server(pair)?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.code == Some(0) && told.contains("begins behind a crash"), "{told}{}", output.stderr);
    Ok(())
}

fn tampered(pair: &mut Pair) -> Result<()> {
    let rotated = rotated(pair)?;
    let whole = fs::read_to_string(&rotated)?;
    let changed = whole.replacen("\"status\":200", "\"status\":201", 1);
    ensure!(whole != changed, "nothing to change in {}", rotated.display());
    fs::write(&rotated, changed)?;
    let output = verify_server(pair)?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.code == Some(1) && told.contains(": edited: "), "{:?} {told}", output.code);
    fs::write(&rotated, whole)?;
    ensure!(verify_server(pair)?.code == Some(0), "as it was written it is not verified");
    let missing = verify("postern-server", &["/nowhere/audit.log"])?;
    ensure!(missing.code == Some(66), "a missing file ends with {:?}", missing.code);
    let nonsense = verify("postern-server", &["--head", "nonsense", "file"])?;
    ensure!(nonsense.code == Some(64), "a wrong head ends with {:?}", nonsense.code);
    Ok(())
}

fn full_disk(pair: &mut Pair) -> Result<()> {
    pair.server().terminate()?;
    pair.server().wait_for_exit(SOON)?;
    let disk = pair.restart_server_on_small_disk()?;
    let internal = pair.internal();
    wait_for("an answer", SOON, || Ok((get(internal, &Pair::tunnel_path("/version"))?.status == 200).then_some(())))?;
    let filler = disk.join("filler");
    // Until not a byte more goes in.
    let full = (0..).find(|_| append(&filler).is_err());
    ensure!(full.is_some());
    let write = || -> Result<u16> { Ok(post(internal, &Pair::tunnel_path("/api/v1/namespaces"), b"{}")?.status) };
    wait_for("a refusal", SOON, || Ok((write()? == 503).then_some(())))?;
    ensure!(get(internal, &Pair::tunnel_path("/version"))?.status == 200, "reading does not go on");
    fs::remove_file(&filler)?;
    wait_for("room to be noticed", SOON, || Ok((write()? != 503).then_some(())))?;
    let log = fs::read_to_string(disk.join("audit.log"))?;
    ensure!(log.contains("\"label\":\"Unaudited\""), "what was refused is not written");
    let output = verify("postern-server", &[path(&disk.join("audit.log"))?])?;
    ensure!(output.code == Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    pair.server().terminate()?;
    pair.server().wait_for_exit(SOON)?;
    pair.restart_server()
}

/// One byte more.
fn append(path: &PathBuf) -> std::io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(&[0; 512])
}

fn rotated(pair: &Pair) -> Result<PathBuf> {
    let log = pair.audit_log("server");
    let (folder, name) = (log.parent().context("a folder")?, format!("{}.0", log.file_name().context("a name")?.display()));
    let names = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let found = names.into_iter().map(|entry| entry.path()).find(|path| path.display().to_string().contains(&name));
    found.context("no rotated file")
}

fn verify_server(pair: &Pair) -> Result<Output> {
    verify("postern-server", &["--key", path(&pair.audit_key())?, path(&pair.audit_log("server"))?])
}

fn verify(program: &str, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(product(program)?);
    command.args(["audit", "verify"]).args(args);
    call(command, b"")
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
