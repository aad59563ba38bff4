//! The command line of the server, over a host with nothing but files.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use host::{BoxFuture, Connection, Listen, System, Tasks};
use proxy::flags::Mistakes;

use super::*;

const CLUSTERS: &str = r#"[{"id": "edge-1", "token": "hush"}]"#;

#[test]
fn the_defaults_of_the_table_are_the_defaults_of_the_config() {
    let config = run(&["--clusters=c.json"], &[]).expect("good").0;
    let expected =
        ServerConfig { clusters: config.clusters.clone(), clusters_file: Some("c.json".to_owned()), ..ServerConfig::default() };
    assert_eq!(format!("{config:#?}"), format!("{expected:#?}"));
    assert_eq!(config.addr.to_string(), "[::]:8443");
}

#[test]
fn every_flag_of_the_first_proxy_is_taken_in_go_spelling() {
    let args = [
        "-addr=127.0.0.1:1",
        "-internal-addr",
        ":2",
        "-clusters",
        "c.json",
        "-rate-limit=50",
        "-tls-cert=cert.pem",
        "-tls-key=key.pem",
        "-tls-client-ca=ca.pem",
        "-log-level=debug",
    ];
    let config = run(&args, &[]).expect("good").0;
    assert_eq!(config.addr.to_string(), "127.0.0.1:1");
    assert_eq!(config.internal_addr.to_string(), "[::]:2");
    assert_eq!(config.rate_limit, 50);
    let tls =
        TlsFiles { cert: "cert.pem".into(), key: "key.pem".into(), client_ca: Some("ca.pem".into()), client_required: true };
    assert_eq!((config.tls, config.internal_tls), (Some(tls), InternalTls::Optional));
    assert_eq!(config.process.log_level, host::LogLevel::Debug);
}

#[test]
fn clusters_come_from_the_environment_unless_a_file_is_given() {
    let env = [("CLUSTERS", r#"[{"id": "from-env", "token": "t"}]"#)];
    let (config, warnings) = run(&[], &env).expect("good");
    assert_eq!((config.clusters[0].id.as_str(), config.clusters_file, warnings.len()), ("from-env", None, 0));

    let (config, warnings) = run(&["-clusters=c.json"], &env).expect("good");
    assert_eq!(config.clusters[0].id.as_str(), "edge-1");
    assert_eq!(warnings, ["CLUSTERS is set and has no effect, because --clusters is given"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let args = [
        "-clusters=missing.json",
        "-addr=8443",
        "-internal-addr=hub:1",
        "-rate-limit=fast",
        "-cluster-rate-limit=-1",
        "-caller-rate-limit=5/s",
        "-caller-streams-max=99999999999999999999",
        "-tls-cert=gone.pem",
        "-internal-tls=must",
        "-trusted-proxies=proxy:10.0.0.0/8,10.1.0.0/16",
        "-connections-per-address=many",
        "-request-body-max=1MB",
        "-upload-idle-timeout=5",
        "-drain=30",
        "-log-level=loud",
        "-streams-max=0",
        "-process-budget=1MiB",
        "-adr=:1",
    ];
    insta::assert_snapshot!("mistakes", Mistakes(&run(&args, &[]).expect_err("mistakes")));
}

#[test]
fn limits_by_address_are_off_until_it_is_said_how_addresses_are_known() {
    let (config, warnings) = run(&["-clusters=c.json", "-connections-per-address=9"], &[]).expect("good");
    assert!(config.connections_per_address == 9 && !config.trusted_proxies.is_known());
    assert!(warnings.concat().starts_with("--connections-per-address has no effect without --trusted-proxies"), "{warnings:?}");
    for proxies in ["-trusted-proxies=direct", "-trusted-proxies=proxy:10.0.0.0/8,xff:2001:db8::1"] {
        let args = ["-clusters=c.json", "-connections-per-address=9", proxies];
        let (config, warnings) = run(&args, &[]).expect("good");
        assert!(config.trusted_proxies.is_known() && warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn limits_of_each_caller_that_nobody_tells_from_another_are_warned_of() {
    for limit in ["-caller-rate-limit=9", "-caller-streams-max=9"] {
        let (_, warnings) = run(&["-clusters=c.json", limit], &[]).expect("good");
        assert!(warnings.concat().starts_with("without --callers all callers share"), "{warnings:?}");
    }
    let (_, warnings) = run(&["-clusters=c.json"], &[]).expect("good");
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn tls_that_is_half_given_is_a_mistake() {
    for (args, expected) in [
        (["-tls-cert=cert.pem"].as_slice(), "--tls-key: is needed with --tls-cert"),
        (&["-tls-key=key.pem"], "--tls-cert: is needed with --tls-key"),
        (&["-tls-client-ca=ca.pem"], "--tls-client-ca: needs --tls-cert and --tls-key"),
        (&["-internal-tls=require"], "--internal-tls: require needs --tls-cert and --tls-key, or the internal listener's own"),
        (&["-internal-tls-key=key.pem"], "--internal-tls-cert: is needed with --internal-tls-key"),
        (
            &["-internal-tls-client-ca=ca.pem"],
            "--internal-tls-client-ca: needs --internal-tls-cert and --internal-tls-key, or --tls-cert and --tls-key",
        ),
    ] {
        let args: Vec<_> = args.iter().copied().chain(["-clusters=c.json"]).collect();
        let errors = run(&args, &[]).expect_err("half given");
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn the_internal_listener_may_have_tls_of_its_own() {
    let public = ["-tls-cert=cert.pem", "-tls-key=key.pem", "-tls-client-ca=ca.pem"];
    let own_pair = ["-internal-tls-cert=own.pem", "-internal-tls-key=own.key"];
    let own_ca = ["-internal-tls-client-ca=own-ca.pem"];
    let internal = |groups: &[&[&str]]| {
        let config = run(&[&["-clusters=c.json"], groups.concat().as_slice()].concat(), &[]).expect("good").0;
        let own = config.internal_tls_files.map(|TlsFiles { cert, key, client_ca, .. }| format!("{cert} {key} {client_ca:?}"));
        (config.internal_tls, config.tls.is_some(), own.unwrap_or_default())
    };
    assert_eq!(internal(&[&public]), (InternalTls::Optional, true, String::new()));
    assert_eq!(internal(&[&own_pair]), (InternalTls::Optional, false, "own.pem own.key None".to_owned()));
    let asks_as_the_public = (InternalTls::Optional, true, "own.pem own.key Some(\"ca.pem\")".to_owned());
    assert_eq!(internal(&[&public, &own_pair]), asks_as_the_public, "another certificate, and no less is asked for");
    let both = (InternalTls::Optional, true, "own.pem own.key Some(\"own-ca.pem\")".to_owned());
    assert_eq!(internal(&[&public, &own_pair, &own_ca]), both);
    let shared = (InternalTls::Optional, true, "cert.pem key.pem Some(\"own-ca.pem\")".to_owned());
    assert_eq!(internal(&[&public, &own_ca]), shared, "another CA for the same certificate");
}

#[test]
fn registration_in_argo_cd_is_on_with_a_namespace_and_has_its_defaults_from_the_table() {
    let on = ["-clusters=c.json", "-argocd-namespace=argocd", "-argocd-url=https://hub.example:8080/"];
    let read = |more: &[&str]| run(&[&on, more].concat(), &[]).expect("good").0.argocd.expect("on");
    let of_pod = ["-argocd-api-ca-cert=ca.pem"];
    let mut expected = ArgoCdConfig::new("argocd", "https://hub.example:8080");
    expected.api.ca = Some("ca.pem".to_owned());
    assert_eq!(format!("{:?}", read(&of_pod)), format!("{expected:?}"));
    let full = ["-argocd-ca-cert=ca.pem", "-argocd-client-cert=cert.pem", "-argocd-client-key=key.pem", "-argocd-skip-after=2h"];
    let full = read(&[of_pod.as_slice(), &full, &["-argocd-retention=5m", "-argocd-api-server=10.0.0.1:6443"]].concat());
    assert_eq!((full.skip_after, full.retention), (Some(Duration::from_secs(7200)), Duration::from_secs(300)));
    assert_eq!(full.files.identity, Some(("cert.pem".to_owned(), "key.pem".to_owned())));
    assert_eq!(full.api.addr.to_string(), "10.0.0.1:6443");
}

#[test]
fn mistakes_of_registration_are_told_with_their_flags() {
    let of_pod = ["-clusters=c.json", "-argocd-api-ca-cert=ca.pem"];
    let on = ["-argocd-namespace=argocd", "-argocd-url=https://hub:8080"];
    let plain = ["-argocd-namespace=argocd", "-argocd-url=http://hub:8080"];
    let mistakes: Vec<_> = [
        ["-argocd-skip-after=5m", "-argocd-token-file=token"].as_slice(),
        &["-argocd-namespace=argocd"],
        &["-argocd-namespace=Argo.CD", "-argocd-url=hub:8080"],
        &[
            on.as_slice(),
            &["-argocd-hub=two words", "-argocd-skip-after=30s", "-argocd-return-spread=soon", "-argocd-api-server=:443"],
        ]
        .concat(),
        &[on.as_slice(), &["-argocd-client-cert=cert.pem", "-argocd-ca-cert=gone.pem"]].concat(),
        &[plain.as_slice(), &["-argocd-ca-cert=ca.pem", "-argocd-client-cert=cert.pem", "-argocd-client-key=key.pem"]].concat(),
        &[on.as_slice(), &["-leave=1m", "-argocd-skip-after=179s", "-argocd-retention=299s"]].concat(),
        &["-argocd-namespace=argocd", "-argocd-url=https://user:hunter2@hub:8080"],
        &["-argocd-namespace=argocd", "-argocd-url=https://hub:8080/#part"],
    ]
    .iter()
    .map(|args| Mistakes(&run(&[&of_pod, *args].concat(), &[]).expect_err("mistakes")).to_string())
    .collect();
    insta::assert_snapshot!("registration_mistakes", mistakes.join("\n"));
    let (_, warnings) = run(&[of_pod.as_slice(), &plain, &["-argocd-token-file=token"]].concat(), &[]).expect("good");
    assert!(warnings.concat().contains("crosses the network in clear text"), "{warnings:?}");
    // The CA of a pod's account is not there on this machine.
    let errors = run(&["-clusters=c.json", on[0], on[1]], &[]).expect_err("no pod");
    assert!(errors[0].to_string().starts_with("--argocd-api-ca-cert: /var/run/secrets/"), "{errors:?}");
}

#[test]
fn mistakes_in_the_callers_file_are_told_with_all_others() {
    assert_eq!(
        run(&["-clusters=c.json", "-callers=callers.yaml"], &[]).expect("good").0.callers_file.as_deref(),
        Some("callers.yaml")
    );
    let errors = run(&["-clusters=c.json", "-callers=bad.yaml", "-drain=30"], &[]).expect_err("mistakes");
    insta::assert_snapshot!("callers_mistakes", Mistakes(&errors));
}

#[test]
fn a_fresh_token_comes_with_its_digest() {
    insta::assert_snapshot!("token", printed(&["token"]));
    assert_eq!(parse_with(&["token", "edge-1"], &[]).expect_err("a word too many").len(), 1);
}

#[test]
fn a_kubeconfig_may_have_the_callers_credentials_in_it() {
    let https = ["kubeconfig", "edge-1", "--url=https://hub:8080"];
    let text = printed(&[https.as_slice(), &["--token-file=token", "--client-cert=cert.pem", "--client-key=key.pem"]].concat());
    assert!(text.contains("token: \"hush\"\n    client-certificate-data: cGVt\n    client-key-data: cGVt\n"), "{text}");
    for (bad, n) in [
        (["kubeconfig", "a", "--token-file=token"].as_slice(), 1),
        (&["kubeconfig", "a", "--url=http://hub:1", "--client-cert=cert.pem", "--client-key=key.pem"], 1),
        (&["kubeconfig", "a", "--url=https://hub:1", "--client-cert=cert.pem"], 1),
        (&["kubeconfig", "a", "--url=https://hub:1", "--token-file=gone"], 1),
    ] {
        assert_eq!(parse_with(bad, &[]).expect_err("mistake").len(), n, "{bad:?}");
    }
}

#[test]
fn without_clusters_nothing_starts() {
    let errors = run(&[], &[("CLUSTERS", "")]).expect_err("no clusters");
    assert!(errors[0].to_string().starts_with("--clusters: no clusters are given"), "{errors:?}");
}

#[test]
fn two_listeners_at_one_address_are_a_mistake() {
    let errors = run(&["-clusters=c.json", "-addr=:1", "-internal-addr=:1"], &[]).expect_err("equal");
    assert_eq!(errors[0].to_string(), "--internal-addr: is the same address as --addr");
    run(&["-clusters=c.json", "-addr=:0", "-internal-addr=:0"], &[]).expect("port 0 is any port");
}

#[test]
fn the_help_is_worth_reading() {
    insta::assert_snapshot!("help", printed(&["--help"]));
    insta::assert_snapshot!("help_kubeconfig", printed(&["kubeconfig", "-h"]));
    assert!(printed(&["-version"]).starts_with("postern-server "));
}

#[test]
fn the_reference_is_that_of_this_table() {
    assert_eq!(include_str!("../../REFERENCE.md"), printed(&["reference"]), "write it anew: cargo xtask tidy --fix");
}

#[test]
fn a_kubeconfig_is_printed_for_the_internal_listener() {
    assert!(printed(&["kubeconfig", "edge-1"]).contains("server: \"http://127.0.0.1:8080/tunnel/edge-1\"\n"));
    assert!(printed(&["kubeconfig", "-internal-addr=10.0.0.1:9", "edge-1"]).contains("\"http://10.0.0.1:9/tunnel/edge-1\""));
    let text = printed(&["kubeconfig", "edge-1", "--url", "https://hub:8080/", "--ca-file", "ca.pem"]);
    assert!(text.contains("\"https://hub:8080/tunnel/edge-1\"\n    certificate-authority-data: cGVt\n"), "{text}");
    for bad in [
        ["kubeconfig"].as_slice(),
        &["kubeconfig", "a", "b"],
        &["kubeconfig", "a", "-url=hub:8080"],
        &["kubeconfig", "a", "-ca-file=gone"],
    ] {
        assert_eq!(parse_with(bad, &[]).expect_err("mistake").len(), 1, "{bad:?}");
    }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<(ServerConfig, Vec<String>), Vec<ConfigError>> {
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
    let files = [
        ("c.json", CLUSTERS),
        ("cert.pem", "pem"),
        ("key.pem", "pem"),
        ("ca.pem", "pem"),
        ("own.pem", "pem"),
        ("own.key", "pem"),
        ("own-ca.pem", "pem"),
        ("token", "hush\n"),
        ("callers.yaml", "callers: []"),
        ("bad.yaml", "callers:\n- name: a\n  tokens: [t]\n  networks: [10.0.0.0]\n"),
    ];
    let host = Host::new(Arc::new(Files(files.into())), Tasks::new());
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
