//! Requests as the API server reads them: a table, most of it from its own tests.

use super::*;

/// method, path and query, then what they mean: verb group/version namespace resource name subresource.
const TABLE: &[(&str, &str, &str)] = &[
    ("GET", "/api/v1/namespaces", "list /v1 - namespaces - -"),
    ("GET", "/api/v1/namespaces/other", "get /v1 other namespaces other -"),
    ("GET", "/api/v1/namespaces/other/pods", "list /v1 other pods - -"),
    ("GET", "/api/v1/namespaces/other/pods/foo", "get /v1 other pods foo -"),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", "get /v1 other pods foo -"),
    ("GET", "/api/v1/pods", "list /v1 - pods - -"),
    ("HEAD", "/api/v1/pods", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods/", "list /v1 - pods - -"),
    ("GET", "//api/v1/pods", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=true", "watch /v1 - pods - -"),
    ("GET", "/api/v1/pods?limit=500&watch=1", "watch /v1 - pods - -"),
    ("GET", "/api/v1/pods?watch", "watch /v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=False", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=0", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods?w%61tch=true", "watch /v1 - pods - -"),
    ("GET", "/api/v1/watch/namespaces/other/pods", "watch /v1 other pods - -"),
    ("GET", "/api/v1/watch/pods", "watch /v1 - pods - -"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo/x", "proxy /v1 other pods foo -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo&watch=true", "watch /v1 - pods foo -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name==foo,spec.x=y", "list /v1 - pods foo -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dfoo", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Db,metadata.name%3D%3Dc", "list /v1 - pods c -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da%5C,b", "list /v1 - pods a,b -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da%3Db", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da&limit=x&watch=1", "watch /v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=false&watch=true", "list /v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=%zz&watch=true", "watch /v1 - pods - -"),
    ("GET", "/api/v1/pods?a;watch=true", "list /v1 - pods - -"),
    ("GET", "/api/v1/watch/namespaces/other/pods?fieldSelector=metadata.name%3Dfoo", "watch /v1 other pods - -"),
    ("GET", "/api/v1/namespaces/other/pods/foo/log", "get /v1 other pods foo log"),
    ("POST", "/api/v1/namespaces/other/pods/foo/exec?command=sh", "create /v1 other pods foo exec"),
    ("GET", "/api/v1/namespaces/other/services/web:80/proxy/a/b", "get /v1 other services web:80 proxy"),
    ("PUT", "/api/v1/namespaces/other/finalize", "update /v1 other namespaces other finalize"),
    ("PUT", "/api/v1/namespaces/other/status", "update /v1 other namespaces other status"),
    ("GET", "/api/v1/n%61mespaces/other%2Fpods", "list /v1 other pods - -"),
    ("POST", "/apis/apps/v1/namespaces/other/deployments", "create apps/v1 other deployments - -"),
    ("PATCH", "/apis/apps/v1/namespaces/other/deployments/web/scale", "patch apps/v1 other deployments web scale"),
    ("DELETE", "/apis/apps/v1/namespaces/other/deployments/web", "delete apps/v1 other deployments web -"),
    ("DELETE", "/apis/apps/v1/namespaces/other/deployments", "deletecollection apps/v1 other deployments - -"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin", "get rbac.authorization.k8s.io/v1 - clusterroles admin -"),
    ("OPTIONS", "/api/v1/pods", " /v1 - pods - -"),
    ("GET", "/", "get"),
    ("GET", "", "get"),
    ("GET", "/version?timeout=32s", "get"),
    ("GET", "/api", "get"),
    ("GET", "/api/v1", "get"),
    ("GET", "/apis", "get"),
    ("GET", "/apis/apps", "get"),
    ("GET", "/apis/apps/v1", "get"),
    ("GET", "/openapi/v2/x/y/z", "get"),
    ("POST", "/healthz", "post"),
    ("GET", "/api/v1/watch", "get"),
];

#[test]
fn requests_are_read_as_the_api_server_reads_them() {
    for (method, target, expected) in TABLE {
        assert_eq!(summary(&parse(method, target)), *expected, "{method} {target}");
    }
}

#[test]
fn a_plain_path_has_one_reading_up_to_what_is_proxied() {
    for plain in [
        "/",
        "/version",
        "/api/v1/namespaces/a/pods/b:c@d~e",
        "/api/v1/namespaces/a/services/web:80/proxy/x//../%2F/%zz/",
        "/api/v1/nodes/n/proxy/",
        "/api/v1/proxy/namespaces/a/pods/b/..//%2e",
    ] {
        assert!(is_plain(plain), "{plain}");
    }
    for odd in [
        "",
        "*",
        "//api/v1/pods",
        "/api/v1/pods/",
        "/api/v1/pods//exec",
        "/api/v1/./pods",
        "/api/v1/namespaces/a/../pods",
        "/api/v1/secret%73",
        "/api/v1/namespaces/a%2Fpods",
        "/api/v1/namespaces/%61/services/web/proxy/x",
        "/api/v1/proxy/nodes/%6e/x",
        "/api/v1/namespaces/a/pods/b/prox%79/x",
        "/logs/proxy/%41",
        "/apis/x.example/v1/things/t/proxy/%41",
        "/apis/x.example/v1/namespaces/a/pods/b/proxy/../secrets",
        "/apis/x.example/v1/proxy/nodes/n/%41",
        "/api/v1/namespaces/a/configmaps/b/proxy/%41",
    ] {
        assert!(!is_plain(odd), "{odd}");
    }
}

#[test]
fn only_lists_and_watches_with_many_parameters_are_read_in_two_ways() {
    let most = format!("watch=1{}", "&".repeat(QUERY_PARAMETERS_MAX - 1));
    let more = format!("{most}&");
    for (path, expected) in [
        ("/api/v1/pods", true),
        ("/api/v1/%70ods/", true),
        ("/api/v1/watch/pods", true),
        ("/apis/x.example/v1/namespaces/a/things", true),
        ("/api/v1/namespaces/a/pods/b/exec", false),
        ("/api/v1/namespaces/a/services/web/proxy/x", false),
        ("/version", false),
    ] {
        assert_eq!(has_too_many_parameters(path, Some(&more)), expected, "{path}");
        assert!(!has_too_many_parameters(path, Some(&most)) && !has_too_many_parameters(path, None), "{path}");
    }
}

#[test]
fn classes_follow_what_a_person_waits_for() {
    for (method, target, is_upgrade, expected, long) in [
        ("POST", "/api/v1/namespaces/a/pods/b/exec", true, Class::Interactive, true),
        ("GET", "/api/v1/pods?watch=true", false, Class::Watch, true),
        ("GET", "/apis/apps/v1/watch/deployments", false, Class::Watch, true),
        ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true", false, Class::Watch, true),
        ("GET", "/api/v1/namespaces/a/pods/b/log?follow=false", false, Class::Small, true),
        ("GET", "/api/v1/namespaces/a/pods/b?watch=true", false, Class::Small, false),
        ("GET", "/api/v1/pods?limit=500", false, Class::Small, false),
        ("GET", "/version?watch=true", false, Class::Small, false),
    ] {
        let info = parse(method, target);
        assert_eq!((info.class(is_upgrade), info.is_long_running()), (expected, long), "{method} {target}");
    }
}

#[test]
fn a_log_line_names_resource_group_and_subresource() {
    for (target, expected) in [
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces/a/pods/b/log", "pods/log"),
        ("/apis/apps/v1/namespaces/a/deployments/b/scale", "deployments.apps/scale"),
        ("/version", ""),
    ] {
        assert_eq!(parse("GET", target).resource_text(), expected, "{target}");
    }
}

fn parse(method: &str, target: &str) -> RequestInfo {
    let method = method.parse().expect("a method");
    match target.split_once('?') {
        Some((path, query)) => RequestInfo::parse(&method, path, Some(query)),
        None => RequestInfo::parse(&method, target, None),
    }
}

fn summary(info: &RequestInfo) -> String {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    match &info.resource {
        None => info.verb.clone(),
        Some(r) => {
            let rest = [&r.namespace, &r.resource, &r.name, &r.subresource].map(|text| dash(text)).join(" ");
            format!("{} {}/{} {rest}", info.verb, r.group, r.version)
        }
    }
}
