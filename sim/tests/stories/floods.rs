//! Floods over HTTP/2: what one connection may ask of the front door, and its neighbours, who notice nothing.

use anyhow::Context;
use host::Connection;
use http::StatusCode;
use sim::promise::FRONT_DOOR;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, secs};
use sim::world::World;
use tokio::io::AsyncWriteExt;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Frames of a flood: more than any queue of the server is long.
const FRAMES: u32 = 5_000;

/// A kind of flood.
struct Flood {
    name: &'static str,
    /// The `n`th piece of it.
    piece: fn(u32) -> Vec<u8>,
    /// Whether the server ends the connection. Else it answers as fast as it is read, and no faster.
    ends: bool,
}

const FLOODS: [Flood; 6] = [
    Flood { name: "settings", piece: |_| frame(4, 0, 0, &[]), ends: false },
    Flood { name: "pings", piece: |_| frame(6, 0, 0, &[0; 8]), ends: false },
    Flood { name: "empty data", piece: empty_data, ends: true },
    Flood { name: "rapid reset", piece: rapid_reset, ends: true },
    Flood { name: "a head without end", piece: endless_head, ends: true },
    Flood { name: "window updates of nothing", piece: |n| frame(8, 0, n * 2 + 1, &[0; 4]), ends: true },
];

#[test]
fn a_flood_of_frames_ends_its_own_connection_or_waits_and_no_neighbour_notices() {
    for reads in [true, false] {
        for flood in FLOODS {
            World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
                let mut watch = s.argocd().watch("edge-1", CONFIG_MAPS, "0").await?;
                let flooding = s.start(pour(s.stranger("hub/kubectl", 8080).await?, flood.piece, reads));
                for n in 0..10 {
                    let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"beside-{n}"}}}}"#);
                    let made = s.argocd().post("edge-1", CONFIG_MAPS, body).within(secs(1)).await?;
                    made.expect(StatusCode::CREATED)?;
                    let event = async {
                        loop {
                            let line = watch.line().await?.context("the watch ended")?;
                            if line.contains(&format!("beside-{n}")) {
                                return anyhow::Ok(());
                            }
                        }
                    };
                    event.within(millis(500)).await.with_context(|| format!("beside a flood of {}", flood.name))?;
                    s.pass(millis(10)).await;
                }
                s.pass(secs(10)).await;
                let has_ended = flooding.within(secs(1)).await.unwrap_or(false);
                // Whoever does not read is not told of the end either, and waits.
                anyhow::ensure!(!reads || has_ended == flood.ends, "{}: ended: {has_ended}", flood.name);
                Ok(())
            });
        }
    }
}

/// Sends the flood, and reads what is answered or does not; whether the server has put an end to it.
async fn pour(connection: Connection, piece: fn(u32) -> Vec<u8>, reads: bool) -> bool {
    let (mut from, mut to) = tokio::io::split(connection);
    let read = async {
        if !reads {
            std::future::pending::<()>().await;
        }
        // An end of either kind is one.
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    };
    let write = async {
        let mut bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
        for n in 0..FRAMES {
            bytes.extend(piece(n));
            if bytes.len() > 16 * 1024 {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
                bytes.clear();
            }
        }
        std::future::pending().await
    };
    let ended = async {
        tokio::select! {
            biased;
            () = read => {}
            () = write => {}
        }
    };
    tokio::time::timeout(secs(9), ended).await.is_ok()
}

/// RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET /tunnel/edge-1/version`, or a POST (RFC 7541 sections 6.1 and 6.2.2).
fn head(stream: u32, flags: u8) -> Vec<u8> {
    let path = b"/tunnel/edge-1/version";
    let method = if flags & END_STREAM == 0 { 0x83 } else { 0x82 };
    let fields = [&[method, 0x86, 4, path.len() as u8][..], path, &[1, 3], b"hub"].concat();
    frame(1, flags, stream, &fields)
}

fn rapid_reset(n: u32) -> Vec<u8> {
    [head(n * 2 + 1, END_STREAM | END_HEADERS), frame(3, 0, n * 2 + 1, &8_u32.to_be_bytes())].concat()
}

/// CONTINUATION without END_HEADERS.
fn endless_head(n: u32) -> Vec<u8> {
    let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    if n == 0 { head(1, END_STREAM) } else { frame(9, 0, 1, &field) }
}

fn empty_data(n: u32) -> Vec<u8> {
    if n == 0 { head(1, END_HEADERS) } else { frame(0, 0, 1, &[]) }
}
