//! Doors: who takes a place at a listener and does nothing with it has it no longer than nobody else wants it.

use std::time::Duration;

use host::Connection;
use http::StatusCode;
use sim::promise::FRONT_DOOR;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, minutes, secs};
use sim::world::{World, tunnel_token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::claims::{INTERNAL, PUBLIC};

#[test]
fn who_was_let_through_to_no_cluster_makes_way_for_who_is_and_that_one_stays() {
    let world = World::new().hub(|hub| hub.with(|config| config.caller_connections_max = 20)).cluster("edge-1", |c| c);
    world.version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let mut good = s.stranger("hub/argocd", INTERNAL).await?;
        anyhow::ensure!(ask(&mut good, "/tunnel/edge-1/version", "").within(secs(1)).await? == "200");
        let mut idle = Vec::new();
        for (path, status) in [("/healthz", "200"), ("/tunnel/nowhere/version", "502")].into_iter().cycle().take(60) {
            let mut connection = s.stranger("hub/kubectl", INTERNAL).await?;
            anyhow::ensure!(ask(&mut connection, path, "").within(secs(1)).await? == status);
            idle.push(connection);
        }
        s.argocd().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(ask(&mut good, "/tunnel/edge-1/version", "").within(secs(1)).await? == "200");
        Ok(())
    });
}

#[test]
fn sessions_without_a_hello_take_their_clusters_places_and_no_more() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let token = tunnel_token("edge-1");
        let fields = format!(
            "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\npostern-tunnel: 2\r\nauthorization: Bearer {token}\r\n"
        );
        // One of 32 places has the agent, after as long as a hello may take the others have nobody.
        for _ in 0..2 {
            let mut upgraded = Vec::new();
            for n in 0..40 {
                let mut connection = s.stranger("edge-1/agent", PUBLIC).await?;
                let status = ask(&mut connection, "/connect", &fields).within(secs(1)).await?;
                anyhow::ensure!(status == if n < 31 { "101" } else { "503" }, "{status} for the {n}th");
                upgraded.push(connection);
            }
            s.pass(secs(15)).await;
        }
        Ok(())
    });
}

#[test]
fn an_http2_connection_without_a_request_is_closed_and_one_with_a_quiet_watch_is_not() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let idle = lifetime(&s, "/healthz", true).within(minutes(3)).await?;
        anyhow::ensure!(idle >= secs(120) && idle < secs(121), "{idle:?}");
        let defiant = lifetime(&s, "/healthz", false).within(minutes(3)).await?;
        anyhow::ensure!(defiant >= secs(120) && defiant < secs(141), "{defiant:?}");
        let watching = lifetime(&s, "/tunnel/edge-1/api/v1/namespaces/default/pods?watch=true", true);
        anyhow::ensure!(watching.within(minutes(6)).await.is_err(), "a watch was ended");
        Ok(())
    });
}

/// Asks over HTTP/1.1; the status.
async fn ask(connection: &mut Connection, path: &str, fields: &str) -> anyhow::Result<String> {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: hub\r\n{fields}\r\n").as_bytes()).await?;
    let mut answer = [0; 4096];
    let len = connection.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..len]).chars().skip(9).take(3).collect())
}

/// How long a connection lives on which `path` is asked once over HTTP/2 and every ping is answered; `leaves` = also that by
/// which the hub wants to learn that its farewell has arrived.
async fn lifetime(s: &Story, path: &str, leaves: bool) -> anyhow::Result<Duration> {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const ACK: u8 = 1;
    // The library's own: its other pings have another payload.
    const FAREWELL: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
    let mut connection = s.stranger("hub/argocd", INTERNAL).await?;
    // GET, http, and the path and the authority as literals (RFC 7541 appendix A).
    let path = [&[0x82, 0x86, 0x04, u8::try_from(path.len())?], path.as_bytes()].concat();
    let head = [&path[..], &[0x01, 3], b"hub"].concat();
    let headers = [&[0, 0, u8::try_from(head.len())?, 1, 5, 0, 0, 0, 1], &head[..]].concat();
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    connection.write_all(&headers).await?;
    let began = Instant::now();
    let mut frame = [0; 9];
    while connection.read_exact(&mut frame).await.is_ok() {
        let mut payload = vec![0; usize::from(frame[1]) << 8 | usize::from(frame[2])];
        connection.read_exact(&mut payload).await?;
        let answer = match (frame[3], frame[4] & ACK) {
            (SETTINGS, 0) => [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0].to_vec(),
            (PING, 0) if leaves || payload != FAREWELL => [&[0, 0, 8, PING, ACK, 0, 0, 0, 0], &payload[..]].concat(),
            (PING, _) => {
                // It shows that it lives, and does not say what it was asked.
                s.pass(secs(5)).await;
                [&[0, 0, 8, PING, 0, 0, 0, 0, 0], &[7; 8][..]].concat()
            }
            (_, _) => continue,
        };
        if connection.write_all(&answer).await.is_err() {
            break;
        }
    }
    Ok(began.elapsed())
}
