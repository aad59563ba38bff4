//! The checkers about themselves: each can fail, and says what is wrong.

use std::future::pending;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::credentials::{service_account_token, tunnel_token};
use crate::caller::{Ending, Entry};
use crate::stage::API_NAME;
use crate::story::{Story, secs};
use crate::world::World;

const VERSION: &str = "/tunnel/edge-1/version";

/// Why the world fails in which `story` is told.
fn failure(story: impl AsyncFnOnce(Story) -> anyhow::Result<()>) -> String {
    let world = World::new().cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    let (result, _) = world.play(story);
    result.err().map(|failure| failure.to_string()).unwrap_or_default()
}

/// Sends a request that bears the mark of another.
async fn send_marked(s: &Story, head: &str, mark: u64) -> anyhow::Result<()> {
    let mut connection = s.kubectl().dial().await?;
    let text = format!("{head} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\nx-sim-request: {mark}\r\ncontent-length: 0\r\n\r\n");
    connection.write_all(text.as_bytes()).await?;
    connection.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

#[test]
fn a_world_without_a_fault_has_no_finding() {
    let told = failure(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            caller.get("edge-1", "/version").await?;
            caller.post("edge-1", "/echo", "there and back").await?;
            caller.get("nowhere", "/version").await?;
            caller.get("edge-1", "/bulk?bytes=100000").await?;
        }
        Ok(())
    });
    assert_eq!(told, "");
}

#[test]
fn a_write_that_arrives_twice_is_found() {
    let told = failure(async |s: Story| {
        s.kubectl().post("edge-1", "/echo", "once").await?;
        let mark = s.stage().ledger.look(|book| book.asked.last_key_value().map_or(0, |(id, _)| *id));
        send_marked(&s, "POST /tunnel/edge-1/echo", mark).await
    });
    assert!(told.contains("POST /tunnel/edge-1/echo: arrived 2 times"), "{told}");
}

#[test]
fn a_write_that_is_repeated_after_it_was_taken_is_found() {
    let told = failure(async |s: Story| {
        let ledger = &s.stage().ledger;
        let write = ledger.begin_write();
        for status in [StatusCode::BAD_GATEWAY, StatusCode::OK] {
            let asking = ledger.ask(&Method::POST, "/tunnel/edge-1/echo", Some(write));
            send_marked(&s, "POST /tunnel/edge-1/echo", asking.id).await?;
            asking.answered(status);
        }
        Ok(())
    });
    assert!(told.contains("was sent again after the API server had taken it"), "{told}");
}

#[test]
fn a_request_that_arrives_at_another_cluster_is_found() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::GET, VERSION, None);
        send_marked(&s, "GET /tunnel/edge-2/version", asking.id).await
    });
    assert!(told.contains("GET /tunnel/edge-1/version arrived at edge-2"), "{told}");
}

#[test]
fn an_answer_that_nobody_gave_is_found() {
    let told = failure(async |s: Story| {
        s.stage().ledger.ask(&Method::GET, VERSION, None).answered(StatusCode::OK);
        Ok(())
    });
    assert!(told.contains("was answered 200 OK, which the API server did not say"), "{told}");
}

#[test]
fn a_refusal_in_foreign_words_is_found() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::GET, VERSION, None);
        asking.answered(StatusCode::BAD_GATEWAY);
        let kept = b"upstream connect error at postern".to_vec();
        let entry = Entry { id: asking.id, ending: Ending::Whole, n_bytes: kept.len(), kept, ..Entry::default() };
        s.stage().ledger.add(entry);
        Ok(())
    });
    assert!(told.contains("which neither the API server nor we said: \"upstream connect error"), "{told}");
}

#[test]
fn a_refusal_without_a_word_is_found() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::POST, VERSION, None);
        asking.answered(StatusCode::BAD_GATEWAY);
        s.stage().ledger.add(Entry { id: asking.id, ending: Ending::Whole, ..Entry::default() });
        Ok(())
    });
    assert!(told.contains("which neither the API server nor we said: \"\""), "{told}");
}

#[test]
fn an_invitation_to_repeat_what_was_executed_is_found() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::POST, "/tunnel/edge-1/echo", None);
        send_marked(&s, "POST /tunnel/edge-1/echo", asking.id).await?;
        asking.answered(StatusCode::SERVICE_UNAVAILABLE);
        s.stage().ledger.add(Entry { id: asking.id, has_retry_after: true, ..Entry::default() });
        Ok(())
    });
    assert!(told.contains("503 Service Unavailable with Retry-After, and the API server has it"), "{told}");
}

#[test]
fn a_request_that_nobody_works_on_is_found() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::GET, VERSION, None);
        hold(&s, asking);
        s.pass(secs(100)).await;
        Ok(())
    });
    assert!(told.contains("waits for") && told.contains("nobody works on it"), "{told}");
}

#[test]
fn a_request_that_nobody_worked_on_for_minutes_is_found_though_it_failed_then() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::GET, VERSION, None);
        s.pass(secs(300)).await;
        asking.failed();
        Ok(())
    });
    assert!(told.contains("waits for 300s") && told.contains("nobody works on it"), "{told}");
}

#[test]
fn a_request_without_an_end_is_found() {
    let told = failure(async |s: Story| {
        let asking = s.stage().ledger.ask(&Method::GET, VERSION, None);
        hold(&s, asking);
        Ok(())
    });
    assert!(told.contains("GET /tunnel/edge-1/version has no end"), "{told}");
}

#[test]
fn a_known_body_that_is_too_short_is_found() {
    // The API server decodes the first of the two, the caller believes the second.
    let told = failure(async |s: Story| s.kubectl().get("edge-1", "/bulk?byte%73=10&bytes=100").await.map(drop));
    assert!(told.contains("10 bytes came of 100"), "{told}");
}

#[test]
fn a_document_that_is_not_whole_is_found() {
    let told = failure(async |s: Story| {
        let kept = br#"{"items": ["#.to_vec();
        let entry = Entry { ending: Ending::Whole, is_document: true, n_bytes: kept.len(), kept, ..Entry::default() };
        s.stage().ledger.add(entry);
        Ok(())
    });
    assert!(told.contains("ended as if whole after 11 bytes, and is not"), "{told}");
}

/// Reads nothing of 700 kB, as no caller's connection: nobody sends it away.
async fn hold_a_stream(s: Story) -> anyhow::Result<()> {
    let mut connection = s.kubectl().dial().await?;
    connection.write_all(b"GET /tunnel/edge-1/bulk?bytes=700000 HTTP/1.1\r\nhost: hub\r\n\r\n").await?;
    hold(&s, connection);
    s.pass(secs(5)).await;
    Ok(())
}

/// Keeps something for as long as the world lasts.
fn hold(s: &Story, it: impl Send + 'static) {
    drop(s.start(async move {
        let _it = it;
        pending::<()>().await;
    }));
}

#[test]
fn a_stream_that_is_held_for_nobody_is_found() {
    let told = failure(hold_a_stream);
    assert!(told.contains("still holds") && told.contains("reserved_bytes"), "{told}");
}

#[test]
fn a_stream_that_is_held_for_nobody_is_found_wherever_the_metrics_are() {
    let ops = "0.0.0.0:9999".parse().expect("an address");
    let world = World::new()
        .hub(|hub| hub.with(|config| config.ops_addr = Some(ops)))
        .cluster("edge-1", |c| c.with(|config| config.health_addr = None));
    let told = world.play(hold_a_stream).0.expect_err("a stream is held").to_string();
    assert!(told.contains("hub/server still holds"), "{told}");
}

#[test]
fn a_program_that_does_not_say_what_it_holds_is_found() {
    let told = failure(async |s: Story| {
        hold(&s, s.refuse("edge-1/agent"));
        Ok(())
    });
    assert!(told.contains("edge-1/agent does not say what it holds"), "{told}");
}

#[test]
fn a_request_that_goes_on_upstream_is_found() {
    let told = failure(async |s: Story| {
        let mut connection = s.machine("edge-1/agent").host().dial(API_NAME, 443).await?;
        let authorization = format!("authorization: Bearer {}", service_account_token("edge-1"));
        let head = format!("GET /bulk?bytes=100000&pause_ms=60000 HTTP/1.1\r\nhost: api\r\n{authorization}\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        hold(&s, connection);
        s.pass(secs(1)).await;
        Ok(())
    });
    assert!(told.contains("1 requests still run upstream 3s after their callers left"), "{told}");
}

#[test]
fn a_task_that_outlives_a_drain_is_found() {
    let told = failure(async |s: Story| {
        s.machine("edge-1/agent").pause();
        Ok(())
    });
    assert!(told.contains("tasks are left after a drain: edge-1/agent"), "{told}");
}

#[test]
fn a_socket_that_outlives_all_programs_is_found() {
    let told = failure(async |s: Story| {
        hold(&s, s.machine("edge-1/agent").host().dial(API_NAME, 443).await?);
        Ok(())
    });
    assert!(told.contains("sockets are left after all programs ended") && told.contains("edge-1/api"), "{told}");
}

#[test]
fn a_credential_in_a_log_is_found() {
    let told = failure(async |s: Story| {
        s.note(&tunnel_token("edge-1"));
        Ok(())
    });
    assert!(told.contains("a credential stands in a log"), "{told}");
}

#[test]
fn a_credential_on_a_strange_way_is_found() {
    let told = failure(async |s: Story| {
        let mut connection = s.kubectl().dial().await?;
        connection.write_all(service_account_token("edge-1").as_bytes()).await?;
        s.pass(secs(1)).await;
        Ok(())
    });
    assert!(told.contains("the service-account credential of edge-1 went from hub/kubectl to hub/server"), "{told}");
}

#[test]
fn an_error_that_nobody_announced_is_found() {
    let told = failure(async |s: Story| {
        s.expect_error("another");
        tracing::error!("a person should look at this");
        Ok(())
    });
    assert!(told.contains("an error was logged that the story did not announce") && told.contains("a person"), "{told}");
}
