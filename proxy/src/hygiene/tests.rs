//! Header rules: nothing forbidden survives, and nothing else is touched.

use proptest::prelude::*;

use super::*;

#[test]
fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
    let mut headers = map(&[
        ("connection", "close, X-Private"),
        ("connection", "x-other"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("x-private", "1"),
        ("x-other", "2"),
        ("accept", "application/json"),
    ]);
    clean_request(Version::HTTP_11, &mut headers);
    assert_eq!(headers, map(&[("accept", "application/json")]));
}

#[test]
fn what_belongs_to_the_caller_alone_is_removed() {
    let mut headers = map(&[
        ("authorization", "Bearer a"),
        ("cookie", "a=b"),
        ("x-remote-user", "admin"),
        ("x-remote-extra-scopes", "all"),
        ("x_remote_group", "system:masters"),
        ("http2-settings", "AAMAAABk"),
        ("x-remote", "kept, it is no prefix match"),
        ("user-agent", "kubectl"),
    ]);
    clean_request(Version::HTTP_2, &mut headers);
    assert_eq!(headers, map(&[("x-remote", "kept, it is no prefix match"), ("user-agent", "kubectl")]));
}

#[test]
fn impersonation_is_found_in_any_case_and_inside_connection() {
    assert_eq!(impersonation(&map(&[("Impersonate-User", "admin")])).as_deref(), Some("impersonate-user"));
    assert_eq!(impersonation(&map(&[("impersonate-extra-x%2fy", "1")])).as_deref(), Some("impersonate-extra-x%2fy"));
    assert_eq!(impersonation(&map(&[("Impersonate_Group", "g")])).as_deref(), Some("impersonate_group"));
    assert_eq!(impersonation(&map(&[("connection", "close, Impersonate-Uid")])).as_deref(), Some("Impersonate-Uid"));
    assert_eq!(impersonation(&map(&[("x-impersonate-user", "admin"), ("impersonate", "x")])), None);
}

#[test]
fn a_token_among_the_protocols_is_found_also_where_its_bytes_are_no_text() {
    let mut headers = HeaderMap::new();
    let protocols =
        HeaderValue::from_bytes(b"v5.channel.k8s.io,base64url.bearer.authorization.k8s.io.hush\xff").expect("a value");
    headers.insert("sec-websocket-protocol", protocols);
    clean_request(Version::HTTP_11, &mut headers);
    assert_eq!(headers, map(&[("sec-websocket-protocol", "v5.channel.k8s.io")]));
}

#[test]
fn an_upgrade_keeps_its_protocol_and_nothing_else_of_the_hop() {
    let mut headers =
        map(&[("connection", "keep-alive, Upgrade, x-a"), ("upgrade", "SPDY/3.1"), ("x-a", "1"), ("keep-alive", "1")]);
    assert_eq!(upgrade(Version::HTTP_11, &headers), Some(Upgrade::Spdy));
    clean_request(Version::HTTP_11, &mut headers);
    assert_eq!(headers, map(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]));
}

#[test]
fn only_protocols_of_kubernetes_over_http_1_1_are_upgrades() {
    let asks = |protocol| map(&[("connection", "upgrade"), ("upgrade", protocol)]);
    assert_eq!(upgrade(Version::HTTP_11, &asks("WebSocket")), Some(Upgrade::WebSocket));
    for (version, headers) in [
        (Version::HTTP_2, asks("websocket")),
        (Version::HTTP_10, asks("websocket")),
        (Version::HTTP_11, asks("h2c")),
        (Version::HTTP_11, asks("websocket, h2c")),
        (Version::HTTP_11, asks("")),
        (Version::HTTP_11, map(&[("upgrade", "websocket")])),
        (Version::HTTP_11, map(&[("connection", "upgrade")])),
    ] {
        assert_eq!(upgrade(version, &headers), None, "{version:?} {headers:?}");
        let mut cleaned = headers;
        clean_request(version, &mut cleaned);
        assert!(cleaned.is_empty(), "{cleaned:?}");
    }
}

#[test]
fn a_wish_for_trailers_travels_on() {
    let mut headers = map(&[("connection", "TE"), ("te", "gzip, trailers")]);
    clean_request(Version::HTTP_11, &mut headers);
    assert_eq!(headers, map(&[("te", "trailers")]));
}

#[test]
fn a_bearer_token_among_the_websocket_protocols_is_removed() {
    let mut headers = map(&[
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
        ("sec-websocket-protocol", "v4.channel.k8s.io"),
    ]);
    clean_request(Version::HTTP_11, &mut headers);
    assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io, v4.channel.k8s.io");
}

#[test]
fn an_answer_loses_its_hop_by_hop_headers_only() {
    let sent =
        [("connection", "close"), ("transfer-encoding", "chunked"), ("set-cookie", "a"), ("trailer", "x-t"), ("upgrade", "h2c")];
    let mut headers = map(&sent);
    clean_response(StatusCode::OK, &mut headers);
    assert_eq!(headers, map(&[("set-cookie", "a"), ("trailer", "x-t")]));

    let switched = map(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")]);
    let mut headers = switched.clone();
    clean_response(StatusCode::SWITCHING_PROTOCOLS, &mut headers);
    assert_eq!(headers, switched);
}

#[test]
fn a_page_of_another_site_is_known_by_its_origin() {
    let asked = |origin: &[&'static str], host: &'static str| {
        let fields: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).chain([("host", host)]).collect();
        is_cross_site(None, &map(&fields))
    };
    assert!(!asked(&[], "hub:8080") && !asked(&["http://hub:8080"], "hub:8080") && !asked(&["https://HUB"], "hub"));
    for other in ["http://evil.example", "http://hub", "null", "hub:8080", "", "http://hub:8080/", "http://hub:8080.evil.example"]
    {
        assert!(asked(&[other], "hub:8080"), "{other:?}");
    }
    assert!(asked(&["http://hub:8080", "http://evil.example"], "hub:8080"));
    assert!(is_cross_site(Some("hub:8080"), &map(&[("origin", "http://evil.example"), ("host", "evil.example")])));
}

#[test]
fn a_length_beside_a_coding_is_removed_with_it() {
    let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
    clean_request(Version::HTTP_11, &mut headers);
    assert!(headers.is_empty(), "{headers:?}");
    let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
    clean_response(StatusCode::OK, &mut headers);
    assert!(headers.is_empty(), "{headers:?}");
}

#[test]
fn an_answers_length_is_told_once_unless_it_is_none() {
    for (told, left) in [(&["3"][..], &["3"][..]), (&["3, 3"], &["3"]), (&["3", "3 ,3"], &["3"]), (&["3", "4"], &["3", "4"])] {
        let mut headers = map(&told.iter().map(|length| ("content-length", *length)).collect::<Vec<_>>());
        clean_response(StatusCode::OK, &mut headers);
        assert_eq!(headers.get_all("content-length").iter().collect::<Vec<_>>(), left, "{told:?}");
    }
}

#[test]
fn only_chunked_and_only_once_is_no_coding_of_its_own() {
    let coded = |lines: &[&str]| is_coded(&map(&lines.iter().map(|line| ("transfer-encoding", *line)).collect::<Vec<_>>()));
    assert!(!coded(&[]) && !coded(&["chunked"]) && !coded(&[" ChunKed"]));
    for lines in
        [&["gzip"][..], &["gzip, chunked"], &["chunked, chunked"], &["chunked", "chunked"], &["identity", "chunked"], &[""]]
    {
        assert!(coded(lines), "{lines:?}");
    }
}

#[test]
fn trailers_say_nothing_that_belongs_into_a_head() {
    let mut trailers = map(&[
        ("impersonate-user", "admin"),
        ("X_Remote_User", "admin"),
        ("authorization", "Bearer a"),
        ("cookie", "a=b"),
        ("host", "other"),
        ("content-length", "50"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("x-digest", "kept"),
    ]);
    clean_trailers(&mut trailers);
    assert_eq!(trailers, map(&[("x-digest", "kept")]));
}

const NAMES: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "authorization",
    "cookie",
    "x-remote-user",
    "X-Remote-Extra-A",
    "x_remote_uid",
    "http2-settings",
    "accept",
    "content-type",
    "x-custom",
    "audit-id",
    "content-length",
    "range",
];

proptest! {
    #[test]
    fn nothing_forbidden_survives_and_all_else_does(
        lines in prop::collection::vec((prop::sample::select(NAMES), values()), 0..12),
        http_11: bool,
    ) {
        let version = if http_11 { Version::HTTP_11 } else { Version::HTTP_2 };
        let before: HeaderMap = map(&lines.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
        let mut after = before.clone();
        clean_request(version, &mut after);

        let named: Vec<_> = tokens(&before, CONNECTION).map(str::to_ascii_lowercase).collect();
        let upgraded = upgrade(version, &before).is_some();
        let is_coded = before.contains_key("transfer-encoding");
        for name in before.keys() {
            let text = name.as_str();
            let left: Vec<_> = after.get_all(name).iter().collect();
            match text {
                "connection" | "upgrade" => prop_assert_eq!(left.len(), usize::from(upgraded)),
                "te" => prop_assert!(left.iter().all(|value| *value == "trailers")),
                "keep-alive" | "proxy-connection" | "proxy-authenticate" | "proxy-authorization" | "transfer-encoding"
                | "authorization" | "cookie" | "http2-settings" => prop_assert!(left.is_empty()),
                remote if remote.starts_with("x-remote-") || remote.starts_with("x_remote_") => prop_assert!(left.is_empty()),
                "content-length" if is_coded => prop_assert!(left.is_empty()),
                _ if named.iter().any(|other| other == text) => prop_assert!(left.is_empty()),
                _ => prop_assert_eq!(left, before.get_all(name).iter().collect::<Vec<_>>()),
            }
        }
        prop_assert!(after.keys().all(|name| before.contains_key(name)), "{:?}", after);
    }
}

fn values() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "close",
        "Upgrade",
        "keep-alive",
        "websocket",
        "SPDY/3.1",
        "h2c",
        "trailers",
        "x-custom",
        "Accept",
        "",
    ]);
    prop::collection::vec(token, 1..4).prop_map(|tokens| tokens.join(" ,"))
}

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).expect(name), HeaderValue::from_str(value).expect(value));
    }
    headers
}
