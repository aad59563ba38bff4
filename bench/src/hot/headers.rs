//! The heads of one LIST as Argo CD asks for it, and of its answer: read as the API server reads them, and cleaned.

use std::hint::black_box;

use anyhow::{Result, ensure};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use proxy::hygiene;
use proxy::request::RequestInfo;

const PATH: &str = "/apis/apps/v1/namespaces/argocd/deployments";
const QUERY: &str = "labelSelector=app.kubernetes.io%2Finstance%3Dguestbook&limit=500&resourceVersion=0";

const REQUEST: [(&str, &str); 9] = [
    ("host", "postern-server.postern.svc:8080"),
    ("user-agent", "argocd-application-controller/v2.13.2 (linux/amd64) kubernetes/$Format"),
    ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
    ("accept-encoding", "gzip"),
    ("authorization", "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImFiYyJ9.eyJzdWIiOiJhcmdvY2QifQ.c2lnbmF0dXJl"),
    ("connection", "keep-alive"),
    ("kubectl-command", "argocd"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-forwarded-for", "10.42.0.17"),
];

const RESPONSE: [(&str, &str); 8] = [
    ("audit-id", "6f1c3f0a-9d0e-4c52-8f2b-7c1f5a2e9b11"),
    ("cache-control", "no-cache, private"),
    ("content-encoding", "gzip"),
    ("content-type", "application/json"),
    ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("transfer-encoding", "chunked"),
    ("x-kubernetes-pf-flowschema-uid", "1f4c4b1e-3d6a-4b8e-9c1c-0d9e6f5a4b3c"),
    ("x-kubernetes-pf-prioritylevel-uid", "7a2d9c3b-5e8f-4a1d-b6c2-1e3f5a7b9d0c"),
];

pub(super) fn run(count: u64) -> Result<()> {
    let (request, response) = (map(&REQUEST)?, map(&RESPONSE)?);
    for _ in 0..count {
        let mut head = black_box(&request).clone();
        ensure!(hygiene::impersonation(&head).is_none(), "nobody asked to act as somebody else");
        ensure!(hygiene::upgrade(Version::HTTP_11, &head).is_none(), "nobody asked for an upgrade");
        let info = RequestInfo::parse(black_box(&Method::GET), black_box(PATH), black_box(Some(QUERY)));
        ensure!(info.verb == "list", "a list was read as {}", info.verb);
        black_box((info.class(false), info.resource_text()));
        hygiene::clean_request(Version::HTTP_11, &mut head);
        black_box(head);
        let mut head = black_box(&response).clone();
        hygiene::clean_response(StatusCode::OK, &mut head);
        black_box(head);
    }
    Ok(())
}

fn map(lines: &[(&'static str, &'static str)]) -> Result<HeaderMap> {
    let line = |(name, value): &(&'static str, &'static str)| {
        Ok((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?))
    };
    lines.iter().map(line).collect()
}
