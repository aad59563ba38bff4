//! Bodies of requests: how they are announced, asked for, and refused.

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sim::apiserver::pattern;
use sim::fabric::Wan;
use sim::promise::{
    FRONT_DOOR,
    Promise::{Nothing, Same},
};
use sim::story::{Story, Within, mib, millis, minutes, secs};
use sim::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{callers, expect_status, read_head};

/// The digest of a generated upload of `n` bytes.
fn digest_of(n: usize) -> String {
    let (chunk, mut digest) = ((0..251 << 12).map(pattern).collect::<Vec<u8>>(), Sha256::new());
    for at in (0..n).step_by(chunk.len()) {
        digest.update(&chunk[..chunk.len().min(n - at)]);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn expect_upload(body: &[u8], n: usize) -> anyhow::Result<()> {
    let told: Value = serde_json::from_slice(body).context("no JSON")?;
    anyhow::ensure!(told["bytes"] == n && told["sha256"] == digest_of(n), "of {n} bytes arrived {told}");
    Ok(())
}

#[test]
fn an_upload_of_100_mib_arrives_whole() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let n = mib(100) as usize;
        let [http1, http2] = callers(&s);
        for caller in [http1, http2] {
            let call = caller.request(Method::PUT, "/tunnel/edge-1/upload").header("content-length", &n.to_string()).upload(n);
            expect_upload(&call.within(minutes(5)).await?.expect(StatusCode::OK)?.body, n)?;
        }
        let lengths: Vec<_> =
            s.api("edge-1").requests().iter().filter_map(|request| request.headers.get("content-length").cloned()).collect();
        anyhow::ensure!(lengths == ["104857600", "104857600"], "{lengths:?}");
        Ok(())
    });
}

#[test]
fn an_upload_of_unknown_length_arrives_whole() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let n = mib(20) as usize;
        for caller in callers(&s) {
            let call = caller.request(Method::PATCH, "/tunnel/edge-1/upload").upload(n);
            expect_upload(&call.within(minutes(5)).await?.expect(StatusCode::OK)?.body, n)?;
        }
        Ok(())
    });
}

#[test]
fn a_get_with_a_body_keeps_it() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let n = 100_000;
        let [http1, http2] = callers(&s);
        for method in [Method::GET, Method::DELETE] {
            // Without the header hyper's client sends no body that it cannot measure.
            let chunked = http1.request(method.clone(), "/tunnel/edge-1/upload").header("transfer-encoding", "chunked").upload(n);
            let framed = http2.request(method.clone(), "/tunnel/edge-1/upload").upload(n);
            let measured = http1.request(method, "/tunnel/edge-1/upload").header("content-length", &n.to_string()).upload(n);
            for call in [chunked, framed, measured] {
                expect_upload(&call.within(secs(5)).await?.expect(StatusCode::OK)?.body, n)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_body_that_waits_for_100_is_asked_for_by_the_api_server_alone() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        // The API server asks for the body after a second.
        for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let mut io = s.kubectl().dial().await?;
            let asked_at = tokio::time::Instant::now();
            let head = format!(
                "POST /tunnel/edge-1/upload?pause_ms=1000 HTTP/1.1\r\nHost: hub\r\n{framing}\r\nExpect: 100-continue\r\n\r\n"
            );
            io.write_all(head.as_bytes()).await?;
            read_head(&mut io, "HTTP/1.1 100 Continue\r\n").within(secs(4)).await?;
            let waited = asked_at.elapsed();
            anyhow::ensure!(waited >= secs(1), "the 100 came after {waited:?}, before the API server said it");
            let body: &[u8] =
                if framing.ends_with("5") { b"\0\x01\x02\x03\x04" } else { b"5\r\n\0\x01\x02\x03\x04\r\n0\r\n\r\n" };
            io.write_all(body).await?;
            let head = read_head(&mut io, "HTTP/1.1 200 OK\r\n").within(secs(5)).await?;
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            let mut answer = vec![0; length.context("an answer without a length")?.parse()?];
            io.read_exact(&mut answer).await?;
            expect_upload(&answer, 5)?;
        }
        let expected = s.api("edge-1").requests().iter().filter(|request| request.headers.contains_key("expect")).count();
        anyhow::ensure!(expected == 2, "the API server was told of {expected} expectations");
        Ok(())
    });
}

#[test]
fn an_expectation_over_http_2_holds_no_body_back() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let call = s.argocd().request(Method::POST, "/tunnel/edge-1/upload").header("expect", "100-continue").upload(1000);
        expect_upload(&call.within(secs(1)).await?.expect(StatusCode::OK)?.body, 1000)
    });
}

#[test]
fn an_answer_before_the_end_of_the_upload_comes_whole() {
    World::new()
        .cluster("edge-1", |c| c.over(Wan::OCEAN.with_round_trip(millis(100))))
        .version_1(Same, Nothing("it holds, and takes seconds to tell"))
        .tell(async |s: Story| {
            let n = mib(20) as usize;
            for caller in callers(&s) {
                for _ in 0..3 {
                    let measured =
                        caller.request(Method::POST, "/tunnel/edge-1/deny").header("content-length", &n.to_string()).upload(n);
                    let unmeasured = caller.request(Method::POST, "/tunnel/edge-1/deny").upload(n);
                    for call in [measured, unmeasured] {
                        let reply = call.within(secs(30)).await?;
                        let status = expect_status(reply, StatusCode::FORBIDDEN)?;
                        anyhow::ensure!(status["message"] == "denied on purpose", "{status}");
                    }
                }
                caller.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
            }
            Ok(())
        });
}

#[test]
fn a_refusal_of_a_body_that_waits_for_100_comes_without_asking_for_it() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for framing in ["Content-Length: 5000000", "Transfer-Encoding: chunked"] {
            let mut io = s.kubectl().dial().await?;
            let head = format!("POST /tunnel/edge-1/deny HTTP/1.1\r\nHost: hub\r\n{framing}\r\nExpect: 100-continue\r\n\r\n");
            io.write_all(head.as_bytes()).await?;
            read_head(&mut io, "HTTP/1.1 403 Forbidden\r\n").within(secs(2)).await?;
            let mut rest = Vec::new();
            // A connection whose body was never sent serves nothing else.
            tokio::time::timeout(secs(10), io.read_to_end(&mut rest)).await.context("the connection stayed")??;
            let rest = String::from_utf8_lossy(&rest);
            anyhow::ensure!(rest.contains("denied on purpose") && !rest.contains("100 Continue"), "{rest}");
        }
        s.until("no request runs upstream", || s.api("edge-1").n_requests_open() == 0).within(secs(1)).await
    });
}

#[test]
fn a_stuck_upload_of_an_http2_caller_ends_when_it_leaves() {
    World::new()
        .unprobed()
        .cluster("edge-1", |c| c)
        .version_1(
            Nothing("what its caller has left goes on upstream until the session ends"),
            Nothing("it has no HTTP/2 without TLS"),
        )
        .tell(async |s: Story| {
            let [_, http2] = callers(&s);
            // The API server does not read it. Over HTTP/1.1 the front door does not read either, so it cannot notice.
            let silent = http2.request(Method::POST, "/tunnel/edge-1/silent?unread=1").upload(10_000_000);
            let left = tokio::time::timeout(secs(20), silent.open()).await;
            anyhow::ensure!(left.is_err(), "a request that nobody answers was answered");
            let sockets = || s.fabric().sockets();
            let n_upstream = || sockets().iter().filter(|socket| socket.machine == "edge-1/agent" && socket.port == 443).count();
            s.until("the agent holds no connection for it", || n_upstream() == 0).within(secs(10)).await?;
            // An API server that reads nothing never notices that its peer has gone.
            s.crash("edge-1/api");
            s.restart("edge-1/api");
            Ok(())
        });
}
