//! Limits: who asks for too much, holds too much or guesses is slowed down, and nobody else is.

use std::time::Duration;

use anyhow::Context;
use host::{Connection, TrustedProxies};
use http::StatusCode;
use sim::caller::Reply;
use sim::promise::FRONT_DOOR;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, secs};
use sim::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::claims::{INTERNAL, PUBLIC};

#[test]
fn a_cluster_over_its_rate_takes_no_turn_from_another() {
    let world = World::new().hub(|hub| {
        hub.with(|config| {
            config.cluster_rate_limit = 10;
            config.rate_limit = 30;
        })
    });
    let world = world.cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        // A burst of 10, 10 more within the second that a request waits, and the rest is sent away.
        let asked: Vec<_> = (0..100).map(|_| s.start(version_of(&s, "edge-1"))).collect();
        for _ in 0..10 {
            let beside = version_of(&s, "edge-2").within(secs(1)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(beside.took < Duration::from_millis(100), "waited {:?} for somebody else's turn", beside.took);
        }
        let mut replies = Vec::new();
        for reply in asked {
            replies.push(reply.within(secs(5)).await??);
        }
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS).collect();
        anyhow::ensure!(refused.len() == 80, "{} were refused", refused.len());
        let refused = refused.first().context("none was refused")?;
        anyhow::ensure!(refused.text().contains("cluster-rate-limit"), "{}", refused.text());
        // After the time that it names there is a turn.
        s.pass(retry_after(refused)?).await;
        version_of(&s, "edge-1").within(secs(2)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_caller_has_so_many_requests_running_and_an_upgraded_one_counts_until_it_ends() {
    let world = World::new().hub(|hub| hub.with(|config| config.caller_streams_max = 3)).cluster("edge-1", |c| c);
    world.cluster("edge-2", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let pods = "/api/v1/namespaces/default/pods?watch=true";
        let watch = kubectl.get("edge-1", pods).open().within(secs(2)).await?;
        let _other = kubectl.get("edge-2", pods).open().within(secs(2)).await?;
        let exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
        for _ in 0..2 {
            let refused = version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::TOO_MANY_REQUESTS)?;
            anyhow::ensure!(refused.text().contains("caller-streams-max"), "{}", refused.text());
            anyhow::ensure!(retry_after(&refused)? == secs(1), "{:?}", refused.headers);
        }
        drop(exec);
        s.pass(secs(1)).await;
        version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::OK)?;
        let exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
        version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::TOO_MANY_REQUESTS)?;
        drop(watch);
        s.pass(secs(1)).await;
        version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::OK)?;
        drop(exec);
        Ok(())
    });
}

#[test]
fn who_guesses_tokens_waits_longer_and_longer_and_a_right_token_beside_it_does_not() {
    for known in [false, true] {
        let world = World::new().hub(|hub| hub.with(|config| config.trusted_proxies = proxies(known.then_some("direct"))));
        world.cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
            let mut waits = Vec::new();
            for _ in 0..8 {
                let began = Instant::now();
                let answer = knock(&s, "edge-1/agent", "an old token").within(secs(10)).await?;
                anyhow::ensure!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
                waits.push(began.elapsed().as_secs());
            }
            anyhow::ensure!(waits == [0, 0, 0, 0, 0, 0, 1, 2], "{waits:?}");
            let began = Instant::now();
            knock(&s, "edge-1/agent", "another token").within(secs(10)).await?;
            anyhow::ensure!(began.elapsed() < secs(1), "it waited for the other's failures");
            s.crash("edge-1/agent");
            s.restart("edge-1/agent");
            s.until_reachable("edge-1").within(secs(3)).await
        });
    }
}

#[test]
fn an_address_has_so_many_connections_and_its_neighbour_as_many_of_its_own() {
    let world = World::new().hub(|hub| {
        hub.with(|config| {
            config.trusted_proxies = proxies(Some("direct"));
            config.connections_per_address = 3;
        })
    });
    world.cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        for (machine, port) in [("hub/argocd", INTERNAL), ("edge-1/agent", PUBLIC)] {
            let mut taken = Vec::new();
            for _ in 0..3 {
                taken.push(s.stranger(machine, port).await?);
            }
            s.pass(secs(1)).await;
            for _ in 0..2 {
                rest(&mut s.stranger(machine, port).await?).within(secs(1)).await?;
            }
            let mut longest = taken.pop().context("three")?;
            let end = rest(&mut longest).within(secs(1)).await;
            anyhow::ensure!(end.is_err(), "who had a place has lost it");
            version_of(&s, "edge-1").within(secs(1)).await?.expect(StatusCode::OK)?;
            // A session of an agent takes none of the places.
            drop((longest, taken));
        }
        s.pass(secs(1)).await;
        s.argocd().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

/// A request on a connection of its own to the internal listener, after `header`; the connection, and how its answer begins.
async fn ask(s: &Story, header: &str, fields: &str) -> anyhow::Result<(Connection, String)> {
    let mut connection = s.stranger("hub/argocd", INTERNAL).await?;
    let request = format!("{header}GET /tunnel/edge-1/version HTTP/1.1\r\nhost: hub\r\n{fields}\r\n");
    connection.write_all(request.as_bytes()).await?;
    let status = async {
        let mut status = Vec::new();
        // What was not read of the request makes the end a reset.
        let _ = (&mut connection).take(12).read_to_end(&mut status).await;
        Ok(String::from_utf8(status)?)
    };
    let status = status.within(secs(1)).await?;
    Ok((connection, status))
}

fn proxy_header(client: &str) -> String {
    format!("PROXY TCP4 {client} 10.0.0.1 40000 8080\r\n")
}

fn behind_proxies(way: &'static str) -> World {
    let world = World::new().hub(|hub| {
        hub.with(|config| {
            config.trusted_proxies = proxies(Some(way));
            config.connections_per_address = 1;
        })
    });
    world.cluster("edge-1", |c| c)
}

fn expect_told_of(s: &Story, clients: &[&str]) -> anyhow::Result<()> {
    let told = s.trace().render(usize::MAX);
    for client in clients {
        anyhow::ensure!(told.contains(client), "no log line has {client}");
    }
    anyhow::ensure!(!told.contains("peer=192.0.2."), "whoever is no proxy was believed");
    Ok(())
}

const OK: &str = "HTTP/1.1 200";

#[test]
fn a_proxy_that_sends_headers_is_believed_about_them_alone_and_never_without_one() {
    behind_proxies("proxy:10.0.0.2").version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let (_open, answer) = ask(&s, &proxy_header("203.0.113.9"), "").await?;
        anyhow::ensure!(answer == OK, "{answer}");
        let (_, answer) = ask(&s, &proxy_header("203.0.113.9"), "").await?;
        anyhow::ensure!(answer.is_empty(), "the second of its address: {answer}");
        let (_other, answer) = ask(&s, &proxy_header("203.0.113.10"), "x-forwarded-for: 192.0.2.1\r\n").await?;
        anyhow::ensure!(answer == OK, "{answer}");
        // The balancer's look at its own behalf is no client's connection.
        let (_own, answer) = ask(&s, "PROXY UNKNOWN\r\n", "x-forwarded-for: 192.0.2.2\r\n").await?;
        anyhow::ensure!(answer == OK, "{answer}");
        let (_, answer) = ask(&s, "", "x-forwarded-for: 192.0.2.3\r\n").await?;
        anyhow::ensure!(answer.is_empty(), "without a header: {answer}");
        s.pass(secs(1)).await;
        expect_told_of(&s, &["peer=203.0.113.9:40000", "peer=203.0.113.10:40000", "there is no PROXY header"])
    });
}

#[test]
fn a_proxy_that_forwards_requests_is_believed_about_them_and_never_about_a_header() {
    behind_proxies("xff:10.0.0.0/8").version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        // The proxy's connections carry many clients: none of them counts for its address.
        let (_one, answer) = ask(&s, "", "x-forwarded-for: 192.0.2.2, 198.51.100.7, 10.9.9.9\r\n").await?;
        let (_two, other) = ask(&s, "", "x-forwarded-for: 198.51.100.7\r\n").await?;
        anyhow::ensure!((&*answer, &*other) == (OK, OK), "{answer} {other}");
        let (_, answer) = ask(&s, &proxy_header("192.0.2.9"), "").await?;
        anyhow::ensure!(answer == "HTTP/1.1 400", "a stranger's header was read: {answer}");
        s.pass(secs(1)).await;
        expect_told_of(&s, &["peer=198.51.100.7:0"])
    });
}

#[test]
fn a_proxy_header_of_nobody_trusted_is_no_request() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\0\0\x01\x9c\x40\x1f\x90".to_vec();
        for (machine, port) in [("hub/kubectl", INTERNAL), ("edge-1/agent", PUBLIC)] {
            for header in [b"PROXY TCP4 203.0.113.9 10.0.0.1 40000 8080\r\n".to_vec(), version_2.clone()] {
                let mut connection = s.stranger(machine, port).await?;
                connection.write_all(&header).await?;
                connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: hub\r\n\r\n").await?;
                let mut answer = Vec::new();
                // What was not read of the request makes the end a reset.
                let ended = async {
                    let _ = connection.read_to_end(&mut answer).await;
                    Ok(())
                };
                ended.within(secs(1)).await?;
                let answer = String::from_utf8_lossy(&answer);
                anyhow::ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
            }
        }
        Ok(())
    });
}

#[test]
fn strangers_without_number_make_way_for_an_agent_that_comes_back() {
    let world = World::new().hub(|hub| hub.with(|config| config.agent_handshakes_max = 20));
    world.cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let mut silent = Vec::new();
        // More than there are places for those who come on time and those who come late.
        for _ in 0..300 {
            silent.push(s.stranger("edge-1/api", PUBLIC).await?);
        }
        s.crash("edge-1/agent");
        s.restart("edge-1/agent");
        s.until_reachable("edge-1").within(secs(3)).await?;
        drop(silent);
        Ok(())
    });
}

#[test]
fn an_upload_that_stops_coming_ends_and_says_so_and_one_that_trickles_arrives() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"slow"}}"#;
        let post = format!("POST /tunnel/edge-1/api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let (first, second) = body.split_at(20);
        for pause in [secs(4 * 60), secs(6 * 60)] {
            let mut connection = s.stranger("hub/kubectl", INTERNAL).await?;
            connection.write_all(format!("{post}{first}").as_bytes()).await?;
            s.pass(pause).await;
            // Who was told that it is too late may have been cut off.
            let _ = connection.write_all(second.as_bytes()).await;
            let answer = rest(&mut connection).within(secs(2)).await?;
            let (status, words) = if pause < secs(5 * 60) { ("201", "slow") } else { ("400", "upload-idle-timeout") };
            anyhow::ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{answer}");
        }
        Ok(())
    });
}

fn proxies(text: Option<&str>) -> TrustedProxies {
    text.map(|text| text.parse().expect("good networks")).unwrap_or_default()
}

/// Asks for a session with a token, as an agent does; what is answered.
async fn knock(s: &Story, machine: &str, token: &str) -> anyhow::Result<String> {
    let mut connection = s.stranger(machine, PUBLIC).await?;
    let request = format!("GET /connect HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    rest(&mut connection).await
}

/// All that comes until the other end closes.
async fn rest(connection: &mut Connection) -> anyhow::Result<String> {
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await?;
    Ok(String::from_utf8_lossy(&rest).into_owned())
}

fn version_of(s: &Story, cluster: &str) -> impl Future<Output = anyhow::Result<Reply>> + Send + use<> {
    let call = s.kubectl().get(cluster, "/version");
    async move { call.await }
}

fn retry_after(reply: &Reply) -> anyhow::Result<Duration> {
    let seconds = reply.headers.get("retry-after").context("no Retry-After")?;
    Ok(secs(seconds.to_str()?.parse()?))
}
