//! What a caller says, what reaches the API server, what it answers and what the caller hears, with the real server and
//! the real agent between them: no bytes of either side end a program, carry a credential across or bend a path.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::{Drain, DrainSwitch, Host, Tasks};
use server::config::clusters;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wires::Wires;

const TUNNEL_TOKEN: &str = "of~the~tunnel";
const OWN_TOKEN: &str = "of~the~agent";
const TARGET: &str = "kubernetes.default.svc:6443";
const TARGET_PORT: u16 = 6443;
const INTERNAL_PORT: u16 = 8080;

/// Longer than a dial and a handshake take, and than any answer to what was said whole. The clock is paused: it jumps
/// when nobody has anything to do.
const WHILE: Duration = Duration::from_secs(5);

/// More than the longest head, and than what follows one here.
const HEARD_MAX: usize = 128 * 1024;

/// What may not reach the API server: the hop's own fields and the caller's.
const FORBIDDEN: [&str; 8] = [
    "cookie",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "impersonate-user",
    "x-remote-user",
];

/// The input up to the first zero byte is what the caller says, the rest what the API server answers.
pub fn check(input: &[u8]) {
    let mut sides = input.splitn(2, |byte| *byte == 0);
    let (said, answer) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
    if [TUNNEL_TOKEN, OWN_TOKEN].iter().any(|token| contains(input, token.as_bytes())) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let scene = runtime.block_on(play(said, answer));
    drop(runtime);
    assert!(scene.panics.is_empty(), "{:?}", scene.panics);
    assert!(!contains(&scene.answered, OWN_TOKEN.as_bytes()), "the agent's token is told to the caller");
    assert!(!contains(&scene.answered, TUNNEL_TOKEN.as_bytes()), "the tunnel's token is told to the caller");
    for heard in &scene.heard {
        assert_request(said, heard);
    }
    assert_answer(&scene.answered);
}

/// What came of it.
struct Scene {
    /// What the API server heard, by connection.
    heard: Vec<Vec<u8>>,
    /// What the caller heard.
    answered: Vec<u8>,
    panics: Vec<String>,
}

async fn play(said: &[u8], answer: &[u8]) -> Scene {
    let wires = Wires::new(&[("token", OWN_TOKEN.as_bytes())]);
    let panics = Arc::new(Mutex::new(Vec::new()));
    let noted = panics.clone();
    let tasks = Tasks::with_panic_hook(move |task, message| lock(&noted).push(format!("{task}: {message}")));
    let host = Host::new(Arc::new(wires.clone()), tasks);
    let heard = Arc::new(Mutex::new(Vec::new()));
    host.spawn("upstream", upstream(host.clone(), answer.to_vec(), heard.clone()));
    let (_switch, drain) = DrainSwitch::new();
    start(&host, &drain);
    tokio::time::sleep(WHILE).await;
    let mut answered = Vec::new();
    let mut caller = wires.dial(INTERNAL_PORT).expect("the front door is open");
    // Who hangs up early has said enough.
    let _ = caller.write_all(said).await;
    let _ = tokio::time::timeout(WHILE, (&mut caller).take(HEARD_MAX as u64).read_to_end(&mut answered)).await;
    drop(caller);
    tokio::time::sleep(WHILE).await;
    let (heard, panics) = (std::mem::take(&mut *lock(&heard)), std::mem::take(&mut *lock(&panics)));
    Scene { heard, answered, panics }
}

/// The programs as they are, in plain text.
fn start(host: &Host, drain: &Drain) {
    let file = format!(r#"[{{"id": "edge-1", "token": "{TUNNEL_TOKEN}", "targetAddr": "{TARGET}"}}]"#);
    let config = server::ServerConfig {
        internal_addr: SocketAddr::from(([0, 0, 0, 0], INTERNAL_PORT)),
        clusters: clusters::parse("FILE", &file).expect("a good file").list,
        // What arrives is what was said.
        probe_interval: None,
        ..server::ServerConfig::default()
    };
    let (server_host, server_drain) = (host.clone(), drain.clone());
    host.spawn("server", async move { server::run(config, server_host, server_drain).await.expect("it starts") });
    let url = "ws://hub:8443/connect".parse().expect("a good URL");
    let mut config = agent::AgentConfig::new(url, secrecy::SecretString::from(TUNNEL_TOKEN));
    config.target = proxy::flags::host_port(TARGET).expect("a good target");
    config.target_tls = agent::config::TargetTls::Plain;
    config.sa_token_path = "token".to_owned();
    let (agent_host, agent_drain) = (host.clone(), drain.clone());
    host.spawn("agent", async move { agent::run(config, agent_host, agent_drain).await.expect("it starts") });
}

/// An API server that answers each head with the same bytes and hangs up.
async fn upstream(host: Host, answer: Vec<u8>, heard: Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = host.listen(SocketAddr::from(([0, 0, 0, 0], TARGET_PORT))).await.expect("a free port");
    while let Ok(mut connection) = listener.accept().await {
        let (answer, heard) = (answer.clone(), heard.clone());
        host.spawn("upstream connection", async move {
            let mut bytes = Vec::new();
            let mut answered = false;
            while bytes.len() < HEARD_MAX && connection.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                if !answered && contains(&bytes, b"\r\n\r\n") {
                    answered = true;
                    let said: io::Result<()> = async { connection.write_all(&answer).await }.await;
                    let _ = said.and(connection.shutdown().await);
                }
            }
            lock(&heard).push(bytes);
        });
    }
}

/// The head of a request at the API server.
fn assert_request(said: &[u8], heard: &[u8]) {
    let Some((line, fields)) = head(heard) else { return };
    let target = line.split(' ').nth(1).expect("a request line has a target");
    assert!(target.starts_with('/') && line.ends_with(" HTTP/1.1"), "{line}");
    assert!(target.len() <= proxy::head::TARGET_BYTES_MAX);
    // HTTP/2 writes its paths in a code of its own. The root may lack its slash.
    let is_h2 = said.starts_with(b"PRI * HTTP/2");
    let as_said = contains(said, target.as_bytes()) || contains(said, &target.as_bytes()[1..]);
    assert!(is_h2 || as_said, "{target} was never asked for");
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    assert_eq!(all("authorization"), [format!("Bearer {OWN_TOKEN}")], "{line}");
    assert_eq!(all("host"), [TARGET], "{line}");
    assert_eq!(all("audit-id").len(), 1, "{line}");
    for name in FORBIDDEN {
        assert!(all(name).is_empty(), "{name} in {line} {fields:?}");
    }
    for (name, _) in &fields {
        let name = name.replace('_', "-");
        assert!(!name.starts_with("impersonate-") && !name.starts_with("x-remote-"), "{name} in {line}");
    }
    let n_lengths = all("content-length").len() + all("transfer-encoding").len();
    assert!(n_lengths <= 1, "a body with two lengths: {line} {fields:?}");
    assert!(all("te").iter().all(|te| *te == "trailers"));
    let upgrades = all("upgrade");
    let known = ["websocket", "spdy/3.1"];
    assert!(upgrades.iter().all(|protocol| known.contains(&protocol.to_ascii_lowercase().as_str())), "{upgrades:?}");
    assert!(upgrades.len() <= 1 && all("connection").iter().all(|c| *c == "Upgrade" && !upgrades.is_empty()), "{fields:?}");
}

/// The head of the caller's first answer.
fn assert_answer(answered: &[u8]) {
    let Some((line, fields)) = head(answered).filter(|(line, _)| line.starts_with("HTTP/1.")) else { return };
    let is_switch = line.contains(" 101 ");
    for (name, value) in &fields {
        let of_the_hop = ["keep-alive", "proxy-authenticate", "proxy-connection", "te"].contains(&name.as_str());
        assert!(!of_the_hop && (name != "upgrade" || is_switch), "{name}: {value} in {line}");
    }
}

/// The first line and the fields of a message that starts here, names in lower case.
fn head(message: &[u8]) -> Option<(String, Vec<(String, String)>)> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(message.get(..end)?).into_owned();
    let (line, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    let field = |field: &str| {
        let (name, value) = field.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some((line.to_owned(), rest.split("\r\n").filter_map(field).collect()))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
