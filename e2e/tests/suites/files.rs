//! Bad input of every configuration file: it keeps a program from starting, with one message that says where, and a running
//! one goes on with what was there before and says so in its metrics.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Process, Suite, call, free_addr, get, product, wait_for};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

/// Two looks at a file and a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// What no configuration file is as long as.
const HUGE_BYTES: u64 = 100 << 20;

/// One file of one program.
struct Subject {
    program: &'static str,
    flag: &'static str,
    /// What the metrics call it.
    name: &'static str,
    good: Vec<u8>,
    /// What is wrong, and what must be told of it beside the path.
    bad: Vec<(&'static str, Content, &'static [&'static str])>,
}

/// What lies where the file should.
#[derive(Clone)]
enum Content {
    Bytes(&'static [u8]),
    Nothing,
    Directory,
    Huge,
}

/// What is wrong with any file.
fn unreadable() -> Vec<(&'static str, Content, &'static [&'static str])> {
    vec![
        ("nothing", Content::Nothing, &["No such file"]),
        ("a directory", Content::Directory, &["is a directory"]),
        ("100 MiB", Content::Huge, &["has more than 1048576 bytes"]),
    ]
}

/// What is wrong with a file that should be text.
fn unwritten(more: &[(&'static str, Content, &'static [&'static str])]) -> Vec<(&'static str, Content, &'static [&'static str])> {
    let mut bad = unreadable();
    bad.push(("an empty file", Content::Bytes(b""), &["empty"]));
    bad.push(("no text", Content::Bytes(b"\x7fELF\x02\x01\x01\0\xff\xfe\xfd"), &[]));
    bad.extend_from_slice(more);
    bad
}

fn subjects(pem: &[u8]) -> Vec<Subject> {
    let clusters = unwritten(&[
        ("half a list", Content::Bytes(b"[\n{\"id\": \"edge-1\","), &[":2", "is not JSON"]),
        ("an object for a list", Content::Bytes(b"{}"), &["list"]),
        ("no cluster", Content::Bytes(b"[]"), &["lists no cluster"]),
        (
            "a number for a string",
            Content::Bytes(b"[\n{\"id\": \"edge-1\",\n\"token\": 5}]"),
            &[":3", "[0].token", "is not a string"],
        ),
        ("no token", Content::Bytes(b"[\n{\"id\": \"edge-1\"}]"), &[":2", "[0].token"]),
        (
            "an unknown key in a policy",
            Content::Bytes(b"[{\"id\": \"edge-1\", \"token\": \"t\",\n\"impersonate\": {\"everybody\": []}}]"),
            &[":2", "[0].impersonate", "everybody"],
        ),
        (
            "a name twice",
            Content::Bytes(b"[{\"id\": \"a\", \"token\": \"t\"},\n{\"id\": \"a\", \"token\": \"u\"}]"),
            &[":2", "[1].id"],
        ),
    ]);
    let revoked = unwritten(&[("no fingerprint", Content::Bytes(b"# the lost ones\nlost\n"), &[":2"])]);
    let mut certificate = unreadable();
    certificate.push(("an empty file", Content::Bytes(b""), &["certificate"]));
    certificate.push(("no text", Content::Bytes(b"\x7fELF\xff"), &["certificate"]));
    let mut token = unreadable();
    token.push(("an empty file", Content::Bytes(b""), &[]));
    token.push(("no text", Content::Bytes(b"\xff\xfe"), &["is no text"]));
    let guard = unwritten(&[
        ("an unknown key", Content::Bytes(b"readOnly: true\neverything: true\n"), &[":2", "everything"]),
        ("an unknown key in a rule", Content::Bytes(b"deny:\n- verb: [get]\n"), &[":2", "verb"]),
        ("a word for a switch", Content::Bytes(b"frozen: false\nreadOnly: maybe\n"), &[":2", "readOnly"]),
        ("a word for a list", Content::Bytes(b"deny:\n- verbs: get\n"), &[":2", "deny[0].verbs"]),
        ("a key twice", Content::Bytes(b"exec: true\nexec: false\n"), &[":2", "exec"]),
        ("half a document", Content::Bytes(b"allow:\n- verbs: [get\n"), &[":"]),
    ]);
    let callers = unwritten(&[
        ("an unknown key", Content::Bytes(b"callers: []\neverybody: true\n"), &[":2", "everybody"]),
        ("an unknown key in a caller", Content::Bytes(b"callers:\n- name: argocd\n  token: [t]\n"), &[":3", "callers[0].token"]),
        ("a word for a list", Content::Bytes(b"callers:\n- name: argocd\n  tokens: hush\n"), &[":3", "callers[0].tokens"]),
        ("no network", Content::Bytes(b"callers:\n- name: argocd\n  networks: [\"10.0.0.0/99\"]\n"), &[":3", "networks"]),
        ("half a document", Content::Bytes(b"callers:\n- name: [a\n"), &[":"]),
    ]);
    let subject = |program, flag, name, good: &[u8], bad| Subject { program, flag, name, good: good.to_vec(), bad };
    vec![
        subject("postern-server", "--clusters", "clusters", br#"[{"id": "edge-1", "token": "t"}]"#, clusters),
        subject("postern-server", "--revoked-certs", "revoked-certs", b"# nobody\n", revoked),
        subject("postern-server", "--callers", "callers", b"callers: []\n", callers),
        subject("postern-server", "--tls-cert", "tls", pem, certificate),
        subject("postern-agent", "--token-file", "token", b"of-the-tunnel", token),
        subject("postern-agent", "--guard", "guard", b"readOnly: true\n", guard),
    ]
}

/// Plays all of it.
pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("postern-e2e-").tempdir()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    for (name, content) in [("own.pem", pem.as_bytes()), ("own.key", key.serialize_pem().as_bytes())] {
        fs::write(dir.path().join(name), content)?;
    }
    fs::write(dir.path().join("own.json"), r#"[{"id": "edge-1", "token": "t"}]"#)?;
    fs::write(dir.path().join("own.token"), "of-the-agent")?;
    for subject in subjects(pem.as_bytes()) {
        suite.step(&format!("{} does not start with a bad {}", subject.program, subject.flag), || starts(&subject, &dir));
        suite.step(&format!("{} goes on when {} turns bad", subject.program, subject.flag), || goes_on(&subject, &dir));
    }
    Ok(())
}

/// With each bad content the program ends with 64 and one line about the file.
fn starts(subject: &Subject, dir: &TempDir) -> Result<()> {
    let path = dir.path().join("file");
    for (what, content, told) in &subject.bad {
        put(&path, content)?;
        let output = call(command(subject, dir, SocketAddr::from(([127, 0, 0, 1], 0)))?, b"")?;
        let said = format!("{}{}", output.text(), output.stderr);
        ensure!(output.code == Some(64), "{what}: exit code {:?}: {said}", output.code);
        let place = path.display().to_string();
        let lines: Vec<_> = said.lines().filter(|line| line.contains(&place)).collect();
        ensure!(lines.len() == 1, "{what}: not one message: {said}");
        for word in told.iter().chain([&subject.flag.trim_start_matches('-')]) {
            ensure!(lines[0].contains(word), "{what}: {word:?} is not told: {said}");
        }
    }
    Ok(())
}

/// With each bad content a running program stays ready, says so, and takes the next good content.
fn goes_on(subject: &Subject, dir: &TempDir) -> Result<()> {
    let path = dir.path().join("file");
    put_bytes(&path, &subject.good)?;
    let ops = free_addr()?;
    let mut process = Process::start(dir.path(), subject.name, command(subject, dir, ops)?)?;
    process.wait_until("health", SOON, |_| get(ops, "/healthz").ok().filter(|answer| answer.status == 200))?;
    for ((what, content, told), n_refused) in subject.bad.iter().zip(1..) {
        let heard = process.log().len();
        put(&path, content)?;
        expect_metrics(ops, subject.name, 1, Some(n_refused)).map_err(|error| error.context(*what))?;
        let log = process.log();
        // Whoever else uses the same file has a message of its own.
        let user = format!("\"what\":\"{}\"", subject.name);
        let lines: Vec<_> = log[heard..].lines().filter(|line| line.contains("are refused") && line.contains(&user)).collect();
        ensure!(lines.len() == 1, "{what}: not one message: {lines:?}");
        for word in *told {
            ensure!(lines[0].contains(&json_escaped(word)), "{what}: {word:?} is not told: {lines:?}");
        }
        ensure!(get(ops, "/healthz")?.status == 200, "{what}: it is not well");
        put_bytes(&path, &subject.good)?;
        expect_metrics(ops, subject.name, 0, None).map_err(|error| error.context(*what))?;
    }
    Ok(())
}

fn json_escaped(word: &str) -> String {
    word.replace('"', "\\\"")
}

/// Waits until the metrics tell that the files are stale, or not, and how often they were refused.
fn expect_metrics(ops: SocketAddr, name: &str, stale: u32, n_refused: Option<u32>) -> Result<()> {
    let mut wanted = vec![format!("config_files_stale{{file=\"{name}\"}} {stale}")];
    wanted.extend(n_refused.map(|n| format!("config_files_refused_total{{file=\"{name}\"}} {n}")));
    wait_for(&format!("{wanted:?}"), SOON, || {
        let told = get(ops, "/metrics")?.text();
        Ok(wanted.iter().all(|line| told.lines().any(|told| told == line)).then_some(()))
    })
}

/// The program with the file in question at its place and good ones at all others.
fn command(subject: &Subject, dir: &TempDir, ops: SocketAddr) -> Result<Command> {
    let own = |name: &str| dir.path().join(name);
    let mut command = Command::new(product(subject.program)?);
    let mut give = |flag: &str, path: PathBuf| {
        let path = if flag == subject.flag { own("file") } else { path };
        command.arg(flag).arg(path);
    };
    match subject.program {
        "postern-server" => {
            give("--clusters", own("own.json"));
            give("--tls-cert", own("own.pem"));
            give("--tls-key", own("own.key"));
            give("--tls-client-ca", own("own.pem"));
            if ["--revoked-certs", "--callers"].contains(&subject.flag) {
                give(subject.flag, own("file"));
            }
            command.args(["--addr", "127.0.0.1:0", "--internal-addr", "127.0.0.1:0", "--ops-addr", &ops.to_string()]);
        }
        _ => {
            give("--token-file", own("own.token"));
            give("--sa-token-path", own("own.token"));
            if subject.flag == "--guard" {
                give("--guard", own("file"));
            }
            command.args(["--server", "ws://localhost:1/connect", "--allow-insecure-server", "--plain-target"]);
            command.args(["--target", "localhost:1", "--health-addr", &ops.to_string()]);
        }
    }
    Ok(command)
}

fn put(path: &Path, content: &Content) -> Result<()> {
    match content {
        Content::Bytes(bytes) => put_bytes(path, bytes),
        Content::Nothing => clear(path),
        Content::Directory => {
            clear(path)?;
            Ok(fs::create_dir(path)?)
        }
        Content::Huge => {
            clear(path)?;
            Ok(fs::File::create(path)?.set_len(HUGE_BYTES)?)
        }
    }
}

fn put_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    clear(path)?;
    Ok(fs::write(path, bytes)?)
}

fn clear(path: &Path) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir(path)?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}
