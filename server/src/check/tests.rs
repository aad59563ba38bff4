//! A check over a host with nothing but files and a clock.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use host::{Append, BoxFuture, Connection, Listen, System, Tasks};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

use super::*;

/// 2026-06-01T00:00:00Z.
const NOW: Duration = Duration::from_secs(1_780_272_000);

const CLUSTERS: &str = r#"[
  {"id": "edge-1", "token": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
  {"id": "edge-2", "token": "hush-2", "tokens": ["hush-2"]},
  {"id": "ship-7", "token": "hush-7", "impersonate": {"users": ["jane"]}}
]"#;

const CALLERS: &str = "callers:
- name: argocd
  tokens: [hush-a]
  allow:
  - clusters: [edge-*, barge-*]
- name: jane
  tokens: ['sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752', hush-7]
";

/// What a company's authority signs.
struct Issued {
    ca: String,
    leaf: String,
    key: String,
    ended: String,
    soon: String,
}

fn issued() -> Issued {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "hub authority");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = |(year, month, day)| {
        let mut params = CertificateParams::new(vec!["hub.example".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "hub");
        (params.not_before, params.not_after) = (date_time_ymd(2021, 1, 1), date_time_ymd(year, month, day));
        params.signed_by(&key, &authority).expect("a certificate").pem()
    };
    Issued {
        ca: authority.pem(),
        leaf: leaf((2030, 1, 1)),
        ended: leaf((2026, 5, 31)),
        soon: leaf((2026, 6, 15)),
        key: key.serialize_pem(),
    }
}

#[tokio::test]
async fn a_good_configuration_passes_with_nothing_to_say() {
    let Issued { ca, leaf, key, .. } = issued();
    let clusters = r#"[{"id": "edge-1", "token": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}]"#;
    let callers = "callers:\n- {name: argocd, certificates: ['cn:argocd'], allow: [{clusters: ['*']}]}\n";
    let files = [
        ("clusters.json", clusters.to_owned()),
        ("callers.yaml", callers.to_owned()),
        ("tls.crt", leaf + &ca),
        ("tls.key", key),
        ("ca.crt", ca),
    ];
    let args = [
        "--clusters=clusters.json",
        "--callers=callers.yaml",
        "--tls-cert=tls.crt",
        "--tls-key=tls.key",
        "--tls-client-ca=ca.crt",
        "--ops-addr=:9090",
    ];
    let (text, summary) = checked(&args, &files).await;
    assert_eq!(summary, Summary::default(), "{text}");
    insta::assert_snapshot!("good", text);
}

#[tokio::test]
async fn what_a_start_does_not_mind_is_told() {
    let Issued { ca, soon, key, .. } = issued();
    let files = [
        ("clusters.json", CLUSTERS.to_owned()),
        ("callers.yaml", CALLERS.to_owned()),
        ("tls.crt", ca + &soon),
        ("tls.key", key.clone()),
    ];
    let (text, summary) = checked(&["--clusters=clusters.json", "--callers=callers.yaml"], &files).await;
    assert_eq!(summary.n_failed, 0, "{text}");
    insta::assert_snapshot!("odd", text);
    assert!(!text.contains("hush"), "a token is never echoed: {text}");

    // A server whose chain begins with the CA shows a certificate that its key does not fit.
    let args = ["--clusters=clusters.json", "--tls-cert=tls.crt", "--tls-key=tls.key"];
    let (text, _) = checked(&args, &files).await;
    assert!(
        text.contains(
            "FAIL  --tls-key tls.key is not usable: tls.key cannot be used: it is not the key of the first certificate in tls.crt"
        ),
        "{text}"
    );
    assert!(text.contains("warn  tls.crt has its certificates in the order"), "{text}");
    assert!(text.contains("warn  tls.crt ends on 2026-06-15"), "{text}");
    assert!(text.contains("warn  cluster ship-7: anybody on the internal listener may impersonate"), "{text}");
}

#[tokio::test]
async fn what_would_keep_a_server_from_starting_fails_with_its_file_line_and_key() {
    let Issued { ended, .. } = issued();
    let another = KeyPair::generate().expect("a key").serialize_pem();
    let files = [
        ("clusters.json", CLUSTERS.replace("hush-7", "hush-2")),
        ("callers.yaml", CALLERS.replace("allow", "allows")),
        ("tls.crt", ended),
        ("tls.key", another),
        ("ca.crt", "nothing".to_owned()),
        ("revoked", "zz".to_owned()),
    ];
    let args = [
        "--clusters=clusters.json",
        "--callers=callers.yaml",
        "--tls-cert=tls.crt",
        "--tls-key=tls.key",
        "--internal-tls-client-ca=ca.crt",
        "--revoked-certs=revoked",
        "--trusted-proxies=10.0.0.0/8",
        "--rate-limit=many",
    ];
    let (text, _) = checked(&args, &files).await;
    insta::assert_snapshot!("bad", text);
    assert!(!text.contains("hush"), "a token is never echoed: {text}");
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_fails_although_a_server_starts_with_it() {
    let Issued { ended, key, .. } = issued();
    let files = [("clusters.json", CLUSTERS.to_owned()), ("tls.crt", ended), ("tls.key", key)];
    let (text, summary) = checked(&["--clusters=clusters.json", "--tls-cert=tls.crt", "--tls-key=tls.key"], &files).await;
    assert_eq!(summary.n_failed, 1, "{text}");
    assert!(text.contains("FAIL  tls.crt ended on 2026-05-31: \"CN=hub\" for hub.example; peers refuse it"), "{text}");
}

#[tokio::test]
async fn a_place_where_no_audit_log_can_be_written_keeps_a_server_from_starting() {
    let files = [("clusters.json", CLUSTERS.to_owned()), ("audit.key", "0123456789abcdef".to_owned())];
    for (place, expected, n_failed) in [
        ("there/hub.audit", "ok    audit log: there/hub.audit can be written", 0),
        ("-", "ok    audit log: - can be written", 0),
        ("busy/hub.audit", "warn  --audit busy/hub.audit is written by another process", 0),
        ("closed/hub.audit", "FAIL  --audit closed/hub.audit cannot be written by this user: permission denied", 1),
    ] {
        let audit = format!("--audit={place}");
        let (text, summary) = checked(&["--clusters=clusters.json", &audit, "--audit-key=audit.key"], &files).await;
        assert!(text.contains(expected), "{place}: {text}");
        assert_eq!(summary.n_failed, n_failed, "{place}: {text}");
    }
}

#[tokio::test]
async fn a_mistake_in_a_listeners_file_is_told_under_the_flag_that_names_it() {
    let Issued { ca, leaf, key, .. } = issued();
    let another = KeyPair::generate().expect("a key").serialize_pem();
    let files = [
        ("clusters.json", CLUSTERS.to_owned()),
        ("ca.crt", ca),
        ("tls.crt", leaf),
        ("tls.key", key),
        ("other.key", another),
        ("empty", String::new()),
    ];
    for (cert, key, ca, flag) in [
        ("empty", "tls.key", "ca.crt", "cert empty"),
        ("tls.crt", "empty", "ca.crt", "key empty"),
        ("tls.crt", "other.key", "ca.crt", "key other.key"),
        ("tls.crt", "tls.key", "empty", "client-ca empty"),
    ] {
        for listener in ["tls", "internal-tls"] {
            let given =
                [("cert", cert), ("key", key), ("client-ca", ca)].map(|(part, file)| format!("--{listener}-{part}={file}"));
            let args: Vec<_> = given.iter().map(String::as_str).chain(["--clusters=clusters.json"]).collect();
            let (text, _) = checked(&args, &files).await;
            assert!(text.contains(&format!("FAIL  --{listener}-{flag} is not usable: ")), "{listener} {flag}: {text}");
        }
    }
}

#[tokio::test]
async fn what_argo_cd_would_be_given_is_judged_as_if_it_were_the_servers_own() {
    let Issued { ca, leaf, soon, key, .. } = issued();
    let another = KeyPair::generate().expect("a key").serialize_pem();
    let files = [
        ("clusters.json", CLUSTERS.to_owned()),
        ("callers.yaml", CALLERS.to_owned()),
        ("ca.crt", ca),
        ("tls.crt", leaf),
        ("soon.crt", soon),
        ("tls.key", key),
        ("other.key", another),
        ("token", "hush-9\n".to_owned()),
        ("good-token", "hush-a\n".to_owned()),
    ];
    let on = [
        "--clusters=clusters.json",
        "--callers=callers.yaml",
        "--argocd-namespace=argocd",
        "--argocd-url=https://hub:8080/",
        "--argocd-api-ca-cert=ca.crt",
    ];
    for (more, expected) in [
        ([].as_slice(), "ok    --argocd-namespace argocd: 3 clusters would be registered as https://hub:8080/tunnel/ID"),
        (&[], "warn  --callers is given, and Argo CD would have nothing to show"),
        (&[], "warn  --argocd-api-token-path /var/run/secrets/kubernetes.io/serviceaccount/token cannot be read here"),
        (&["--argocd-token-file=token"], "warn  --argocd-token-file token has a token that no caller has"),
        (
            &["--argocd-client-cert=tls.crt", "--argocd-client-key=other.key"],
            "FAIL  --argocd-client-key other.key is not usable: other.key cannot be used: it is not the key of",
        ),
        (&["--argocd-client-cert=soon.crt", "--argocd-client-key=tls.key"], "warn  soon.crt ends on 2026-06-15"),
        (&["--argocd-ca-cert=tls.key"], "FAIL  --argocd-ca-cert tls.key is not usable: tls.key holds no certificate"),
    ] {
        let (text, _) = checked(&[&on, more].concat(), &files).await;
        assert!(text.contains(expected) && !text.contains("hush"), "{more:?} {expected}: {text}");
    }
    let (text, summary) = checked(&[on.as_slice(), &["--argocd-token-file=good-token"]].concat(), &files).await;
    assert!(summary.n_failed == 0 && !text.contains("no caller has"), "{text}");
}

async fn checked(args: &[&str], files: &[(&'static str, String)]) -> (String, Summary) {
    host::tls::use_provider();
    let host = Host::new(Arc::new(Files(files.iter().cloned().collect())), Tasks::new());
    let asked = cli::parse_check(args.iter().map(|arg| (*arg).to_owned()), &|_| None, &host);
    let Ok(program::Command::Run { config: reading, .. }) = asked else { panic!("{args:?} asks for no check") };
    let mut out = Vec::new();
    let summary = check(&reading, &host, &mut out).await;
    (String::from_utf8(out).expect("text"), summary)
}

/// A file that was opened and not written.
struct Empty;

impl Append for Empty {
    fn n_bytes(&self) -> u64 {
        0
    }

    fn append(&mut self, _: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        panic!("a check writes nothing")
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        panic!("a check writes nothing")
    }
}

struct Files(BTreeMap<&'static str, String>);

impl System for Files {
    fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.0.get(path).map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read_file_at(&self, path: &str, _: u64, _: usize) -> io::Result<Vec<u8>> {
        self.read_file(path)
    }

    fn append_to<'a>(&'a self, path: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Append>>> {
        Box::pin(async move {
            match path.split('/').next() {
                Some("busy") => Err(io::ErrorKind::AddrInUse.into()),
                Some("closed") => Err(io::ErrorKind::PermissionDenied.into()),
                _ => Ok(Box::new(Empty) as Box<dyn Append>),
            }
        })
    }

    fn discard_file<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        panic!("a check asks no resolver")
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        panic!("a check dials nobody")
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listen>>> {
        panic!("a check binds nothing")
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn chance(&self) -> u64 {
        0
    }
}
