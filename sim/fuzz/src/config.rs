//! The command lines and files of both programs: no text ends a parser, what is accepted means what it says, and no
//! mistake tells a secret.

use std::sync::Arc;

use agent::config::TunnelToken;
use host::{Host, Tasks};
use proxy::flags::{self, ConfigError, Mistakes};
use proxy::program::Command;
use secrecy::ExposeSecret;
use server::config::clusters;

use super::wires::Wires;

/// The token of every command line here. No input says it by itself.
const SECRET: &str = "hush~hush~hush";

/// The first byte says which parser, the rest is its text.
pub fn check(input: &[u8]) {
    let (kind, text) = input
        .split_first()
        .map_or((0, String::new()), |(kind, rest)| (*kind, String::from_utf8_lossy(rest).replace(SECRET, "hush")));
    if let Some(policy) = Policy::of(kind) {
        return check_policy(policy, &text);
    }
    match kind % 8 {
        0 => check_readers(&text),
        1 | 2 => check_clusters(&text),
        3 => {
            let secret = |line: &str| if line.starts_with("--token=") { format!("--token={SECRET}") } else { line.to_owned() };
            check_agent(text.lines().map(secret), None);
        }
        4 => check_agent(text.lines().map(str::to_owned), Some(SECRET)),
        5 => check_server(&text, true),
        6 => check_server(&text, false),
        _ => check_url(&text),
    }
}

fn check_readers(text: &str) {
    if let Ok(duration) = flags::duration(text) {
        let again = format!("{}s{}ns", duration.as_secs(), duration.subsec_nanos());
        assert_eq!(flags::duration(&again), Ok(duration), "{text:?}");
    }
    if let Ok(bytes) = flags::size(text) {
        assert_eq!(flags::size(&bytes.to_string()), Ok(bytes), "{text:?}");
    }
    if let Ok(addr) = flags::address(text) {
        assert_eq!(flags::address(&addr.to_string()), Ok(addr), "{text:?}");
    }
    if let Ok(place) = flags::host_port(text) {
        assert!(place.port > 0 && !place.host.is_empty());
        assert_eq!(flags::host_port(&place.to_string()), Ok(place), "{text:?}");
    }
    if let Ok(n) = flags::positive(text) {
        assert!(n > 0 && flags::positive(&n.to_string()) == Ok(n), "{text:?}");
    }
    match flags::secret(text) {
        Ok(secret) => {
            assert_eq!(secret.expose_secret(), text.trim());
            http::HeaderValue::from_str(secret.expose_secret()).expect("it can stand in a header");
        }
        Err(problem) => assert!(text.len() < 8 || !problem.contains(text), "{problem}"),
    }
}

fn check_url(text: &str) {
    if let Ok(url) = text.parse::<agent::config::ServerUrl>() {
        assert!(url.port > 0 && !url.host.is_empty() && !text.contains('@') | url.path.contains('@'), "{text:?}");
        assert_eq!(url.to_string().parse(), Ok(url), "{text:?}");
    }
}

fn check_clusters(text: &str) {
    match clusters::parse("FILE", text) {
        Ok(accepted) => {
            assert!(!accepted.list.is_empty() && text.len() <= host::FILE_BYTES_MAX);
            assert_tells_nothing(&format!("{accepted:?}"), text);
            for (index, cluster) in accepted.list.iter().enumerate() {
                assert_eq!(cluster.id.as_str().parse().as_ref(), Ok(&cluster.id));
                assert!(!cluster.route.is_empty() && !cluster.route.contains('/'));
                assert!(flags::host_port(&cluster.target_addr).is_ok(), "{}", cluster.target_addr);
                for other in &accepted.list[..index] {
                    assert!(cluster.id != other.id && cluster.route != other.route, "two of one name: {text}");
                    let same = cluster.tokens.iter().any(|token| other.tokens.contains(token));
                    assert!(!same, "two with one token: {text}");
                }
            }
        }
        Err(errors) => assert_tells_nothing(&told(&errors), text),
    }
}

/// No text of a `token` is in `told`, unless it stands elsewhere in the file too.
fn assert_tells_nothing(told: &str, file: &str) {
    let Ok(serde_json::Value::Array(entries)) = serde_json::from_str(file) else { return };
    let (mut tokens, mut others) = (Vec::new(), String::from("FILE"));
    for (key, value) in entries.iter().filter_map(serde_json::Value::as_object).flatten() {
        match value.as_str() {
            Some(text) if key.eq_ignore_ascii_case("token") => tokens.push(text.to_owned()),
            Some(_) | None => others += &format!("{key} {value} {key:?} {value:?}"),
        }
    }
    for token in tokens.into_iter().filter(|token| token.len() >= 8 && !others.contains(token.as_str())) {
        // Long ones alone: our own words have short parts in common with anything.
        let ours = "is not a host and port such as kubernetes.default.svc:443, ClusterConfig route target_addr certificates";
        assert!(!told.contains(token.as_str()) || ours.contains(token.as_str()), "{token:?} is told: {told}");
    }
}

fn check_agent(args: impl Iterator<Item = String>, token: Option<&str>) {
    let env = |name: &str| (name == "TOKEN").then(|| token.map(str::to_owned)).flatten();
    match agent::cli::parse(args, &env, &host("")) {
        Ok(Command::Run { config, warnings }) => {
            assert!(!format!("{config:?} {warnings:?}").contains(SECRET), "the token is told");
            assert!(config.streams_max > 0 && config.session_budget <= config.process_budget);
            assert!(matches!(&config.token, TunnelToken::Fixed(token) if !token.expose_secret().is_empty()));
        }
        Ok(Command::Print(text)) => assert!(!text.contains(SECRET)),
        Err(errors) => drop(told(&errors)),
    }
}

fn check_server(text: &str, by_env: bool) {
    let (args, file) = text.split_once('\0').unwrap_or((text, r#"[{"id": "edge-1", "token": "hush~hush~hush"}]"#));
    let env = |name: &str| (by_env && name == "CLUSTERS").then(|| file.to_owned());
    let args = args.lines().map(str::to_owned).chain((!by_env).then(|| "--clusters=clusters.json".to_owned()));
    match server::cli::parse(args, &env, &host(file)) {
        Ok(Command::Run { config, warnings }) => {
            assert!(!format!("{config:?} {warnings:?}").contains(SECRET), "a token is told");
            assert!(!config.clusters.is_empty() && config.streams_max > 0);
            assert!(config.session_budget <= config.process_budget);
        }
        Ok(Command::Print(text)) => assert!(!text.contains(SECRET)),
        Err(errors) => drop(told(&errors)),
    }
}

/// A file of rules, which is YAML.
#[derive(Clone, Copy)]
enum Policy {
    Guard,
    Callers,
}

impl Policy {
    /// The last bytes, which no other parser needs.
    fn of(kind: u8) -> Option<Self> {
        match kind {
            0xf0..=0xf7 => Some(Self::Guard),
            0xf8..=0xff => Some(Self::Callers),
            _ => None,
        }
    }
}

fn check_policy(policy: Policy, text: &str) {
    let host = host_with(text, r#"[{"id": "edge-1", "token": "hush~hush~hush"}]"#);
    let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let (errors, key) = match policy {
        Policy::Guard => {
            let args = args(&["--server=wss://hub/connect", "--token=hush~hush~hush", "--plain-target", "--guard=policy.yaml"]);
            (agent::cli::parse(args, &|_| None, &host).err(), "--guard policy.yaml")
        }
        Policy::Callers => {
            let args = args(&["--clusters=clusters.json", "--callers=policy.yaml"]);
            (server::cli::parse(args, &|_| None, &host).err(), "--callers policy.yaml")
        }
    };
    for error in errors.unwrap_or_default() {
        told(std::slice::from_ref(&error));
        assert!(error.key.starts_with(key), "{error} names no {key}");
    }
}

fn told(errors: &[ConfigError]) -> String {
    assert!(!errors.is_empty(), "a no without a reason");
    let told = Mistakes(errors).to_string();
    assert!(!told.contains(SECRET), "a token is told: {told}");
    told
}

fn host(file: &str) -> Host {
    host_with("", file)
}

fn host_with(policy: &str, clusters: &str) -> Host {
    let files: &[(&str, &[u8])] =
        &[("clusters.json", clusters.as_bytes()), ("policy.yaml", policy.as_bytes()), ("there.pem", b"x")];
    Host::new(Arc::new(Wires::new(files)), Tasks::new())
}
