//! What the server's metrics say: of each cluster what is so, after any loss, and never more series than the clusters file makes.

use anyhow::Context;
use http::{Method, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sim::fabric::Wan;
use sim::promise::{FRONT_DOOR, GO_WAITS, Promise::Nothing};
use sim::stand_in::StandIn;
use sim::story::{Story, Within, kib, millis, minutes, secs};
use sim::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Why a version 1 agent promises nothing: its sessions tell less.
const NO_COUNTS: &str = "its streams have no classes and its sessions no credit";

#[test]
fn whatever_callers_ask_and_agents_answer_makes_no_new_series() {
    World::new()
        .cluster("edge-1", |c| c.stood_in_by(StandIn::new(|_, connection| answer_as_asked(connection))))
        .version_1(Nothing(NO_COUNTS), Nothing(FRONT_DOOR))
        .tell(async |s: Story| {
            // What there may be: each code with each method that a story has patience for.
            for code in (200..520).chain([600, 999]) {
                ask(&s, "GET", code, "/known").await?;
            }
            ask(&s, "BREW", 200, "/known").await?;
            ask_elsewhere(&s, 0).await?;
            let before = series(&s).await?;
            anyhow::ensure!(before.iter().any(|line| line.contains("code=\"other\"")), "{before:#?}");
            anyhow::ensure!(before.iter().any(|line| line.contains("code=\"418\"")), "{before:#?}");
            for n in 0..200_u16 {
                ask(&s, &format!("BREW{n}"), 200, &format!("/hostile/{n}?{n}")).await?;
                ask(&s, "GET", 520 + n, &format!("/tunnel/{n}")).await?;
                ask_elsewhere(&s, n).await?;
            }
            let after = series(&s).await?;
            let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
            anyhow::ensure!(new.is_empty(), "{new:#?}");
            anyhow::ensure!(before.len() < 300, "{} series of one cluster", before.len());
            Ok(())
        });
}

#[test]
fn counts_outlive_their_sessions_and_no_series_outlives_its_cluster() {
    World::new().cluster("edge-1", |c| c).cluster("edge-2", |c| c).version_1(Nothing(GO_WAITS), Nothing(FRONT_DOOR)).tell(
        async |s: Story| {
            s.kubectl().get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
            let received = "tunnel_bytes_total{cluster=\"edge-1\",direction=\"received\"}";
            let before = value(&s, received).await?;
            anyhow::ensure!(before > 100.0, "{before}");
            s.crash("edge-1/agent");
            s.pass(secs(1)).await;
            anyhow::ensure!(value(&s, "tunnel_sessions{cluster=\"edge-1\"}").await? == 0.0);
            let ended = value(&s, "sessions_ended_total{cause=\"peer-closed\"}").await?
                + value(&s, "sessions_ended_total{cause=\"connection\"}").await?;
            anyhow::ensure!(ended == 1.0, "{ended}");
            anyhow::ensure!(value(&s, "session_lifetime_seconds_count").await? == 1.0);
            s.restart("edge-1/agent");
            s.until_reachable("edge-1").within(secs(10)).await?;
            anyhow::ensure!(value(&s, received).await? > before, "a new session begins where the old one ended");

            let mut watch = s.kubectl().get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(2)).await?;
            watch.line().within(secs(1)).await?.context("a watch without a first event")?;
            s.delist("edge-1");
            s.pass(secs(2)).await;
            let gone = |lines: &[String]| !lines.iter().any(|line| line.contains("edge-1"));
            anyhow::ensure!(gone(&series(&s).await?), "{:#?}", series(&s).await?);
            // The watch was cut with its session; its end counts, and brings nothing back.
            drop(watch);
            s.pass(secs(1)).await;
            anyhow::ensure!(gone(&series(&s).await?), "{:#?}", series(&s).await?);
            anyhow::ensure!(value(&s, "tunnel_sessions{cluster=\"edge-2\"}").await? == 1.0);
            Ok(())
        },
    );
}

#[test]
fn a_scrape_tells_how_far_agents_are_what_streams_run_and_who_is_slow() {
    let wan = Wan::OCEAN.with_round_trip(millis(140));
    World::new().cluster("edge-1", |c| c.over(wan)).version_1(Nothing(NO_COUNTS), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let mut watch = s.kubectl().get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(2)).await?;
        watch.line().within(secs(1)).await?.context("a watch without a first event")?;
        let slow = s.kubectl().get("edge-1", "/bulk?bytes=4000000").open().within(secs(2)).await?;
        let reading = s.start(slow.read_out(Some(kib(16) as u64)));
        s.pass(secs(30)).await;
        let rtt = value(&s, "tunnel_round_trip_seconds{cluster=\"edge-1\"}").await?;
        anyhow::ensure!((0.14..0.3).contains(&rtt), "{rtt}");
        for (class, n) in [("interactive", 0.0), ("watch", 1.0), ("small", 1.0), ("bulk", 0.0)] {
            let told = value(&s, &format!("tunnel_streams{{cluster=\"edge-1\",class=\"{class}\"}}")).await?;
            anyhow::ensure!(told == n, "{class}: {told}");
        }
        let buffered = value(&s, "tunnel_buffered_bytes{cluster=\"edge-1\"}").await?;
        let (reserved, budget) = (value(&s, "tunnel_reserved_bytes").await?, value(&s, "tunnel_budget_bytes").await?);
        anyhow::ensure!(0.0 < buffered && buffered <= reserved && reserved < budget, "{buffered} {reserved} {budget}");
        drop(watch);
        reading.within(minutes(10)).await??;
        Ok(())
    });
}

/// Answers each request with the code that its header names, as no API server would.
async fn answer_as_asked(connection: host::Connection) {
    let service = service_fn(async |request: http::Request<hyper::body::Incoming>| {
        let code = request.headers().get("x-code").and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
        let mut response = http::Response::new(proxy::body::empty());
        *response.status_mut() = code.unwrap_or(StatusCode::OK);
        anyhow::Ok(response)
    });
    // Its caller may leave.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

/// By hand: what is answered is no API server's, and the world would not believe it.
async fn ask(s: &Story, method: &str, code: u16, path: &str) -> anyhow::Result<()> {
    let head = format!("{method} /tunnel/edge-1{path} HTTP/1.1\r\nhost: hub\r\nx-code: {code}\r\nconnection: close\r\n\r\n");
    let answer = say(s, &head).within(secs(5)).await?;
    let wanted = format!("HTTP/1.1 {code} ");
    anyhow::ensure!(answer.starts_with(&wanted), "{code}: {answer}");
    Ok(())
}

/// Asks for clusters that are not there.
async fn ask_elsewhere(s: &Story, n: u16) -> anyhow::Result<()> {
    for target in [format!("/tunnel/edge-{n}x/version"), format!("/tunnel/%{n:02}/"), "/tunnel/".to_owned()] {
        let head = format!("GET {target} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n");
        let answer = say(s, &head).within(secs(5)).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 502 ") || answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
    }
    Ok(())
}

async fn say(s: &Story, head: &str) -> anyhow::Result<String> {
    let mut connection = s.kubectl().dial().await?;
    connection.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn scrape(s: &Story) -> anyhow::Result<String> {
    Ok(s.kubectl().request(Method::GET, "/metrics").within(secs(5)).await?.expect(StatusCode::OK)?.text())
}

/// The series of a scrape, without their values.
async fn series(s: &Story) -> anyhow::Result<Vec<String>> {
    let of_line = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
    Ok(scrape(s).await?.lines().filter(|line| !line.starts_with('#')).filter_map(of_line).collect())
}

/// The value of one series.
async fn value(s: &Story, series: &str) -> anyhow::Result<f64> {
    let text = scrape(s).await?;
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.with_context(|| format!("{series} is not in\n{text}"))
}
