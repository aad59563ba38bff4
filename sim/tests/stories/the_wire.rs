//! Golden transcripts: what crosses between server and agent, frame by frame, in each pairing of versions.
//!
//! They are read with a table of their own, not with the tunnel's codec, so that a mistake that both ends of the codec
//! make shows. A change here is a change of the wire: PROTOCOL.md and peers in the field are concerned.

use std::fmt::Write as _;
use std::io::Cursor;

use anyhow::Context;
use futures_util::StreamExt;
use sim::promise::Promise::Nothing;
use sim::story::{Story, Within, secs};
use sim::world::World;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// How much of a payload a line shows.
const SHOWN_BYTES: usize = 48;

#[test]
fn the_wire_between_extended_peers_is_as_agreed() {
    transcript("extended", World::new().unprobed().cluster("edge-1", |c| c));
}

#[test]
fn the_wire_to_a_version_1_agent_is_as_recorded() {
    transcript("version_1_agent", World::new().unprobed().cluster("edge-1", |c| c.version_1()));
}

#[test]
fn the_wire_to_a_version_1_server_is_as_recorded() {
    transcript("version_1_server", World::new().hub(|hub| hub.version_1()).cluster("edge-1", |c| c));
}

/// Tells of a GET, a POST, a watch that its caller leaves, a longer body, and pings, as the recording of the Go programs
/// does, and compares every frame with the snapshot `name`.
fn transcript(name: &str, world: World) {
    let world = world.cold().version_1(Nothing("each pairing has a transcript of its own"), Nothing("as above"));
    world.tell(async |s: Story| {
        s.fabric().tap("hub", "edge-1");
        s.fabric().tap("edge-1", "hub");
        s.until_reachable("edge-1").within(secs(10)).await?;
        let caller = s.kubectl();
        let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"golden"}}"#;
        let posted = caller.post("edge-1", "/api/v1/namespaces/default/configmaps", body);
        posted.header("content-type", "application/json").within(secs(5)).await?;
        let mut watch = caller.get("edge-1", "/api/v1/namespaces/default/configmaps?watch=true").open().within(secs(5)).await?;
        watch.line().within(secs(5)).await?.context("a watch without an event")?;
        drop(watch);
        s.pass(secs(1)).await;
        s.api("edge-1").put("configmaps", "default", "after-the-watch", serde_json::json!({}));
        caller.get("edge-1", "/bulk?bytes=100000").within(secs(5)).await?;
        s.pass(secs(16)).await;

        let mut text = String::new();
        for (from, to, role) in [("hub", "edge-1", Role::Client), ("edge-1", "hub", Role::Server)] {
            for bytes in s.fabric().tapped(from, to) {
                let _ = writeln!(text, "{from} to {to}\n{}", frames(&bytes, role).await?);
            }
        }
        let mut settings = insta::Settings::clone_current();
        settings.add_filter("[0-9a-f]{16}", "<16 hex digits>");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, text));
        Ok(())
    });
}

/// One line for each frame, after those header lines of the upgrade that are ours.
async fn frames(bytes: &[u8], role: Role) -> anyhow::Result<String> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").context("no upgrade")? + 4;
    let mut text = String::new();
    for line in String::from_utf8_lossy(&bytes[..end]).lines().filter(|line| line.to_ascii_lowercase().starts_with("postern")) {
        let _ = writeln!(text, "  {line}");
    }
    let mut socket = WebSocketStream::from_raw_socket(Cursor::new(bytes[end..].to_vec()), role, None).await;
    // The recording ends somewhere.
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(frame) = message else { continue };
        anyhow::ensure!(frame.len() >= 5, "a frame of {} bytes", frame.len());
        let stream = u32::from_be_bytes(frame[1..5].try_into()?);
        let payload = &frame[5..];
        let shown = payload[..payload.len().min(SHOWN_BYTES)].escape_ascii();
        let line = format!("  {:<9} {stream:>2} {:>6}  {shown}", kind(frame[0]), payload.len());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    Ok(text)
}

fn kind(byte: u8) -> &'static str {
    match byte {
        0x01 => "Connect",
        0x02 => "Connected",
        0x03 => "Data",
        0x04 => "Error",
        0x05 => "Close",
        0x06 => "Ping",
        0x07 => "Pong",
        0x10 => "Hello",
        0x11 => "Open",
        0x12 => "Credit",
        0x13 => "HalfClose",
        0x14 => "Reset",
        0x15 => "GoAway",
        0x16 => "Return",
        _ => "unknown",
    }
}
