//! What stands on the way and has a mind of its own: load balancers, gateways, proxies.

use anyhow::Context;
use http::StatusCode;
use sim::caller::Answer;
use sim::fabric::Wan;
use sim::middlebox::Middlebox;
use sim::promise::{
    FRONT_DOOR, GO_WAITS, NO_PARKING,
    Promise::{Nothing, Same},
    TWO_TRIPS,
};
use sim::story::{Story, Within, kib, millis, minutes, secs};
use sim::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WATCH: &str = "/api/v1/namespaces/default/pods?watch=true";

fn behind(middlebox: Middlebox) -> World {
    World::new().hub(|hub| hub.behind(middlebox)).cluster("edge-1", |c| c.over(Wan::OCEAN))
}

#[test]
fn a_load_balancer_with_an_idle_timeout_of_half_a_minute_never_cuts_an_idle_tunnel() {
    for balancer in [Middlebox::load_balancer(), Middlebox::load_balancer().resets()] {
        behind(balancer.idle_timeout(secs(30))).version_1(Same, Same).tell(async |s: Story| {
            s.pass(minutes(60)).await;
            anyhow::ensure!(n_down(&s) == 0, "the session was lost {} times", n_down(&s));
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            Ok(())
        });
    }
}

#[test]
fn a_middlebox_that_forgets_after_five_seconds_is_survived_with_a_shorter_keepalive() {
    let impatient = || Middlebox::load_balancer().idle_timeout(secs(5)).resets();
    let world = World::new().unprobed().cluster("edge-1", |c| c.behind(impatient()));
    let world = world.cluster("ship-7", |c| c.behind(impatient()).with(|config| config.keepalive = Some(secs(2))));
    world.version_1(Nothing(GO_WAITS), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.pass(minutes(60)).await;
        let n_reset = |machine: &str| {
            let lines = s.trace().lines();
            lines.iter().filter(|line| line.who == machine && line.what.contains("resets a flow")).count()
        };
        anyhow::ensure!(n_reset("ship-7/box") == 0, "reset {} flows", n_reset("ship-7/box"));
        anyhow::ensure!(n_reset("edge-1/box") > 10, "the box is patient: {}", n_reset("edge-1/box"));
        s.kubectl().get("ship-7", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_maximum_age_aborts_watches_visibly_and_delays_no_request_by_more_than_a_second() {
    behind(Middlebox::load_balancer().max_age(secs(60)).resets()).version_1(Same, Nothing(NO_PARKING)).tell(async |s: Story| {
        let (argo, kubectl) = (s.argocd(), s.kubectl());
        for _ in 0..3 {
            let watch = opened_watch(&s).await?;
            let n_before = n_down(&s);
            // Nothing happens for most of the flow's life.
            s.pass(secs(55)).await;
            while n_down(&s) == n_before {
                for caller in [&*argo, &*kubectl] {
                    // The one that was under way is aborted or refused; whoever asks after it waits for the next session.
                    let asked_at = tokio::time::Instant::now();
                    let answer = caller.get("edge-1", "/version").within(secs(2)).await;
                    anyhow::ensure!(asked_at.elapsed() < secs(1), "{:?}", asked_at.elapsed());
                    let was_lost = n_down(&s) > n_before;
                    anyhow::ensure!(was_lost || answer?.status == StatusCode::OK, "refused without a reason");
                }
                s.pass(millis(200)).await;
            }
            aborted(watch).within(secs(1)).await?;
            kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn a_maximum_age_that_nobody_tells_of_is_found_by_silence() {
    behind(Middlebox::load_balancer().max_age(secs(300))).version_1(Nothing(GO_WAITS), Nothing(FRONT_DOOR)).tell(
        async |s: Story| {
            let watch = opened_watch(&s).await?;
            // The rest of its age, the silence limit, and the ping that was to break it.
            aborted(watch).within(secs(300 + 45 + 15)).await?;
            s.kubectl().get("edge-1", "/version").within(secs(6)).await?.expect(StatusCode::OK)?;
            Ok(())
        },
    );
}

#[test]
fn a_session_that_is_renewed_in_time_loses_no_request_to_a_maximum_age() {
    let world = behind(Middlebox::load_balancer().max_age(secs(60)).resets());
    let world = world.cluster("ship-7", |c| c.over(Wan::OCEAN).with(|config| config.session_age_max = Some(secs(40))));
    world.version_1(Same, Nothing("it knows no go-away")).tell(async |s: Story| {
        let argo = s.argocd();
        for _ in 0..250 {
            argo.get("ship-7", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            s.pass(millis(500)).await;
        }
        Ok(())
    });
}

#[test]
fn a_box_that_closes_halves_costs_the_tunnel_nothing() {
    for balancer in [Middlebox::load_balancer(), Middlebox::load_balancer().closes_halves()] {
        behind(balancer).version_1(Same, Same).tell(async |s: Story| {
            // Half-closes of requests and execs are frames, not the connection's own.
            for caller in [&*s.kubectl(), &*s.argocd()] {
                let posted = caller.post("edge-1", "/echo", "all of it").within(secs(2)).await?.expect(StatusCode::OK)?;
                anyhow::ensure!(posted.text() == "all of it", "{}", posted.text());
            }
            let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?;
            exec.write(b"last word").await?;
            exec.close_stdin().await?;
            let mut said = Vec::new();
            while let Some((channel, bytes)) = exec.read().within(secs(2)).await? {
                if channel == 1 {
                    said.extend_from_slice(&bytes);
                }
            }
            anyhow::ensure!(said == b"last word", "{}", String::from_utf8_lossy(&said));
            anyhow::ensure!(n_down(&s) == 0, "the session was lost");
            drop(exec);
            // And an orderly end is still one.
            s.drain("edge-1/agent");
            s.until("the agent has ended", || s.machine("edge-1/agent").tasks().is_empty()).within(secs(5)).await
        });
    }
}

#[test]
fn a_box_that_accepts_and_never_forwards_holds_up_a_dial_and_not_the_agent() {
    behind(Middlebox::load_balancer()).cold().version_1(Nothing(GO_WAITS), Same).tell(async |s: Story| {
        let dark = s.swallow("hub/box");
        s.pass(minutes(10)).await;
        let n_dials = n_told(&s, "failed to connect to the hub");
        // 10 s until the dial is given up, 5 s at most before the next.
        anyhow::ensure!((40..60).contains(&n_dials), "{n_dials} dials in ten minutes");
        drop(dark);
        s.pass(secs(10 + 5) + Wan::OCEAN.round_trip() * 6).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_box_that_buffers_delays_and_breaks_nothing() {
    let delay = millis(200);
    behind(Middlebox::load_balancer().buffers(kib(16) as usize, delay)).version_1(Nothing(TWO_TRIPS), Nothing(TWO_TRIPS)).tell(
        async |s: Story| {
            for caller in [&*s.kubectl(), &*s.argocd()] {
                caller.get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
                let reply = caller.get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
                // There and back, and the buffer's patience in each direction.
                anyhow::ensure!(reply.took < Wan::OCEAN.round_trip() + delay * 2 + millis(50), "{:?}", reply.took);
                let upload =
                    caller.request(http::Method::POST, "/tunnel/edge-1/upload").upload(1_000_000).within(secs(20)).await?;
                anyhow::ensure!(upload.expect(StatusCode::OK)?.text().contains("1000000"));
                let bulk = caller.get("edge-1", "/bulk?bytes=2000000").open().await?.read_out(None).within(secs(20)).await?;
                anyhow::ensure!(bulk.n_bytes == 2_000_000, "{bulk:?}");
            }
            s.pass(minutes(10)).await;
            anyhow::ensure!(n_down(&s) == 0, "the session was lost");
            Ok(())
        },
    );
}

#[test]
fn a_gateway_that_answers_502_is_asked_again_and_the_agent_is_back_soon_after() {
    behind(Middlebox::load_balancer()).version_1(Nothing(GO_WAITS), Same).tell(async |s: Story| {
        let down = s.bad_gateway("hub/box");
        s.pass(minutes(1)).await;
        // What runs goes on.
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;

        s.reset("hub", "edge-1");
        s.pass(minutes(10)).await;
        let n_dials = n_told(&s, "the hub answered 502");
        anyhow::ensure!((120..480).contains(&n_dials), "{n_dials} dials in ten minutes");
        drop(down);

        s.pass(secs(5) + Wan::OCEAN.round_trip() * 6).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn boxes_on_both_sides_of_the_way_are_no_worse_than_one() {
    let world = World::new()
        .hub(|hub| hub.behind(Middlebox::load_balancer().idle_timeout(secs(60))))
        .cluster("edge-1", |c| c.over(Wan::OCEAN).behind(Middlebox::load_balancer().idle_timeout(secs(30)).resets()));
    world.version_1(Same, Same).tell(async |s: Story| {
        s.pass(minutes(10)).await;
        anyhow::ensure!(n_down(&s) == 0, "the session was lost");
        for machine in ["edge-1/box", "hub/box"] {
            s.crash(machine);
            s.restart(machine);
            s.pass(secs(1)).await;
            s.kubectl().get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn a_connect_proxy_leads_to_the_hub_whoever_it_trusts() {
    let way_out = Middlebox::connect_proxy().with_basic_auth("edge", "open sesame");
    let world = World::new().cluster("edge-1", |c| c.behind(way_out)).cluster("ship-7", |c| c.behind(Middlebox::connect_proxy()));
    world.version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let refused = s.dial_through("edge-1/box", "hub:8443", None).await.err().context("let through without a word")?;
        anyhow::ensure!(refused.to_string().contains("407"), "{refused}");
        let refused = s.dial_through("edge-1/box", "hub:8443", Some("edge:close")).await.err().context("any word will do")?;
        anyhow::ensure!(refused.to_string().contains("407"), "{refused}");
        let refused = s.dial_through("ship-7/box", "hub:1", None).await.err().context("nobody listens there")?;
        anyhow::ensure!(refused.to_string().contains("502"), "{refused}");
        for (proxy, credentials) in [("edge-1/box", Some("edge:open sesame")), ("ship-7/box", None)] {
            let mut connection = s.dial_through(proxy, "hub:8443", credentials).within(secs(1)).await?;
            connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n").await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        Ok(())
    });
}

async fn opened_watch(s: &Story) -> anyhow::Result<Answer> {
    let mut watch = s.kubectl().get("edge-1", WATCH).open().within(secs(10)).await?;
    watch.line().within(secs(1)).await?.context("a watch without a first event")?;
    Ok(watch)
}

/// Reads a watch to its end, which must not look like a good one.
async fn aborted(mut watch: Answer) -> anyhow::Result<()> {
    loop {
        match watch.line().await {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("a broken watch ended as if whole"),
            Err(_) => return Ok(()),
        }
    }
}

/// How often somebody lost a session.
fn n_down(s: &Story) -> usize {
    n_told(s, "session down")
}

fn n_told(s: &Story, words: &str) -> usize {
    s.trace().lines().iter().filter(|line| line.what.contains(words)).count()
}
