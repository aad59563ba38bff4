//! Policies and what they let through, as tables; and two promises that hold for every request.

use proptest::prelude::*;

use super::*;

/// Requests as `METHOD target`, `+` before one that passes.
fn check(policy: &str, requests: &[&str]) {
    let policy = Policy::read("test", policy.as_bytes()).expect("a good policy");
    for line in requests {
        let (expected, request) = match line.strip_prefix('+') {
            Some(request) => (true, request),
            None => (false, *line),
        };
        let judged = judge(&asked(request), &policy, false);
        assert_eq!(judged.is_ok(), expected, "{request}: {judged:?}");
    }
}

fn asked(request: &str) -> Asked {
    let (method, target) = request.split_once(' ').expect("method and target");
    let (target, how) = target.split_once(' ').unwrap_or((target, ""));
    let builder = Request::builder().method(method).uri(target);
    let builder = match how {
        "upgrade" => builder.header("connection", "Upgrade").header("upgrade", "websocket"),
        "" => builder,
        media_type => builder.header("content-type", media_type),
    };
    Asked::of(&builder.body(()).expect("a request"))
}

#[test]
fn without_a_policy_only_what_always_holds_is_refused() {
    let policy = Policy::default();
    for passing in ["POST /api/v1/namespaces/a/pods/b/exec upgrade", "DELETE //api/v1/%73ecrets", "OPTIONS /x", "GET /a?b;c"] {
        assert_eq!(judge(&asked(passing), &policy, false), Ok(()), "{passing}");
    }
    for (flawed, flaw) in [
        ("TRACE /api", Flaw::Method),
        ("GET http://169.254.169.254/latest", Flaw::Target),
        ("GET *", Flaw::Target),
        ("GET kubernetes:443", Flaw::Target),
    ] {
        let refused = judge(&asked(flawed), &policy, false).expect_err(flawed);
        assert_eq!((&refused, refused.status().code), (&Refused::Flawed(flaw), 400), "{flawed}");
    }
    let coded = |coding: &str| Request::post("/api").header("transfer-encoding", coding).body(()).expect("a request");
    assert_eq!(judge(&Asked::of(&coded("chunked")), &policy, false), Ok(()));
    assert_eq!(judge(&Asked::of(&coded("gzip, chunked")), &policy, false), Err(Refused::Flawed(Flaw::Coding)));
    let impersonating = Request::get("/api").header("Impersonate-User", "x").body(()).expect("a request");
    let refused = judge(&Asked::of(&impersonating), &policy, false).expect_err("refused, and not stripped");
    assert_eq!((refused.label(), refused.status().code), ("impersonation", 403));
}

#[test]
fn frozen_refuses_everything_whoever_says_so() {
    let by_file = Policy::read("test", b"frozen: true").expect("a good policy");
    for judged in [judge(&asked("GET /version"), &by_file, false), judge(&asked("GET /version"), &Policy::default(), true)] {
        let status = judged.expect_err("frozen").status();
        assert_eq!((status.code, status.reason.as_str()), (503, "Frozen"));
        assert_eq!(
            status.details.map(|details| (details.causes[0].reason.clone(), details.retry_after_seconds)),
            Some(("Frozen".into(), 0))
        );
    }
}

#[test]
fn read_only_is_get_list_watch_and_asking_what_one_may_do() {
    check(
        "readOnly: true",
        &[
            "+GET /api/v1/pods",
            "+HEAD /api/v1/namespaces/a/pods/b",
            "+GET /api/v1/namespaces/a/pods?watch=true",
            "+GET /api/v1/namespaces/a/pods?watch=true upgrade",
            "+GET /api/v1/watch/pods",
            "+GET /api/v1/namespaces/a/pods/b/log?follow=true",
            "+GET /version",
            "+HEAD /",
            "+POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "+POST /apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews",
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x",
            "POST /apis/authorization.k8s.io.example/v1/selfsubjectaccessreviews",
            "POST /apis/authentication.k8s.io/v1/tokenreviews",
            "POST /api/v1/namespaces/a/pods",
            "POST /api/v1/watch/pods",
            "PUT /api/v1/namespaces/a/pods/b",
            "PATCH /api/v1/namespaces/a/pods/b/status",
            "DELETE /api/v1/namespaces/a/pods/b",
            "DELETE /api/v1/namespaces/a/pods",
            "POST /healthz",
            "PUT /debug/flags/v",
            "OPTIONS /api/v1/pods",
            "get /api/v1/pods",
            "GET /api/v1/namespaces/a/pods/b/exec?command=sh",
            "GET /api/v1/namespaces/a/pods/b/log upgrade",
            "GET /version upgrade",
            "GET /api/v1/namespaces/a/pods/b/portforward",
            "GET /api/v1/namespaces/a/services/web/proxy/",
            "GET /api/v1/proxy/nodes/n/x",
            "GET /api/v1/nodes/n/proxy/run",
        ],
    );
}

#[test]
fn without_exec_nobody_gets_into_a_pod_by_any_door() {
    check(
        "exec: false",
        &[
            "+GET /api/v1/namespaces/a/pods/b",
            "+GET /api/v1/namespaces/a/pods/b/log",
            "+POST /api/v1/namespaces/a/pods/b/eviction",
            "+GET /api/v1/secrets?watch=1 upgrade",
            "POST /api/v1/namespaces/a/pods/b/exec",
            "GET /api/v1/namespaces/a/pods/b/exec upgrade",
            "GET /api/v1/namespaces/a/pods/b/attach",
            "POST /api/v1/namespaces/a/pods/b/portforward",
            "PATCH /api/v1/namespaces/a/pods/b/ephemeralcontainers",
            "POST /api/v1/namespaces/a/serviceaccounts/default/token",
            "GET /api/v1/namespaces/a/pods/b:80/proxy/",
            "GET /api/v1/namespaces/a/services/web/proxy",
            "GET /api/v1/nodes/n/proxy/exec/a/b/c",
            "GET /api/v1/proxy/namespaces/a/pods/b",
            "GET /apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/vm/portforward/22",
            "GET /apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/vm/vnc upgrade",
            "GET /anything upgrade",
            "POST /api/v1/namespaces/a/pods/b/exe%63",
            "POST /api/v1/namespaces/a/pods/b//exec",
            "POST /api/v1/namespaces/a/pods%2Fb/exec",
        ],
    );
}

#[test]
fn without_secrets_no_answer_shows_one() {
    check(
        "secrets: false",
        &[
            "+GET /api/v1/namespaces/a/configmaps/secrets",
            "+GET /apis/x.example/v1/secrets",
            "+POST /api/v1/namespaces/a/pods/b/exec upgrade",
            "+GET /api/v1/namespaces/a/services/web/proxy/api/v1/%73ecrets",
            "GET /api/v1/secrets",
            "GET /api/v1/namespaces/a/secrets",
            "GET /api/v1/namespaces/a/secrets/s",
            "HEAD /api/v1/namespaces/a/secrets/s",
            "GET /api/v1/watch/namespaces/a/secrets/s",
            "POST /api/v1/namespaces/a/secrets",
            "PUT /api/v1/namespaces/a/secrets/s",
            "PATCH /api/v1/namespaces/a/secrets/s",
            "DELETE /api/v1/namespaces/a/secrets/s",
            "DELETE /api/v1/namespaces/a/secrets",
            "GET /api/v1/namespaces/a/secrets/s/status",
            "POST /api/v1/namespaces/a/serviceaccounts/default/token",
            "PATCH /api/v1/namespaces/a/pods/b/ephemeralcontainers",
            "+GET /apis/x.example/v1/namespaces/a/things/t/log",
            "GET /apis/x.example/v1/namespaces/a/things/t/proxy/x",
            "GET /apis/x.example/v1/namespaces/a/things/t/proxy/../../../secrets",
            "GET /apis/x.example/v1/proxy/things/t",
            "GET /apis/x.example/v1/namespaces/a/pods/t/proxy",
            "GET /api/v1/nodes/n/proxy/pods",
            "GET /api/v1/nodes/https:n:10250/proxy/",
            "GET /api/v1/proxy/nodes/n/pods",
            "GET /api/v1/%73ecrets",
            "GET //api/v1/secrets",
            "GET /api/v1/secrets/",
            "GET /api/v1/pods/../secrets",
        ],
    );
}

#[test]
fn a_denied_namespace_is_not_seen_in_lists_over_all() {
    check(
        "deny: [{namespaces: [kube-system]}]",
        &[
            "+GET /api/v1/namespaces/a/pods",
            "+GET /api/v1/namespaces/a",
            "+GET /api/v1/nodes",
            "+GET /api/v1/nodes/n",
            "+GET /apis/rbac.authorization.k8s.io/v1/clusterroles?watch=1",
            "+GET /apis/x.example/v1/things/t",
            "+GET /version",
            "GET /api/v1/namespaces/kube-system/pods/b",
            "GET /api/v1/namespaces/kube-system",
            "GET /api/v1/namespaces",
            "POST /api/v1/namespaces",
            "GET /api/v1/pods",
            "GET /api/v1/pods?fieldSelector=metadata.name=b",
            "GET /api/v1/pods?fieldSelector=metadata.namespace=a",
            "GET /api/v1/watch/pods",
            "DELETE /api/v1/pods",
            "GET /apis/x.example/v1/things",
            "GET /api/v1/namespaces/kube%2Dsystem/pods",
        ],
    );
}

#[test]
fn an_allowed_namespace_is_all_that_is_seen() {
    check(
        "allow: [{namespaces: [a], verbs: [get, list]}, {nonResourceURLs: [/version, /apis*], verbs: [get]}]",
        &[
            "+GET /api/v1/namespaces/a/pods",
            "+GET /api/v1/namespaces/a",
            "+GET /version",
            "+GET /apis",
            "+GET /apis/apps/v1",
            "HEAD /version",
            "GET /api/v1/namespaces/a/pods?watch=1",
            "GET /api/v1/namespaces/b/pods",
            "GET /api/v1/pods",
            "GET /api/v1/nodes",
            "GET /api/v1/nodes/n",
            "GET /api",
        ],
    );
    check("allow: []", &["GET /version", "GET /api/v1/pods"]);
}

#[test]
fn a_denied_name_is_not_reached_without_being_named() {
    check(
        "deny: [{apiGroups: [\"\"], resources: [configmaps], resourceNames: [c]}]",
        &[
            "+GET /api/v1/namespaces/a/configmaps/d",
            "+GET /api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dd",
            "+GET /api/v1/namespaces/a/secrets",
            "GET /api/v1/namespaces/a/configmaps/c",
            "PUT /api/v1/namespaces/b/configmaps/c",
            "GET /api/v1/namespaces/a/configmaps",
            "GET /api/v1/namespaces/a/configmaps?watch=1",
            "GET /api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dc",
            "GET /api/v1/namespaces/a/configmaps?fieldSelector=metadata.name!%3Dc",
            "GET /api/v1/namespaces/a/configmaps?a;fieldSelector=metadata.name=d",
            "POST /api/v1/namespaces/a/configmaps",
            "DELETE /api/v1/namespaces/a/configmaps",
            "DELETE /api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dd",
        ],
    );
    check(
        "allow: [{resources: [configmaps], resourceNames: [c]}]",
        &[
            "+GET /api/v1/namespaces/a/configmaps/c",
            "+GET /api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dc&watch=1",
            "GET /api/v1/namespaces/a/configmaps",
            "POST /api/v1/namespaces/a/configmaps",
        ],
    );
}

#[test]
fn names_behind_a_proxy_are_found_among_schemes_and_ports() {
    check(
        "deny: [{resourceNames: [web]}]",
        &[
            "+GET /api/v1/namespaces/a/services/shop:80/proxy/web",
            "+GET /apis/rbac.authorization.k8s.io/v1/clusterroles/system:web",
            "GET /api/v1/namespaces/a/services/web/proxy/",
            "GET /api/v1/namespaces/a/services/web:80/proxy/",
            "GET /api/v1/namespaces/a/services/https:web:443/proxy/",
            "GET /api/v1/namespaces/a/pods/:web:/proxy/",
            "GET /api/v1/proxy/namespaces/a/services/https:web:443/",
        ],
    );
    check(
        "allow: [{resources: [services/proxy], resourceNames: [web]}]",
        &["+GET /api/v1/namespaces/a/services/web/proxy/", "GET /api/v1/namespaces/a/services/https:web:443/proxy/"],
    );
}

#[test]
fn a_selector_narrows_only_where_servers_are_known_to_heed_it() {
    let selected = "?fieldSelector=metadata.name%3Dd";
    let lists = ["/apis/apps/v1/namespaces/a/things", "/apis/discovery.k8s.io/v1/things", "/api/v1/things"];
    check("deny: [{resourceNames: [c]}]", &lists.map(|list| format!("+GET {list}{selected}")).each_ref().map(String::as_str));
    for list in ["/apis/x.example/v1/namespaces/a/things", "/apis/metrics.k8s.io/v1/pods", "/apis/k8s.io/v1/things"] {
        check("deny: [{resourceNames: [c]}]", &[&format!("GET {list}{selected}"), &format!("+GET {list}/d")]);
        check("allow: [{resourceNames: [d]}]", &[&format!("GET {list}{selected}&watch=1"), &format!("+GET {list}/d")]);
    }
}

#[test]
fn a_list_with_many_parameters_could_be_a_watch_and_is_refused() {
    let parameters = |n: usize| format!("?watch=1{}", "&".repeat(n - 1));
    let (most, more) = (parameters(request::QUERY_PARAMETERS_MAX), parameters(request::QUERY_PARAMETERS_MAX + 1));
    let pods = "/api/v1/namespaces/a/pods";
    check(
        "allow: [{verbs: [create, watch, get], resources: ['*', '*/proxy']}]",
        &[
            &format!("+GET {pods}{most}"),
            &format!("GET {pods}{more}"),
            &format!("GET /api/v1/watch/namespaces/a/pods{more}"),
            &format!("+GET {pods}/b/proxy/x{more}"),
            &format!("+GET {pods}/b{more}"),
        ],
    );
}

#[test]
fn what_creates_under_another_verb_is_judged_as_creating() {
    const PATCH: &str = "PATCH /api/v1/namespaces/a/pods/b application/merge-patch+json";
    const APPLY: &str = "PATCH /api/v1/namespaces/a/pods/b application/apply-patch+yaml";
    const STATUS: &str = "PATCH /api/v1/namespaces/a/pods/b/status application/apply-patch+yaml";
    const CBOR: &str = "PATCH /api/v1/namespaces/a/pods/b Application/Apply-Patch+cbor";
    const POD: &str = "PUT /api/v1/namespaces/a/pods/b";
    const LEASE: &str = "PUT /apis/coordination.k8s.io/v1/namespaces/a/leases/b";
    let passing = |request: &str| format!("+{request}");
    check("deny: [{verbs: [create], namespaces: [a]}]", &[&passing(PATCH), &passing(STATUS), APPLY, CBOR, POD, LEASE]);
    check("deny: [{verbs: [patch], namespaces: [a]}]", &[PATCH, STATUS, APPLY, CBOR, &passing(POD), &passing(LEASE)]);
    let ordinary = "allow: [{verbs: [get, list, watch, update, patch], resources: ['*', '*/status']}]";
    check(ordinary, &[&passing(PATCH), &passing(STATUS), &passing(POD), APPLY, CBOR, LEASE]);
    let both = "allow: [{verbs: [update, patch], resources: ['*']}, {verbs: [create], resources: ['*'], resourceNames: [b]}]";
    check(both, &[&passing(APPLY), &passing(CBOR), &passing(LEASE), "POST /api/v1/namespaces/a/pods"]);
    check("allow: [{verbs: [create], resources: ['*']}]", &[APPLY, LEASE]);
}

#[test]
fn rules_mean_what_they_mean_in_rbac() {
    check(
        "deny:
- {resources: [pods/log, '*/scale'], apiGroups: ['', apps]}
- {verbs: [delete, deletecollection], resources: ['*']}
- {nonResourceURLs: ['/metrics', '/debug/*']}",
        &[
            "+GET /api/v1/namespaces/a/pods/b",
            "+GET /apis/apps/v1/namespaces/a/deployments/b",
            "+GET /apis/x.example/v1/namespaces/a/things/b/scale",
            "+GET /metricsx",
            "+GET /debug",
            "+GET /api/v1/namespaces/a/services/s/proxy/debug/%2e%2e//x;y?z;",
            "GET /api/v1/namespaces/a/pods/b/log",
            "PUT /apis/apps/v1/namespaces/a/deployments/b/scale",
            "DELETE /api/v1/namespaces/a/pods",
            "GET /metrics",
            "GET /debug/pprof",
        ],
    );
    let denied = judge(
        &asked("DELETE /api/v1/nodes/n"),
        &Policy::read("t", b"deny: [{resources: [x]}, {resources: ['*']}]").expect("good"),
        false,
    );
    let status = denied.expect_err("denied").status();
    assert_eq!(status.details.map(|details| details.causes[0].message.clone()), Some("deny[1]".to_owned()));
}

#[test]
fn the_legacy_proxy_prefix_is_no_way_around_rules_about_the_subresource() {
    let legacy = "GET /api/v1/proxy/namespaces/a/services/web/x";
    check("deny: [{verbs: [get], resources: [services/proxy]}]", &[legacy, "GET /api/v1/namespaces/a/services/web/proxy/x"]);
    check("deny: [{verbs: [proxy], resources: [services]}]", &[legacy, "+GET /api/v1/namespaces/a/services/web/proxy/x"]);
    check("allow: [{resources: [services]}]", &[legacy, "+GET /api/v1/namespaces/a/services/web"]);
    check("allow: [{resources: [services, services/proxy]}]", &["+GET /api/v1/proxy/namespaces/a/services/web/x"]);
}

#[test]
fn whom_the_policy_lists_may_be_impersonated_and_nobody_else() {
    let policy = Policy::read("test", b"impersonate: {users: ['system:serviceaccount:argocd:*'], groups: [dev]}").expect("good");
    let asks = |user: &str| Asked::of(&Request::get("//x").header("Impersonate-User", user).body(()).expect("a request"));
    assert_eq!(judge(&asks("system:serviceaccount:argocd:sync"), &policy, false), Ok(()));
    assert!(judge(&asks("admin"), &policy, false).is_err());
}

#[test]
fn a_probe_needs_no_rule_that_allows_it_and_nothing_else_is_one() {
    let policy = |text: &str| Policy::read("test", text.as_bytes()).expect("good");
    let called_probe = |request: Request<()>| Asked::of(&request).called_probe(true, &request);
    let probe = || called_probe(Request::get("/version").body(()).expect("a request"));
    for passing in ["{}", "readOnly: true", "exec: false", "allow: [{namespaces: [shop]}]", "deny: [{resources: ['*']}]"] {
        assert_eq!(judge(&probe(), &policy(passing), false), Ok(()), "{passing}");
    }
    assert_eq!(judge(&probe(), &policy("deny: [{nonResourceURLs: [/version]}]"), false), Err(Refused::Denied(0)));
    assert_eq!(judge(&probe(), &policy("frozen: true"), false), Err(Refused::Frozen));
    assert_eq!(judge(&probe(), &Policy::default(), true), Err(Refused::Frozen));

    let get = |target: &str| Request::get(target).body(()).expect("a request");
    let with = |name: &str, value: &str| Request::get("/version").header(name, value).body(()).expect("a request");
    let others = [
        get("/version?x"),
        get("/version/"),
        get("//version"),
        get("/api/v1/secrets"),
        Request::post("/version").body(()).expect("a request"),
        with("content-length", "5"),
        with("transfer-encoding", "chunked"),
        with("impersonate-user", "admin"),
        Request::get("/version").header("connection", "upgrade").header("upgrade", "websocket").body(()).expect("a request"),
    ];
    for other in others {
        let asked = called_probe(other);
        assert!(!asked.is_probe() && judge(&asked, &policy("allow: [{namespaces: [shop]}]"), false).is_err(), "{asked:?}");
    }
    let request = get("/version");
    assert!(!Asked::of(&request).called_probe(false, &request).is_probe());
}

/// Parts of paths, chosen so that chance finds the odd ones.
fn part() -> impl Strategy<Value = String> {
    let words = [
        "api",
        "apis",
        "v1",
        "apps",
        "watch",
        "proxy",
        "namespaces",
        "a",
        "kube-system",
        "secrets",
        "pods",
        "nodes",
        "n",
        "exec",
        "status",
        "finalize",
        "",
        ".",
        "..",
        "secret%73",
        "%2e%2e",
        "%2F",
        "pods%2Fb",
        "SECRETS",
        "serviceaccounts",
        "token",
        "%2f..%2fsecrets",
        "ephemeralcontainers",
        "secrets%2f",
        "%73ecrets",
    ];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

fn target() -> impl Strategy<Value = String> {
    let starts = ["", "/api/v1", "/api/v1/namespaces/a", "/apis/apps/v1", "/api/v1/watch", "/api/v1/proxy"];
    let queries = ["", "?watch=1", "?watch=0;watch=1", "?fieldSelector=metadata.name=s", "?%77atch=true"];
    let start = proptest::sample::select(starts.to_vec());
    let query = proptest::sample::select(queries.to_vec());
    (start, proptest::collection::vec(part(), 0..7), query)
        .prop_map(|(start, parts, query)| format!("{start}/{}{query}", parts.join("/")))
}

fn method() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "delete", "LIST"].as_slice())
}

/// What an API server might take a path for, if it also cleaned it, or undid the escapes twice.
fn readings(path: &str) -> Vec<String> {
    let undo = |path: &str| path.replace("%2e", ".").replace("%2F", "/").replace("%2f", "/").replace("%73", "s");
    let clean = |path: &str| {
        let mut kept: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(kept.pop()),
                part => kept.push(part),
            }
        }
        format!("/{}", kept.join("/"))
    };
    let undone = undo(path);
    vec![path.to_owned(), clean(path), clean(&undone), undone]
}

proptest! {
    #[test]
    fn read_only_passes_nothing_that_changes_something(method in method(), target in target()) {
        let policy = Policy { read_only: true, ..Policy::default() };
        let asked = asked(&format!("{method} {target}"));
        if judge(&asked, &policy, false).is_ok() {
            for path in readings(asked.uri.path()) {
                let info = RequestInfo::parse(&asked.method, &path, asked.uri.query());
                let reads = ["get", "list", "watch", "head"].contains(&info.verb.as_str());
                prop_assert!(reads && matches!(method, "GET" | "HEAD"), "{method} {path} is {info:?}");
            }
        }
    }

    #[test]
    fn without_secrets_no_spelling_of_them_passes(method in method(), target in target()) {
        for policy in ["secrets: false", "deny: [{apiGroups: [''], resources: [secrets]}]"] {
            let policy = Policy::read("test", policy.as_bytes()).expect("a good policy");
            let asked = asked(&format!("{method} {target}"));
            if judge(&asked, &policy, false).is_err() {
                continue;
            }
            let proxied = RequestInfo::parse(&asked.method, asked.uri.path(), None).is_proxied();
            // What is behind a proxied server's path is that server's.
            let readings = if proxied { vec![asked.uri.path().to_owned()] } else { readings(asked.uri.path()) };
            for path in readings {
                let info = RequestInfo::parse(&asked.method, &path, asked.uri.query());
                let shows = info.resource.as_ref().is_some_and(|resource| {
                    resource.group.is_empty() && resource.resource == "secrets" && resource.subresource.is_empty()
                });
                prop_assert!(!shows, "{method} {path} is {info:?}");
            }
        }
    }

    #[test]
    fn judging_never_panics(method in method(), path in "[/a-z%.;*]{0,40}", query in "[a-z=&;%+,!\\\\]{0,30}") {
        let policy = Policy::read("test", b"{exec: false, deny: [{namespaces: [a]}], allow: [{resources: ['*']}]}").expect("good");
        if let Ok(request) = Request::builder().method(method).uri(format!("/{path}?{query}")).body(()) {
            let _ = judge(&Asked::of(&request), &policy, false);
        }
    }
}
