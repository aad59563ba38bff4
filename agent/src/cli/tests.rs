//! The command line of the agent, over a host with nothing but files.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use host::{BoxFuture, Connection, Listen, System, Tasks};
use proxy::flags::Mistakes;
use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::config::{ProxyCredentials, Way};

const NEEDED: [&str; 2] = ["-server=wss://hub.example/connect", "-token=hush"];
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[test]
fn the_defaults_of_the_table_are_the_defaults_of_the_config() {
    let (config, warnings) = run(&NEEDED, &[]).expect("good");
    let expected = AgentConfig::new("wss://hub.example".parse().expect("a URL"), SecretString::from("hush"));
    assert_eq!(format!("{config:#?}"), format!("{expected:#?}"));
    assert_eq!(warnings, [""; 0]);
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn every_flag_of_the_first_proxy_is_taken_in_go_spelling() {
    let args = [
        "-server=ws://localhost:8443/connect",
        "-allow-insecure-server",
        "-target",
        "127.0.0.1:6443",
        "-ca-cert=ca.pem",
        "-sa-token-path=ca.pem",
        "-server-ca-cert=ca.pem",
        "-client-cert=ca.pem",
        "-client-key=ca.pem",
        "-max-retry=5s",
        "-max-conns=7",
        "-health-addr=",
        "-log-level=warn",
        "-insecure=false",
        "-plain-target=false",
    ];
    let (config, warnings) = run(&args, &[("TOKEN", "hush\n")]).expect("good");
    assert_eq!((config.server.tls, config.server.port), (false, 8443));
    assert!(matches!(&config.token, TunnelToken::Fixed(token) if token.expose_secret() == "hush"));
    assert_eq!(config.target.to_string(), "127.0.0.1:6443");
    assert_eq!(config.target_tls, TargetTls::Verified { ca_cert: "ca.pem".into() });
    assert_eq!(config.client_identity, Some(ClientIdentity { cert: "ca.pem".into(), key: "ca.pem".into() }));
    assert_eq!((config.retry_max, config.streams_max, config.health_addr), (Duration::from_secs(5), 7, None));
    assert_eq!(warnings, ["the hub is dialled without TLS: the network sees the token and all traffic"]);
}

#[test]
fn the_environment_names_the_hub_and_the_token() {
    let env = [("SERVER_URL", "wss://other.example"), ("TOKEN", "from-env")];
    assert_eq!(run(&[], &env).expect("good").0.server.host, "other.example");
    assert_eq!(run(&NEEDED, &env).expect("good").0.server.host, "hub.example");
}

#[test]
fn a_target_without_verification_needs_no_ca() {
    for (flag, expected) in [("-plain-target", TargetTls::Plain), ("-insecure", TargetTls::Unverified)] {
        let config = run(&[NEEDED[0], NEEDED[1], "-ca-cert=gone.pem", flag], &[]).expect("good").0;
        assert_eq!(config.target_tls, expected);
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let args = [
        "-server=https://hub.example",
        "-ca-cert=gone.pem",
        "-client-cert=gone.pem",
        "-target=kubernetes",
        "-max-retry=soon",
        "-max-conns=-1",
        "-health-addr=8081",
        "-session-budget=1GiB",
        "-insecure=perhaps",
        "-verbose",
    ];
    insta::assert_snapshot!("mistakes", Mistakes(&run(&args, &[]).expect_err("mistakes")));
}

#[test]
fn a_plain_hub_must_be_allowed() {
    let errors = run(&["-server=ws://hub.example", "-token=hush"], &[]).expect_err("plain");
    assert_eq!(errors[0].to_string(), "--server: ws:// is not encrypted; use wss://, or allow it with --allow-insecure-server");
}

#[test]
fn a_proxy_is_taken_from_the_flag_then_from_either_spelling_of_the_environment() {
    let upper = ("HTTPS_PROXY", "http://upper:3128");
    let lower = ("https_proxy", "lower:3128");
    for (args, env, expected) in [
        (&[][..], &[][..], None),
        (&[], &[lower], Some("http://lower:3128")),
        (&[], &[lower, upper], Some("http://upper:3128")),
        (&[], &[lower, ("HTTPS_PROXY", "")], Some("http://lower:3128")),
        (&["-https-proxy=https://flag"], &[upper], Some("https://flag:443")),
        (&["-https-proxy="], &[upper], None),
        (&[], &[upper, ("NO_PROXY", "example")], None),
        (&[], &[upper, ("no_proxy", "*")], None),
        (&["-no-proxy=other"], &[upper, ("no_proxy", "*")], Some("http://upper:3128")),
        (&["-https-proxy=flag:1", "-no-proxy=.example"], &[], None),
        (&["-server=ws://hub", "-allow-insecure-server"], &[upper], None),
        (&["-server=wss://127.0.0.1"], &[upper], None),
        (&["-server=wss://localhost", "-https-proxy=flag:1"], &[], Some("http://flag:1")),
    ] {
        let needed = if args.iter().any(|arg| arg.starts_with("-server")) { &NEEDED[1..] } else { &NEEDED[..] };
        let config = run(&[needed, args].concat(), env).expect("good").0;
        assert_eq!(config.way.proxy().map(ToString::to_string).as_deref(), expected, "{args:?} {env:?}");
    }
}

#[test]
fn a_proxys_password_comes_from_the_url_or_from_a_file_and_is_never_shown() {
    let (config, warnings) = run(&[NEEDED[0], NEEDED[1], "-https-proxy=http://user:hush@proxy:1"], &[]).expect("good");
    assert!(warnings[0].starts_with("--https-proxy has a password, which all users of this machine see"), "{warnings:?}");
    assert!(warnings[1].starts_with("the proxy's password crosses the network in clear text"), "{warnings:?}");
    assert!(!format!("{config:?}{warnings:?}").contains("hush"));

    let env = [("HTTPS_PROXY", "https://user:hush@proxy:1")];
    assert_eq!(run(&NEEDED, &env).expect("good").1, [""; 0]);

    let args = [NEEDED[0], NEEDED[1], "-https-proxy=https://proxy:1", "-proxy-credentials=proxy.txt", "-proxy-ca-cert=ca.pem"];
    let config = run(&args, &[]).expect("good").0;
    let Way::Proxy(proxy) = &config.way else { panic!("{config:?}") };
    assert!(matches!(&proxy.credentials, ProxyCredentials::File(path) if path == "proxy.txt"), "{proxy:?}");
    assert_eq!(proxy.ca_cert.as_deref(), Some("ca.pem"));
}

#[test]
fn mistakes_about_the_way_to_the_hub_are_told_and_no_password_with_them() {
    for (args, expected) in [
        (&["-https-proxy=socks5://u:hush@proxy"][..], "--https-proxy: is a SOCKS proxy, which is not supported"),
        (&["-server=ws://hub", "-allow-insecure-server", "-https-proxy=proxy:1"], "--https-proxy: is for wss:// only"),
        (&["-https-proxy=u:hush@proxy:1", "-proxy-credentials=proxy.txt"], "--proxy-credentials: says the same as the URL"),
        (&["-https-proxy=proxy:1", "-proxy-credentials=ca.pem"], "--proxy-credentials: ca.pem has no colon"),
        (&["-https-proxy=proxy:1", "-proxy-credentials=gone"], "--proxy-credentials: gone cannot be read"),
        (&["-https-proxy=https://proxy:1", "-proxy-ca-cert=gone"], "--proxy-ca-cert: gone cannot be read"),
        (&["-keepalive=500ms"], "--keepalive: \"500ms\" is not between 1s and 8s"),
        (&["-keepalive=9s"], "--keepalive: \"9s\" is not between 1s and 8s"),
    ] {
        let needed = if args[0].starts_with("-server") { &NEEDED[1..] } else { &NEEDED[..] };
        let mistakes = run(&[needed, args].concat(), &[]).expect_err("a mistake");
        assert!(mistakes[0].to_string().starts_with(expected), "{mistakes:?}");
        assert!(!format!("{mistakes:?}").contains("hush"));
    }
    assert_eq!(run(&[NEEDED[0], NEEDED[1], "-keepalive=2s"], &[]).expect("good").0.keepalive, Some(Duration::from_secs(2)));
}

#[test]
fn a_proxy_of_the_environment_that_cannot_be_used_is_no_mistake_of_a_hub_that_is_exempted_from_it() {
    let socks = ("HTTPS_PROXY", "socks5://u:hush@proxy:1080");
    let (config, warnings) = run(&NEEDED, &[socks, ("NO_PROXY", ".example")]).expect("exempted");
    assert!(config.way.proxy().is_none());
    let told = "HTTPS_PROXY is a SOCKS proxy, which is not supported";
    assert!(warnings[0].starts_with(told) && warnings[0].ends_with("NO_PROXY has .example"), "{warnings:?}");
    assert!(!format!("{config:?}{warnings:?}").contains("hush"));
    let plain = [NEEDED[1], "-server=ws://hub", "-allow-insecure-server"];
    assert!(run(&plain, &[socks]).expect("not about this hub").0.way.proxy().is_none());

    let mistakes = run(&NEEDED, &[socks, ("NO_PROXY", "other")]).expect_err("it would be used");
    assert!(mistakes[0].to_string().starts_with("HTTPS_PROXY: is a SOCKS proxy"), "{mistakes:?}");
    let given = [NEEDED[0], NEEDED[1], "-https-proxy=socks5://proxy", "-no-proxy=.example"];
    assert!(run(&given, &[]).is_err(), "who gives it to the agent means the agent");
}

#[test]
fn a_service_account_token_that_is_not_there_yet_is_only_a_warning() {
    let (_, warnings) = run(&[NEEDED[0], NEEDED[1], "-sa-token-path=later"], &[]).expect("good");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn the_help_is_worth_reading() {
    insta::assert_snapshot!("help", printed(&["-help"]));
    assert!(printed(&["--version"]).starts_with("postern-agent "));
}

#[test]
fn the_reference_is_that_of_this_table() {
    assert_eq!(include_str!("../../REFERENCE.md"), printed(&["reference"]), "write it anew: cargo xtask tidy --fix");
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<(AgentConfig, Vec<String>), Vec<ConfigError>> {
    match parse_with(args, env)? {
        Command::Run { config, warnings } => Ok((*config, warnings)),
        Command::Print(text) => panic!("printed {text}"),
    }
}

fn printed(args: &[&str]) -> String {
    match parse_with(args, &[]).expect("good") {
        Command::Print(text) => text,
        Command::Run { .. } => panic!("would run"),
    }
}

fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Command, Vec<ConfigError>> {
    let host = Host::new(
        Arc::new(Files([(CA, "pem"), (TOKEN, "t"), ("ca.pem", "pem"), ("proxy.txt", "user:hush\n")].into())),
        Tasks::new(),
    );
    let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    parse(args.iter().map(|arg| (*arg).to_owned()), &lookup, &host)
}

struct Files(BTreeMap<&'static str, &'static str>);

impl System for Files {
    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.0.get(path).map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn chance(&self) -> u64 {
        0
    }
}
