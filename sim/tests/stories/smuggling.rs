//! Hostile words at both listeners and hostile answers: nothing passes, or exactly one clean request, and nobody who
//! shares a connection reads another's bytes. The tables are `e2e/testdata/requests.txt` and `answers.txt`.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use e2e::corpus::{self, Arrived, Case, FarEnd, Protocol, Request, say};
use host::{Connection, Host};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sim::promise::{
    FRONT_DOOR,
    Promise::{Nothing, Same},
};
use sim::rogue::{self, Rogue};
use sim::stand_in::StandIn;
use sim::story::{Story, millis, secs};
use sim::world::{World, service_account_token};
use tokio::io::AsyncReadExt;

/// Longer than any answer takes here; shorter than any time limit of the server.
const QUIET: Duration = secs(2);

/// What the agent calls its target.
const TARGET: &str = "kubernetes.default.svc:443";

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI ";

#[test]
fn of_hostile_requests_nothing_arrives_or_exactly_one_clean_request() {
    play_all(false);
}

#[test]
fn of_hostile_requests_nothing_arrives_over_http2_either() {
    play_all(true);
}

fn play_all(over_http2: bool) {
    let far_end = FarEnd::default();
    let stand_in = stand_in(&far_end);
    World::new()
        .unprobed()
        .cluster("edge-1", move |c| if over_http2 { c.tls_upstream() } else { c }.stood_in_by(stand_in))
        .version_1(Nothing("it forwards bytes that its server made"), Nothing(FRONT_DOOR))
        .tell(async |s: Story| {
            let mut wrong = Vec::new();
            for case in corpus::requests()? {
                for in_one_piece in [true, false] {
                    let result = play(&s, &far_end, &case, in_one_piece, over_http2).await;
                    wrong.extend(result.err().map(|error| format!("[{}] in one piece: {in_one_piece}: {error:#}", case.name)));
                }
            }
            ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
            Ok(())
        });
}

/// Plays one case, with a harmless request right behind it or later, and compares.
async fn play(s: &Story, far_end: &FarEnd, case: &Case, in_one_piece: bool, over_http2: bool) -> anyhow::Result<()> {
    let mut io = s.kubectl().dial().await?;
    let has_all = |bytes: &[u8]| case.has_all(bytes);
    let reply = if in_one_piece {
        say(&mut io, &case.said_with_next(), QUIET, has_all).await
    } else {
        let mut reply = say(&mut io, &case.said, QUIET, |_| false).await;
        if !reply.has_ended {
            let more = say(&mut io, &case.next(false), QUIET, has_all).await;
            reply.bytes.extend(more.bytes);
            reply.has_ended = more.has_ended;
        }
        reply
    };
    drop(io);
    // What is cut here is cut at the far end within a round trip.
    s.pass(millis(100)).await;
    let arrived: Vec<_> = far_end.take().into_iter().map(|one| one.judged(&service_account_token("edge-1"), TARGET)).collect();
    case.judge(arrived, &reply, over_http2)
}

#[test]
fn of_hostile_requests_at_the_agents_door_nothing_arrives() {
    let far_end = FarEnd::default();
    let stand_in = stand_in(&far_end);
    World::new()
        .unprobed()
        .cluster("edge-1", move |c| c.stood_in_by(stand_in.clone()))
        .version_1(Same, Nothing(FRONT_DOOR))
        .tell(async |s: Story| {
            for case in corpus::requests()? {
                let mut io = s.kubectl().dial_at(8443).await?;
                let reply = say(&mut io, &case.said_with_next(), secs(15), |_| false).await;
                ensure!(reply.has_ended, "[{}] holds its place", case.name);
                let arrived = far_end.take();
                ensure!(arrived.is_empty(), "[{}] {arrived:?}", case.name);
                let status = corpus::answer(&reply.bytes, "GET", true).ok().flatten().map(|(answer, _)| answer.status);
                ensure!(status.is_none_or(|status| (400..500).contains(&status)), "[{}] was told {status:?}", case.name);
            }
            ensure!(s.n_sessions().await? == 1, "the agent's session ended");
            Ok(())
        });
}

/// An API server that keeps what it hears, over HTTP/1.1 and HTTP/2.
fn stand_in(far_end: &FarEnd) -> StandIn {
    let far_end = far_end.clone();
    StandIn::new(move |host, mut io| {
        let far_end = far_end.clone();
        async move {
            let mut heard = Vec::new();
            while heard.len() < PREFACE.len() && PREFACE.starts_with(&heard) {
                if !io.read_buf(&mut heard).await.is_ok_and(|n| n > 0) {
                    return;
                }
            }
            if heard.starts_with(PREFACE) {
                serve_http2(&host, heard, io, far_end).await;
            } else {
                far_end.serve(io, heard).await;
            }
        }
    })
}

/// Keeps requests that came over HTTP/2 as if they had come over HTTP/1.1.
async fn serve_http2(host: &Host, heard: Vec<u8>, io: Connection, far_end: FarEnd) {
    let (reader, writer) = tokio::io::split(io);
    let io = tokio::io::join(std::io::Cursor::new(heard).chain(reader), writer);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let far_end = far_end.clone();
        async move {
            let (head, body) = request.into_parts();
            let mut fields: Vec<_> =
                head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
            let host = head.uri.authority().map(|host| host.as_str().as_bytes().to_vec()).unwrap_or_default();
            fields.push(("host".to_owned(), host));
            fields.sort();
            let (method, target) =
                (head.method.to_string(), head.uri.path_and_query().map(ToString::to_string).unwrap_or_default());
            let mut request = Request { method, target, fields, body: Vec::new() };
            let answer = Full::new(Bytes::from(format!("{} {}\n", request.method, request.target)));
            match body.collect().await {
                Ok(body) if body.trailers().is_some() => far_end.note(Arrived::Broken(format!("trailers {:?}", body.trailers()))),
                Ok(body) => {
                    request.body = body.to_bytes().to_vec();
                    far_end.note(Arrived::Whole(request));
                }
                Err(_) => far_end.note(Arrived::Part(request)),
            }
            Ok::<_, std::convert::Infallible>(hyper::Response::new(answer))
        }
    });
    // Agents end their connections when they end.
    let _ = hyper::server::conn::http2::Builder::new(host.tasks().clone())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(io), service)
        .await;
}

#[test]
fn a_hostile_answer_is_told_as_one_answer_and_the_next_request_has_its_own() {
    let stand_in = stand_in(&FarEnd::lying());
    hear_all(World::new().cluster("edge-1", move |c| c.stood_in_by(stand_in)));
}

#[test]
fn an_agent_that_lies_in_its_answers_is_told_as_one_answer_too() {
    let liar = FarEnd::lying();
    let rogue = Rogue::new(move |host| {
        let liar = liar.clone();
        async move {
            let (_session, mut incoming) = rogue::dial(&host, "edge-1", "liar").await?;
            while let Some((_, stream)) = incoming.next().await {
                let liar = liar.clone();
                stream.accept();
                host.spawn("liar", async move { liar.serve(stream, Vec::new()).await });
            }
            Ok(())
        }
    });
    hear_all(World::new().cluster("edge-1", move |c| c.played_by(rogue)));
}

fn hear_all(world: World) {
    world.version_1(Nothing("it forwards bytes that its server reads"), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let mut wrong = Vec::new();
        for (case, number) in corpus::answers()?.iter().zip(0..) {
            for method in ["GET", "POST"] {
                for protocol in [Protocol::Http1, Protocol::Http2] {
                    let mut io = s.kubectl().dial().await?;
                    let result = case.hear(&mut io, (number, method, protocol), QUIET).await;
                    wrong.extend(result.err().map(|error| format!("[{}] {method} {protocol:?}: {error:#}", case.name)));
                }
            }
        }
        ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(s.n_sessions().await? == 1, "the agent's session ended");
        Ok(())
    });
}
