//! Who is who, and what each may do.

use host::certificate::PeerCertificate;
use http::HeaderMap;

use super::*;
use crate::callers::{Shown, file};

const FILE: &str = r#"
callers:
- name: argocd
  tokens: ["one", "two"]
  certificates: ["cn:argocd", "uri:spiffe://hub/argocd"]
  allow:
  - clusters: ["*"]
- name: dashboards
  tokens: ["three"]
  certificates: ["cn:dashboards"]
  networks: ["10.0.0.0/8", "fd00::/8"]
  allow:
  - clusters: ["edge-1"]
  - clusters: ["test-*"]
    verbs: ["get", "list", "watch"]
- name: office
  networks: ["10.1.0.0/16"]
"#;

fn policy() -> Policy {
    file::parse("FILE", FILE.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn who(address: &str, certificate: Option<(&str, &[&str])>, headers: &[(&'static str, &str)]) -> Result<String, Denial> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect();
    let certificate = certificate.map(|(common_name, uris)| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.subject_alt_names = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().expect("a URI"))).collect();
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Arc::new(Shown::new(PeerCertificate::of(&[certificate.der().clone()]).expect("a readable certificate")))
    });
    let presented = Presented::by(address.parse().expect("an address"), certificate, &headers);
    policy().identify(&presented).map(|caller| caller.name.to_string())
}

const ELSEWHERE: &str = "192.0.2.1";

#[test]
fn a_caller_is_known_by_any_of_its_tokens_wherever_it_puts_them() {
    let known = |headers: &[(&'static str, &str)]| who(ELSEWHERE, None, headers).expect("known");
    assert_eq!(known(&[("authorization", "Bearer one")]), "argocd");
    assert_eq!(known(&[("authorization", "bearer  two ")]), "argocd");
    // "three" in base64url.
    let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.dGhyZWU";
    assert_eq!(known(&[("sec-websocket-protocol", protocols)]), "dashboards");
    assert_eq!(known(&[("authorization", "Bearer three"), ("sec-websocket-protocol", protocols)]), "dashboards");
}

#[test]
fn a_caller_is_known_by_its_certificate() {
    let known = |name, uris| who(ELSEWHERE, Some((name, uris)), &[]);
    assert_eq!(known("argocd", &[]), Ok("argocd".to_owned()));
    assert_eq!(known("x", &["spiffe://hub/x", "spiffe://hub/argocd"]), Ok("argocd".to_owned()));
    // A name of one kind is none of the other.
    assert_eq!(known("spiffe://hub/argocd", &["argocd"]), Err(Denial::UnknownCertificate));
    assert_eq!(known("dashboards", &["spiffe://hub/argocd"]), Err(Denial::TwoCallers));
}

#[test]
fn a_network_counts_for_who_presents_nothing_and_the_longest_prefix_wins() {
    assert_eq!(who("10.2.0.1", None, &[]), Ok("dashboards".to_owned()));
    assert_eq!(who("10.1.0.1", None, &[]), Ok("office".to_owned()));
    assert_eq!(who("::ffff:10.1.0.1", None, &[]), Ok("office".to_owned()));
    assert_eq!(who("fd00::1", None, &[]), Ok("dashboards".to_owned()));
    assert_eq!(who(ELSEWHERE, None, &[]), Err(Denial::Stranger));
    assert_eq!(who("10.1.0.1", None, &[("authorization", "Bearer one")]), Ok("argocd".to_owned()));
    assert_eq!(who("10.1.0.1", Some(("nobody", &[])), &[]), Err(Denial::UnknownCertificate));
}

#[test]
fn who_presents_a_wrong_token_is_nobody_whatever_else_it_has() {
    let wrong: [&[(&'static str, &str)]; 8] = [
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer one"), ("authorization", "Bearer wrong")],
        &[("authorization", "Bearer one"), ("authorization", "")],
        &[("authorization", "Basic b25l")],
        &[("authorization", "one")],
        &[("authorization", "Bearer one"), ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.d3Jvbmc")],
        &[("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.")],
        &[("sec-websocket-protocol", "BASE64URL.bearer.authorization.k8s.io.%%%")],
    ];
    for headers in wrong {
        assert_eq!(who("10.1.0.1", Some(("argocd", &[])), headers), Err(Denial::WrongToken), "{headers:?}");
    }
    assert_eq!(who(ELSEWHERE, None, &[("authorization", "Bearer one"); 5]), Err(Denial::WrongToken), "too many");
}

#[test]
fn credentials_of_two_callers_are_nobodys() {
    assert_eq!(who(ELSEWHERE, Some(("dashboards", &[])), &[("authorization", "Bearer one")]), Err(Denial::TwoCallers));
    assert_eq!(who(ELSEWHERE, Some(("nobody", &[])), &[("authorization", "Bearer one")]), Ok("argocd".to_owned()));
}

#[test]
fn what_a_caller_may_do_is_the_sum_of_its_rules() {
    let policy = policy();
    let lacks = |caller: usize, cluster: &str, verb: &str, creates| {
        let need = Need { verb: verb.into(), creates };
        policy.callers[caller].lacks(cluster, &need).map(str::to_owned)
    };
    assert_eq!(lacks(0, "anything", "deletecollection", true), None);
    assert_eq!(lacks(1, "edge-1", "create", false), None);
    assert_eq!(lacks(1, "edge-10", "get", false).as_deref(), Some("get"));
    assert_eq!(lacks(1, "test-1", "watch", false), None);
    assert_eq!(lacks(1, "test-1", "create", false).as_deref(), Some("create"));
    assert_eq!(lacks(1, "test-1", "get", true).as_deref(), Some("create"), "an exec begins with a GET");
    let reach: Vec<_> =
        ["edge-1", "edge-10", "test-", "tes"].into_iter().filter(|cluster| policy.callers[1].may_reach(cluster)).collect();
    assert_eq!(reach, ["edge-1", "test-"]);
    assert!(!policy.callers[2].may_reach("edge-1"), "without allow nothing is allowed");
    let all: Vec<_> = policy.callers.iter().map(Known::may_reach_all).collect();
    assert_eq!(all, [true, false, false]);
}

#[test]
fn what_talks_with_a_container_needs_create_however_it_begins() {
    let need = |method: &str, path: &str, upgrade: bool| {
        let request = Request::builder().method(method).uri(path);
        let request = if upgrade { request.header("connection", "upgrade").header("upgrade", "websocket") } else { request };
        let need = Need::of(&request.body(()).expect("a request"));
        need.verbs().collect::<Vec<_>>().join(" ")
    };
    let pod = "/api/v1/namespaces/default/pods/web";
    for subresource in ["exec", "attach", "portforward"] {
        assert_eq!(need("GET", &format!("{pod}/{subresource}"), true), "get create");
        assert_eq!(need("POST", &format!("{pod}/{subresource}"), true), "create create");
    }
    assert_eq!(need("GET", "/api/v1/nodes/n/proxy/exec/default/web/main", true), "get create");
    assert_eq!(need("GET", "/api/v1/proxy/nodes/n/exec", true), "proxy create");
    assert_eq!(need("GET", "/api/v1/nodes/n/proxy/metrics", false), "get");
    let console = "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/vm/console";
    assert_eq!(need("GET", console, true), "get create");
    assert_eq!(need("GET", "/version", true), "get create");
    assert_eq!(need("GET", "/api/v1/pods?watch=1", true), "watch");
    assert_eq!(need("HEAD", pod, false), "get");
    assert_eq!(need("GET", "/version", false), "get");
}

#[test]
fn what_may_create_needs_create_however_it_does() {
    let need = |method: &str, path: &str, media_type: &str| {
        let request = Request::builder().method(method).uri(path).header("content-type", media_type);
        let need = Need::of(&request.body(()).expect("a request"));
        need.verbs().collect::<Vec<_>>().join(" ")
    };
    let pod = "/api/v1/namespaces/default/pods/web";
    for media_type in ["application/apply-patch+yaml", "application/apply-patch+cbor"] {
        assert_eq!(need("PATCH", pod, media_type), "patch create");
    }
    assert_eq!(need("PATCH", pod, "application/merge-patch+json"), "patch");
    assert_eq!(need("PATCH", &format!("{pod}/status"), "application/apply-patch+yaml"), "patch");
    assert_eq!(need("PUT", pod, "application/json"), "update");
    assert_eq!(need("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin", "application/json"), "update create");
}
