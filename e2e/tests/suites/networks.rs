//! Real networks: a real HTTP proxy with a password, the doctor, and the check of a server's files.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Process, Scene, Suite, free_addr};

/// A proxy starts in no time; a busy machine takes a few seconds.
const SOON: Duration = Duration::from_secs(20);

/// What the proxy wants to know.
const PASSWORD: &str = "end-to-end-proxy-password";

/// Runs what needs a proxy.
pub(crate) fn run(suite: &mut Suite, scene: &mut Scene) {
    let mut proxy = None;
    if !suite.must("a proxy starts", || start_proxy(scene).map(|started| proxy = Some(started))) {
        return;
    }
    let Some((proxy, addr)) = proxy else { return };
    suite.step("an agent behind it serves, and tells nobody the password", || agent(scene, &proxy, addr));
    suite.step("the doctor finds nothing wrong behind it", || doctor_is_content(scene, addr));
    suite.step("the doctor names a wrong password", || wrong_password(scene, addr));
    suite.step("the doctor names a proxy that is none", || no_proxy(scene));
    suite.step("the doctor names a wrong token, a strange CA and a name that is not there", || wrong_hub(scene));
}

/// What RBAC allows, on an API server that has it.
pub(crate) fn rights(suite: &mut Suite, scene: &Scene) {
    suite.step("the doctor says what a service account may do", || all_rights(scene));
    suite.step("the doctor says that a service account may do nothing, and what to bind", || no_rights(scene));
    suite.step("the doctor says that a service account may only read", || read_only(scene));
}

/// What `postern-server check` says of good and bad files.
pub(crate) fn check(suite: &mut Suite, scene: &mut Scene) {
    suite.step("the files of a server that runs are good", || {
        let output = scene.pair()?.check(&[])?;
        ensure!(output.code == Some(0), "{output:?}");
        ensure!(output.text().contains("0 failed"), "{output:?}");
        Ok(())
    });
    suite.step("a bad file is told with its place, and ends with the code of a start", || {
        let bad = scene.dir().join("bad.yaml");
        fs::write(&bad, "callers:\n- name: UPPER\n")?;
        let bad = bad.to_str().context("a path of text")?.to_owned();
        let output = scene.pair()?.check(&["--callers", &bad])?;
        ensure!(output.code == Some(64), "{output:?}");
        ensure!(output.text().contains(&format!("FAIL  --callers {bad}:2: callers[0].name: ")), "{output:?}");
        Ok(())
    });
    suite.step("nothing is bound by a check", || {
        let taken = scene.pair()?.public().to_string();
        let output = scene.pair()?.check(&["--addr", &taken])?;
        ensure!(output.code == Some(0), "{output:?}");
        Ok(())
    });
}

fn start_proxy(scene: &Scene) -> Result<(Process, SocketAddr)> {
    let addr = free_addr()?;
    let config = scene.dir().join("tinyproxy.conf");
    let text = format!(
        "Port {}\nListen {}\nTimeout 600\nMaxClients 20\nLogLevel Info\nBasicAuth edge {PASSWORD}\nDisableViaHeader Yes\n",
        addr.port(),
        addr.ip()
    );
    fs::write(&config, text)?;
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(&config);
    let mut proxy = Process::start(scene.dir(), "tinyproxy", command)?;
    proxy.wait_until("the proxy", SOON, |_| TcpStream::connect(addr).ok())?;
    Ok((proxy, addr))
}

fn credentials(scene: &Scene, name: &str, password: &str) -> Result<String> {
    let path = scene.dir().join(name);
    fs::write(&path, format!("edge:{password}\n"))?;
    Ok(path.to_str().context("a path of text")?.to_owned())
}

fn agent(scene: &mut Scene, proxy: &Process, addr: SocketAddr) -> Result<()> {
    let file = credentials(scene, "proxy.txt", PASSWORD)?;
    let through = scene.through.clone();
    let pair = scene.pair()?;
    let proxy_flag = format!("--https-proxy=http://{addr}");
    pair.start_agent_with("agent-behind", &[&proxy_flag, "--proxy-credentials", &file, "--no-proxy="])?;
    // Only what the proxy leads to is left.
    pair.take_agent("agent-1")?.kill();
    through.raw("/version")?;
    ensure!(proxy.log().contains("CONNECT localhost:"), "{}", proxy.log());
    let log = pair.agent("agent-behind")?.log();
    ensure!(log.contains(&format!("the hub is dialled through the proxy http://{addr}")), "{log}");
    ensure!(!log.contains(PASSWORD), "{log}");
    Ok(())
}

fn doctor_is_content(scene: &mut Scene, addr: SocketAddr) -> Result<()> {
    let file = credentials(scene, "proxy.txt", PASSWORD)?;
    let output =
        scene.pair()?.doctor(&[&format!("--https-proxy=http://{addr}"), "--proxy-credentials", &file, "--idle-up-to=10s"])?;
    let text = output.text();
    ensure!(output.code == Some(0), "{output:?}");
    for said in
        ["ok    proxy", "leads on", "ok    TLS", "ok    clock", "ok    token", "ok    WebSocket", "Mbit/s", "ok    idle time"]
    {
        ensure!(text.contains(said), "{said} is not in {text}");
    }
    ensure!(!text.contains(PASSWORD) && !text.contains(e2e::TUNNEL_TOKEN), "{text}");
    // The agent that runs was not disturbed.
    scene.through.raw("/version").map(drop)
}

fn wrong_password(scene: &mut Scene, addr: SocketAddr) -> Result<()> {
    let file = credentials(scene, "wrong.txt", "nonsense")?;
    fails(scene, &[&format!("--https-proxy=http://{addr}"), "--proxy-credentials", &file], "proxy", "--proxy-credentials")?;
    Ok(())
}

fn no_proxy(scene: &mut Scene) -> Result<()> {
    let nobody = free_addr()?;
    fails(scene, &[&format!("--https-proxy=http://{nobody}")], "proxy", "look whether the proxy runs")?;
    let internal = scene.pair()?.internal();
    fails(scene, &[&format!("--https-proxy=http://{internal}")], "proxy", "takes no CONNECT")
}

fn wrong_hub(scene: &mut Scene) -> Result<()> {
    let token = scene.dir().join("wrong.token");
    fs::write(&token, "nonsense")?;
    let token = token.to_str().context("a path of text")?.to_owned();
    let pair = scene.pair()?;
    let port = pair.public().port();
    let output = pair.doctor_but(&["token-file"], &["--token-file", &token])?;
    said(&output, "token", "the token of this cluster's entry")?;
    let output = pair.doctor_but(&["server-ca-cert"], &[])?;
    said(&output, "TLS", "which is not one of the machine's own roots")?;
    let output = pair.doctor_but(&["server"], &["--server", &format!("wss://no-such-host.invalid:{port}/connect")])?;
    said(&output, "DNS", "does not know no-such-host.invalid")
}

fn fails(scene: &mut Scene, flags: &[&str], step: &str, fix: &str) -> Result<()> {
    said(&scene.pair()?.doctor(flags)?, step, fix)
}

/// The doctor failed in this step, and its fix has these words.
fn said(output: &e2e::Output, step: &str, fix: &str) -> Result<()> {
    let text = output.text();
    ensure!(output.code == Some(1), "{output:?}");
    ensure!(text.contains(&format!("FAIL  {step} ")) && text.contains(fix), "{text}");
    Ok(())
}

fn all_rights(scene: &Scene) -> Result<()> {
    let pair = scene.pair.as_ref().context("no pair")?;
    let output = pair.doctor(&[])?;
    let text = output.text();
    ensure!(output.code == Some(0), "{text}");
    ensure!(text.contains("ok    RBAC") && text.contains("everything         yes"), "{text}");
    Ok(())
}

fn no_rights(scene: &Scene) -> Result<()> {
    let (pair, token) = (scene.pair.as_ref().context("no pair")?, account(scene, "nobody")?);
    let output = pair.doctor_but(&["sa-token-path"], &["--sa-token-path", &token])?;
    let text = output.text();
    // Roles in single namespaces may allow what is not asked for here.
    ensure!(output.code == Some(0), "{text}");
    ensure!(text.contains("warn  RBAC") && text.contains("bind a ClusterRole to it"), "{text}");
    Ok(())
}

fn read_only(scene: &Scene) -> Result<()> {
    let (pair, token) = (scene.pair.as_ref().context("no pair")?, account(scene, "reader")?);
    let who = format!("--serviceaccount={}:reader", scene.namespace());
    scene.admin.ok(&["create", "clusterrole", "read-all", "--verb=get,list,watch", "--resource=*.*"])?;
    scene.admin.ok(&["create", "clusterrolebinding", "read-all", "--clusterrole=read-all", &who])?;
    let output = pair.doctor_but(&["sa-token-path"], &["--sa-token-path", &token]);
    scene.admin.ok(&["delete", "clusterrolebinding/read-all", "clusterrole/read-all"])?;
    let text = output?.text();
    ensure!(text.contains("warn  RBAC") && text.contains("read everything    yes"), "{text}");
    ensure!(text.contains("can show this cluster and not sync it"), "{text}");
    Ok(())
}

/// A service account without rights; the file with its token.
fn account(scene: &Scene, name: &str) -> Result<String> {
    scene.admin.ok(&["create", "serviceaccount", name])?;
    let token = scene.admin.ok(&["create", "token", name])?;
    let path = scene.dir().join(format!("{name}.token"));
    fs::write(&path, token)?;
    Ok(path.to_str().context("a path of text")?.to_owned())
}
