//! What HTTP allows arrives as it was sent, in both directions and whichever protocol the caller speaks.

mod heads;
mod uploads;

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::Value;
use sim::caller::{Caller, Reply};
use sim::promise::{
    FRONT_DOOR,
    Promise::{Less, Nothing, Same},
};
use sim::story::{Story, Within, minutes, secs};
use sim::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One caller that speaks HTTP/1.1 and one that speaks HTTP/2.
fn callers(s: &Story) -> [Caller; 2] {
    [Caller::clone(&s.kubectl()), Caller::clone(&s.argocd())]
}

/// Fails unless an answer is a `Status` with this code.
fn expect_status(reply: Reply, code: StatusCode) -> anyhow::Result<Value> {
    let reply = reply.expect(code)?;
    let status: Value = serde_json::from_slice(&reply.body).with_context(|| format!("no JSON: {:?}", reply.text()))?;
    anyhow::ensure!(status["kind"] == "Status" && status["code"] == code.as_u16(), "{status}");
    Ok(status)
}

/// Fails unless a connection's next bytes begin with `wanted`, then an end of a head; the head.
async fn read_head(io: &mut host::Connection, wanted: &str) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.with_context(|| format!("only {:?} came", String::from_utf8_lossy(&head)))?);
    }
    let head = String::from_utf8(head).context("a head that is no text")?;
    anyhow::ensure!(head.starts_with(wanted), "{wanted} did not come, but {head}");
    Ok(head)
}

#[test]
fn path_and_query_arrive_byte_for_byte() {
    let long = format!("/echo?labelSelector={}", "q".repeat(8 * 1024));
    let targets = [
        "/",
        "//",
        "/echo//twice",
        "/echo/a%2Fb",
        "/echo/a/../b",
        "/echo/%2e%2e/b",
        "/echo/.",
        "/echo?",
        "/echo?a=b;c=d",
        "/echo;v=1",
        "/echo?a=%00&b=+&&=",
        "/echo?next=/tunnel/edge-1/x",
        "/tunnel/edge-1/echo",
        "/echo/%E2%82%AC",
        &long,
    ];
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in callers(&s) {
            for target in targets {
                caller.get("edge-1", target).within(secs(5)).await?;
                let arrived = s.api("edge-1").requests().pop().context("no request arrived")?.target;
                anyhow::ensure!(arrived == target, "{target} arrived as {arrived}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_target_beyond_32_kib_is_refused_with_414_and_goes_nowhere() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for caller in callers(&s) {
            let target = format!("/echo?{}", "q".repeat(33 * 1024));
            let reply = caller.get("edge-1", &target).within(secs(5)).await?;
            expect_status(reply, StatusCode::URI_TOO_LONG)?;
            caller.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
        }
        let n_long = s.api("edge-1").requests().iter().filter(|request| request.target.len() > 32 * 1024).count();
        anyhow::ensure!(n_long == 0, "{n_long} arrived");
        Ok(())
    });
}

#[test]
fn answers_without_a_body_keep_their_head() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in callers(&s) {
            let head =
                caller.request(Method::HEAD, "/tunnel/edge-1/bulk?bytes=1000").within(secs(5)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(head.headers.get("content-length").is_some_and(|len| len == "1000"), "{:?}", head.headers);
            anyhow::ensure!(head.headers.contains_key("content-type"), "{:?}", head.headers);
            let none = caller.get("edge-1", "/status/204").within(secs(5)).await?.expect(StatusCode::NO_CONTENT)?;
            anyhow::ensure!(!none.headers.contains_key("content-length"), "{:?}", none.headers);
            let same = caller.get("edge-1", "/status/304").within(secs(5)).await?.expect(StatusCode::NOT_MODIFIED)?;
            for reply in [&none, &same] {
                anyhow::ensure!(reply.headers.get("etag").is_some_and(|tag| tag == "\"probe\""), "{:?}", reply.headers);
            }
            for reply in [head, none, same] {
                anyhow::ensure!(reply.body.is_empty() && !reply.headers.contains_key("transfer-encoding"), "{reply:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_body_of_unknown_length_arrives_whole() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in callers(&s) {
            let known = caller.get("edge-1", "/bulk?bytes=1000003").open().within(secs(5)).await?;
            anyhow::ensure!(known.headers.get("content-length").is_some_and(|len| len == "1000003"), "{:?}", known.headers);
            let known = known.read_out(None).within(secs(5)).await?;
            let chunked = caller.get("edge-1", "/bulk?bytes=1000003&chunked=1").open().within(secs(5)).await?;
            anyhow::ensure!(!chunked.headers.contains_key("content-length"), "{:?}", chunked.headers);
            let chunked = chunked.read_out(None).within(secs(5)).await?;
            anyhow::ensure!(known.n_bytes == 1_000_003 && chunked.sha256 == known.sha256, "{known:?} and {chunked:?}");
        }
        Ok(())
    });
}

#[test]
fn a_declared_trailer_arrives_where_it_is_asked_for() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in callers(&s) {
            let reply =
                caller.get("edge-1", "/trailers").header("te", "trailers").within(secs(5)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(reply.headers.get("trailer").is_some_and(|names| names == "x-digest"), "{:?}", reply.headers);
            anyhow::ensure!(reply.text() == "a body with a trailer\n", "{}", reply.text());
            anyhow::ensure!(reply.trailers.contains_key("x-digest"), "the trailers are {:?}", reply.trailers);
        }
        let plain = s.kubectl().get("edge-1", "/trailers").within(secs(5)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(plain.text() == "a body with a trailer\n" && plain.trailers.is_empty(), "{plain:?}");
        Ok(())
    });
}

#[test]
fn an_upgrade_that_the_api_server_declines_arrives_as_its_answer() {
    World::new()
        .cluster("edge-1", |c| c)
        .version_1(Less("connections upstream are left open until the session ends"), Same)
        .tell(async |s: Story| {
            let caller = Caller::clone(&s.kubectl());
            let exec = |method: &Method, pod: &str, protocol: &str, subprotocol: &'static str| {
                let path = format!("/tunnel/edge-1/api/v1/namespaces/default/pods/{pod}/exec?command=cat&stdin=true&stdout=true");
                let call = caller.request(method.clone(), &path).header("connection", "Upgrade").header("upgrade", protocol);
                match protocol {
                    "websocket" => call
                        .header("sec-websocket-version", "13")
                        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                        .header("sec-websocket-protocol", subprotocol),
                    _ => call.header("x-stream-protocol-version", subprotocol),
                }
            };
            let version = || caller.get("edge-1", "/version");
            version().within(secs(5)).await?.expect(StatusCode::OK)?;
            for (method, protocol) in [(Method::GET, "websocket"), (Method::POST, "SPDY/3.1")] {
                for _ in 0..10 {
                    let missing = exec(&method, "nobody", protocol, "v5.channel.k8s.io").within(secs(5)).await?;
                    let status = expect_status(missing, StatusCode::NOT_FOUND)?;
                    anyhow::ensure!(status["details"]["name"] == "nobody", "{status}");
                    let unknown = exec(&method, "web-0", protocol, "v9.channel.k8s.io").within(secs(5)).await?;
                    expect_status(unknown, StatusCode::BAD_REQUEST)?;
                }
            }
            // What an upgrade was tried on is closed at both ends; ordinary connections stay for the next request.
            let n_upstream = || s.fabric().sockets().iter().filter(|socket| socket.machine == "edge-1/api").count();
            let n_front = || {
                s.fabric()
                    .sockets()
                    .iter()
                    .filter(|socket| socket.machine == "hub/server" && socket.peer == "hub/kubectl")
                    .count()
            };
            s.until("connections of declined upgrades are closed", || (n_upstream() <= 1 || s.claims_less()) && n_front() <= 1)
                .within(secs(5))
                .await?;
            version().within(secs(5)).await?.expect(StatusCode::OK)?;
            Ok(())
        });
}

#[test]
fn connect_and_trace_are_refused_and_go_nowhere() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in callers(&s) {
            let traced = caller.request(Method::TRACE, "/tunnel/edge-1/echo").within(secs(5)).await?;
            expect_status(traced, StatusCode::BAD_REQUEST)?;
        }
        // A client library would name a host in place of a path.
        let mut io = s.kubectl().dial().await?;
        io.write_all(b"CONNECT /tunnel/edge-1/echo HTTP/1.1\r\nHost: hub\r\n\r\n").await?;
        read_head(&mut io, "HTTP/1.1 400 ").within(secs(5)).await?;
        let arrived = s.api("edge-1").requests();
        anyhow::ensure!(!arrived.iter().any(|request| request.target == "/echo"), "{arrived:?}");
        Ok(())
    });
}

#[test]
fn a_request_whose_caller_leaves_before_the_answer_ends_upstream() {
    World::new()
        .cluster("edge-1", |c| c)
        .version_1(Nothing("what its caller has left goes on upstream until the session ends"), Same)
        .tell(async |s: Story| {
            let api = s.api("edge-1");
            for caller in callers(&s) {
                for upload in [0, 100, 100_000, 10_000_000] {
                    let silent = caller.request(Method::POST, "/tunnel/edge-1/silent").upload(upload);
                    let left = tokio::time::timeout(minutes(2), silent.open()).await;
                    anyhow::ensure!(left.is_err(), "a request that nobody answers was answered");
                    s.until("no request runs upstream", || api.n_requests_open() == 0).within(secs(1)).await?;
                }
                caller.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
            }
            let n_silent = api.requests().iter().filter(|request| request.target == "/silent").count();
            anyhow::ensure!(n_silent == 8, "{n_silent} arrived");
            Ok(())
        });
}
