//! Heads of requests and answers up to their limits, and beyond.

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::Value;
use sim::caller::{Call, Caller, Protocol};
use sim::promise::{
    FRONT_DOOR,
    Promise::{Nothing, Same},
};
use sim::story::{Story, Within, kib, secs};
use sim::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::callers;

/// The most fields of a request that pass beside those that every caller adds: Host, Authorization and its mark.
const FIELDS_MAX: usize = 256 - 3;

/// `GET /echo` with so many fields of so many bytes each.
fn with_fields(caller: &Caller, n: usize, value_bytes: usize) -> Call {
    let value = "v".repeat(value_bytes);
    (0..n).fold(caller.get("edge-1", "/echo"), |call, i| call.header(FIELD_NAMES[i], &value))
}

/// `x-f-000` to `x-f-299`, which live as long as the process.
static FIELD_NAMES: std::sync::LazyLock<Vec<&'static str>> =
    std::sync::LazyLock::new(|| (0..300).map(|i| &*Box::leak(format!("x-f-{i:03}").into_boxed_str())).collect());

/// How many of the fields the API server has seen.
fn n_seen(body: &[u8]) -> anyhow::Result<usize> {
    let echoed: Value = serde_json::from_slice(body).context("no JSON")?;
    let fields = echoed["headers"].as_array().context("no headers")?;
    Ok(fields.iter().filter(|field| field[0].as_str().is_some_and(|name| name.starts_with("x-f-"))).count())
}

#[test]
fn a_request_with_256_fields_arrives_with_all_of_them() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for caller in callers(&s) {
            for n in [200, 220, FIELDS_MAX] {
                let reply = with_fields(&caller, n, 10).within(secs(5)).await?.expect(StatusCode::OK)?;
                anyhow::ensure!(n_seen(&reply.body)? == n, "of {n} arrived {}", n_seen(&reply.body)?);
            }
        }
        Ok(())
    });
}

#[test]
fn a_request_head_of_almost_64_kib_arrives() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for caller in callers(&s) {
            // One long field, a row of middling ones, and as many as may be.
            for (n, value_bytes) in [(1, 63 * 1024), (63, 1000), (FIELDS_MAX, 240)] {
                let reply = with_fields(&caller, n, value_bytes).within(secs(5)).await?;
                let reply = reply.expect(StatusCode::OK).with_context(|| format!("{n} fields of {value_bytes} bytes"))?;
                anyhow::ensure!(n_seen(&reply.body)? == n, "of {n} arrived {}", n_seen(&reply.body)?);
            }
        }
        Ok(())
    });
}

#[test]
fn an_answer_head_of_many_fields_and_almost_64_kib_arrives() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for caller in callers(&s) {
            for (n, bytes) in [(240, kib(10)), (1, kib(63)), (60, kib(63)), (240, kib(63))] {
                let reply = caller.get("edge-1", &format!("/head?fields={n}&bytes={bytes}")).within(secs(5)).await?;
                let reply = reply.expect(StatusCode::OK).with_context(|| format!("{n} fields of {bytes} bytes together"))?;
                let n_arrived = reply.headers.keys().filter(|name| name.as_str().starts_with("x-field-")).count();
                anyhow::ensure!(n_arrived == n, "of {n} arrived {n_arrived}");
                anyhow::ensure!(reply.text() == "a body after a long head", "{}", reply.text());
            }
        }
        Ok(())
    });
}

#[test]
fn a_head_past_the_limits_is_refused_visibly_and_alone() {
    World::new()
        .cluster("edge-1", |c| c)
        .version_1(Nothing("the agent reads no heads: what the server takes goes on"), Same)
        .tell(async |s: Story| {
            for (watcher, caller) in callers(&s).into_iter().zip(callers(&s)) {
                let mut watch =
                    watcher.get("edge-1", "/api/v1/namespaces/default/configmaps?watch=1").open().within(secs(5)).await?;
                for (n, value_bytes) in [(300, 10), (200, 1000), (4, 50_000)] {
                    match with_fields(&caller, n, value_bytes).within(secs(5)).await {
                        Ok(reply) => anyhow::ensure!(
                            reply.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                            "{n} fields of {value_bytes} bytes got {}",
                            reply.status
                        ),
                        // The 431 of a head that is still being sent may lose to the reset of its unread rest, or to
                        // HTTP/2's own word for a head without end.
                        Err(error) => {
                            let words = format!("{error:#}");
                            let is_visible = words.contains("reset") || words.contains("too_many_continuations");
                            anyhow::ensure!(n < 300 && is_visible, "{words}");
                        }
                    }
                    caller.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
                }
                s.api("edge-1").put("configmaps", "default", "seen", serde_json::json!({}));
                watch.line().within(secs(5)).await?.context("the watch has ended")?;
            }
            anyhow::ensure!(s.n_sessions().await? == 1, "the agent's session ended");
            Ok(())
        });
}

#[test]
fn an_answer_head_past_the_limits_is_a_visible_failure_and_disturbs_nothing() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for caller in [Protocol::Http1, Protocol::Http2].map(|protocol| s.kubectl().over(protocol)) {
            for (n, bytes) in [(300, kib(10)), (80, kib(100))] {
                let failed =
                    caller.request(Method::GET, &format!("/tunnel/edge-1/head?fields={n}&bytes={bytes}")).within(secs(5)).await?;
                super::expect_status(failed, StatusCode::BAD_GATEWAY)?;
            }
            caller.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::OK)?;
        }
        anyhow::ensure!(s.n_sessions().await? == 1, "the agent's session ended");
        Ok(())
    });
}

#[test]
fn a_target_with_a_fragment_is_refused_and_never_cut() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let mut io = s.kubectl().dial().await?;
        // On one connection, behind a good request and after a body that looks like one.
        let bytes = "GET /tunnel/edge-1/version HTTP/1.1\r\nHost: hub\r\n\r\n\
                     POST /tunnel/edge-1/echo HTTP/1.1\r\nHost: hub\r\nContent-Length: 20\r\n\r\nGET /a#b HTTP/1.1\r\n\n\
                     DELETE /tunnel/edge-1/api/v1/namespaces/default#/pods/web-0 HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
        io.write_all(bytes.as_bytes()).await?;
        let mut answers = String::new();
        tokio::time::timeout(secs(5), io.read_to_string(&mut answers)).await.context("the connection stayed")??;
        let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
        anyhow::ensure!(statuses == ["200", "200", "400"], "{answers}");
        anyhow::ensure!(answers.contains("Fragment"), "{answers}");
        anyhow::ensure!(s.api("edge-1").executed_writes().iter().all(|write| write.name != "default"), "a cut target was served");
        Ok(())
    });
}
