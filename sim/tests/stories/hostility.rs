//! Hub and agent are each hostile to the other, with good credentials and at the wire: neither gets more than its due.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use e2e::corpus::{self, Arrived, FarEnd, Protocol as Spoken, Request, say};
use futures_util::{SinkExt, StreamExt};
use host::{Connection, Host};
use http::StatusCode;
use sim::promise::{FRONT_DOOR, Promise::Nothing};
use sim::rogue::{self, Rogue};
use sim::stand_in::StandIn;
use sim::story::{Story, Within, mib, minutes, secs};
use sim::world::{World, service_account_token, tunnel_token};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::Message;
use tunnel::frame::{Frame, Hello, Open};
use tunnel::id::StreamId;
use tunnel::{Protocol, Reason};

/// Why nothing is promised with peers of version 1: one end is played by a rogue.
const ROGUE: &str = "the story is about our end, and the other one is no peer of any version";

/// Longer than any answer takes here.
const QUIET: Duration = secs(2);

/// What the agent calls its target.
const TARGET: &str = "kubernetes.default.svc:443";

/// Where clouds keep their secrets.
const METADATA: &str = "169.254.169.254:80";

/// What a hub may still say at an agent, beside the corpus.
const MORE: [&str; 9] = [
    "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nhost: 169.254.169.254\r\n\r\n",
    "CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: 169.254.169.254:80\r\n\r\n",
    "TRACE / HTTP/1.1\r\nhost: x\r\nmax-forwards: 0\r\n\r\n",
    "GET /api HTTP/1.1\r\nhost: x\r\nauthorization: Bearer of-the-hub\r\nauthorization: Basic x\r\n\r\n",
    "GET /api HTTP/1.1\r\nhost: x\r\nimpersonate-user: system:admin\r\nimpersonate-group: system:masters\r\n\r\n",
    "GET /api HTTP/1.1\r\nhost: x\r\nx-remote-user: system:admin\r\nx-remote-group: system:masters\r\n\r\n",
    "GET /api HTTP/1.1\r\nhost: x\r\nconnection: authorization, audit-id, host\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\x16\x03\x01\x00\x05hello",
];

/// What a hostile hub tells of its attacks.
#[derive(Default)]
struct Told {
    /// All that the agent answered.
    answers: Vec<Vec<u8>>,
    /// How many attacks have ended.
    n_attacks: usize,
}

type Shared = Arc<Mutex<Told>>;

#[test]
fn a_hostile_hub_gets_nothing_out_of_an_agent_but_answers_to_clean_requests() {
    let (far_end, told) = (FarEnd::default(), Shared::default());
    let (served, shared) = (far_end.clone(), told.clone());
    let api = StandIn::new(move |_, io| {
        let served = served.clone();
        async move { served.serve(io, Vec::new()).await }
    });
    let hub = StandIn::new(move |host, io| {
        let shared = shared.clone();
        // Each attack is a session, and whoever is attacked dials again.
        async move { drop(attack(&host, io, &shared).await) }
    });
    World::new()
        .hub(|hub_of| hub_of.stood_in_by(hub))
        .cluster("edge-1", move |c| c.with(|config| config.streams_max = STREAMS_MAX).stood_in_by(api))
        .cold()
        .version_1(Nothing(ROGUE), Nothing(ROGUE))
        .tell(async |s: Story| {
            s.until("all attacks have ended", || look(&told).n_attacks == ATTACKS).within(minutes(10)).await?;
            let told = std::mem::take(&mut *look(&told));
            for secret in [service_account_token("edge-1"), tunnel_token("edge-1")] {
                let answer = told.answers.iter().find(|answer| contains(answer, secret.as_bytes()));
                ensure!(answer.is_none(), "a secret is told: {answer:?}");
            }
            let n_bytes = s.fabric().n_bytes("hub", "edge-1");
            ensure!(n_bytes < mib(4), "{n_bytes} bytes were taken, most of them of a head without end");
            let (mut n_whole, mut n_parts) = (0, 0);
            for arrived in far_end.take() {
                match arrived.judged(&service_account_token("edge-1"), TARGET) {
                    Arrived::Whole(request) => {
                        n_whole += 1;
                        expect_clean(&request)?;
                    }
                    Arrived::Part(request) => {
                        n_parts += 1;
                        expect_clean(&request)?;
                    }
                    Arrived::Broken(why) => anyhow::bail!("no request, or not the agent's own: {why}"),
                }
            }
            ensure!(n_whole > 40, "only {n_whole} clean requests arrived: the attacks did not get through");
            // Of each session's, and some of the corpus.
            ensure!((STREAMS_MAX..2 * STREAMS_MAX).contains(&n_parts), "{n_parts} requests ran at once");
            let dialled = s.fabric().dialled("edge-1/agent");
            let ports: Vec<_> = dialled.iter().map(|to| to.port()).collect();
            ensure!(dialled.len() == 2 && ports.contains(&443) && ports.contains(&8443), "it dialled {dialled:?}");
            Ok(())
        });
}

/// How many streams the agent allows.
const STREAMS_MAX: usize = 16;

const ATTACKS: usize = 4;

async fn attack(host: &Host, io: Connection, told: &Shared) -> anyhow::Result<()> {
    let n_attacks = look(told).n_attacks;
    let result = match n_attacks {
        0 => say_all(host, io, told).await,
        1 => connect_elsewhere(host, io, told).await,
        2 => open_too_many(io).await,
        3 => send_a_head_without_end(host, io).await,
        _ => {
            let (session, _incoming) = rogue::accept(host, io, Protocol::Extended).await?;
            session.ended().await;
            Ok(())
        }
    };
    look(told).n_attacks += 1;
    result
}

/// Every word of the corpus, as if the server had let it pass, and more.
async fn say_all(host: &Host, io: Connection, told: &Shared) -> anyhow::Result<()> {
    let (session, _incoming) = rogue::accept(host, io, Protocol::Extended).await?;
    let cases = corpus::requests()?.into_iter().filter(|case| case.protocol == Spoken::Http1);
    let words = cases.map(|case| replaced(&case.said, b"/tunnel/edge-1", b""));
    for words in words.chain(MORE.map(|words| words.as_bytes().to_vec())) {
        let open = Open { target: METADATA.to_owned(), ..identified() };
        let mut stream = session.open(open).context("a session that takes no more")?;
        let reply = say(&mut stream, &words, QUIET, |_| false).await;
        look(told).answers.push(reply.bytes);
    }
    session.close(Reason::Draining);
    Ok(())
}

/// In version 1 the hub names the place to connect to.
async fn connect_elsewhere(host: &Host, io: Connection, told: &Shared) -> anyhow::Result<()> {
    let (session, _incoming) = rogue::accept(host, io, Protocol::V1).await?;
    for target in [METADATA, "127.0.0.1:8081", "localhost:22", "hub:8443", "kubernetes.default.svc:6443", "", "@/\r\n\0"] {
        let mut stream = session.open(Open { target: target.to_owned(), ..Open::default() })?;
        let reply = say(&mut stream, b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n", QUIET, |_| false).await;
        look(told).answers.push(reply.bytes);
    }
    session.close(Reason::Draining);
    Ok(())
}

/// Streams far beyond what the agent's hello allows, each with a request that never ends.
async fn open_too_many(io: Connection) -> anyhow::Result<()> {
    let mut io = rogue::accept_raw(io, Protocol::Extended).await?;
    let (window, name) = (1 << 30, "a rogue".to_owned());
    let hello = Hello {
        version_min: 2,
        version_max: 2,
        initial_window: window,
        streams_max: u32::MAX,
        streams: 0,
        name,
        ..Hello::default()
    };
    io.send(message(&Frame::Hello(hello))).await?;
    let payload = Bytes::from_static(b"POST /too-many HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n");
    for number in 1..2000 {
        let stream = StreamId(number);
        for frame in [Frame::Open { stream, open: identified() }, Frame::Data { stream, payload: payload.clone() }] {
            io.send(message(&frame)).await?;
        }
    }
    while let Ok(Some(Ok(_))) = tokio::time::timeout(QUIET, io.next()).await {}
    Ok(())
}

/// A head of 100 MB.
async fn send_a_head_without_end(host: &Host, io: Connection) -> anyhow::Result<()> {
    let (session, _incoming) = rogue::accept(host, io, Protocol::Extended).await?;
    let mut stream = session.open(identified())?;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n").await?;
    let field = [b"x-a: ", &[b'a'; 32 * 1024][..], b"\r\n"].concat();
    for _ in 0..mib(100) / field.len() as u64 {
        // What the agent wants no more of is dropped here, or not taken.
        if tokio::time::timeout(QUIET, stream.write_all(&field)).await.is_err() {
            break;
        }
    }
    session.close(Reason::Draining);
    Ok(())
}

/// A stream whose request is found in both logs.
fn identified() -> Open {
    Open { request_id: "attack".to_owned(), ..Open::default() }
}

/// Nothing that a rule forbids.
fn expect_clean(request: &Request) -> anyhow::Result<()> {
    ensure!(!["CONNECT", "TRACE"].contains(&request.method.as_str()), "{request:?}");
    ensure!(!["/elsewhere", "/endless"].contains(&request.target.as_str()), "{request:?}");
    for (name, value) in &request.fields {
        let spelled = name.replace('_', "-");
        let forbidden = ["impersonate-", "x-remote-", "proxy-", "cookie", "keep-alive", "http2-settings"];
        ensure!(!forbidden.iter().any(|prefix| spelled.starts_with(prefix)), "{name} in {request:?}");
        let is_upgrade = ["websocket", "SPDY/3.1"].iter().any(|protocol| value == protocol.as_bytes());
        ensure!(name != "upgrade" || is_upgrade, "{request:?}");
    }
    Ok(())
}

#[test]
fn a_hostile_agent_that_dials_a_thousand_times_under_anothers_name_takes_nothing_from_others() {
    let rogue = Rogue::new(|host| async move {
        let mut sessions = Vec::new();
        // All places of its cluster, and then knocking for ever.
        for _ in 0..1000 {
            if let Ok((session, incoming)) = rogue::dial(&host, "ship-7", "postern-agent/edge-1").await {
                sessions.push((session, incoming));
            }
        }
        std::future::pending().await
    });
    let world = World::new().unprobed().cluster("edge-1", |c| c).cluster("ship-7", move |c| c.played_by(rogue));
    world.version_1(Nothing(ROGUE), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for _ in 0..50 {
            let reply = s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            ensure!(reply.took < secs(1), "{:?}", reply.took);
            s.pass(Duration::from_millis(100)).await;
        }
        let n_sessions = s.n_sessions().await?;
        ensure!(n_sessions <= SESSIONS_PER_CLUSTER_MAX + 1, "{n_sessions} sessions");
        ensure!(n_sessions > SESSIONS_PER_CLUSTER_MAX / 2, "only {n_sessions} sessions: the attack did not get through");
        Ok(())
    });
}

/// What the server allows each cluster.
const SESSIONS_PER_CLUSTER_MAX: usize = 32;

#[test]
fn a_hostile_agent_that_speaks_of_streams_which_nobody_opened_is_thrown_out_alone() {
    let rogue = Rogue::new(|host| async move {
        for kind in 0..6 {
            let mut io = rogue::dial_raw(&host, "ship-7").await?;
            let name = "edge-1".to_owned();
            let hello = Hello {
                version_min: 2,
                version_max: 2,
                initial_window: 1 << 30,
                streams_max: 9,
                streams: 0,
                name,
                ..Hello::default()
            };
            io.send(message(&Frame::Hello(hello))).await?;
            for number in [1, 2, 3, 1000, u32::MAX] {
                io.send(message(&unasked(kind, StreamId(number)))).await?;
            }
            // It listens until it is thrown out, or nothing comes of it.
            while let Ok(Some(Ok(_))) = tokio::time::timeout(secs(1), io.next()).await {}
        }
        Ok(())
    });
    let world = World::new().cluster("edge-1", |c| c).cluster("ship-7", move |c| c.played_by(rogue)).cold();
    world.version_1(Nothing(ROGUE), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.until_reachable("edge-1").within(secs(30)).await?;
        let path = "/api/v1/namespaces/default/configmaps?watch=1";
        let mut watch = s.kubectl().get("edge-1", path).open().within(secs(5)).await?;
        for n in 0..2 {
            // Whatever becomes of those of the rogue, they end.
            let call = s.kubectl().get("ship-7", "/version").within(secs(60)).await;
            s.note(&format!("the rogue's own callers are told {:?}", call.map(|reply| reply.status)));
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            s.api("edge-1").put("configmaps", "default", &format!("seen-{n}"), serde_json::json!({}));
            watch.line().within(secs(1)).await?.context("the watch of another cluster has ended")?;
        }
        Ok(())
    });
}

/// An answer to nothing.
fn unasked(kind: u32, stream: StreamId) -> Frame {
    match kind {
        0 => Frame::Data { stream, payload: Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc") },
        1 => Frame::HalfClose { stream },
        2 => Frame::Credit { stream, bytes: u32::MAX },
        3 => Frame::Open { stream, open: Open::default() },
        4 => Frame::Connected { stream },
        _ => Frame::Error { stream, text: "no".to_owned() },
    }
}

fn message(frame: &Frame) -> Message {
    Message::Binary(frame.encode())
}

fn look(told: &Shared) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    [&out[..], rest].concat()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
