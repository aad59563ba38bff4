//! An API server that misbehaves: its callers see its own words, and its neighbours and the session do not suffer.

use anyhow::Context;
use http::StatusCode;
use serde_json::Value;
use sim::fabric::Wan;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;

/// Why a version 1 agent promises nothing: it does not hear of it.
const DEAF: &str = "what its caller has left goes on upstream until the session ends";

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const NEW: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"new-"}}"#;

#[test]
fn a_throttled_callers_hint_is_the_api_servers_own() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let throttled = s.apiserver("edge-1").throttle();
        for caller in [&*s.kubectl(), &*s.argocd()] {
            for call in [caller.get("edge-1", PODS), caller.post("edge-1", CONFIG_MAPS, NEW)] {
                let reply = call.within(secs(1)).await?.expect(StatusCode::TOO_MANY_REQUESTS)?;
                anyhow::ensure!(reply.headers["retry-after"] == "1", "{:?}", reply.headers);
                anyhow::ensure!(reply.text() == "Too many requests, please try again later.\n", "{}", reply.text());
            }
        }
        drop(throttled);
        s.kubectl().get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(s.n_sessions().await? == 1 && s.api("edge-1").executed_writes().is_empty());
        Ok(())
    });
}

#[test]
fn a_revision_that_is_gone_is_told_in_the_api_servers_own_words() {
    World::new().cluster("edge-1", |c| c.pods(5)).version_1(Same, Same).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            let page = caller.get("edge-1", &format!("{PODS}?limit=2")).await?.expect(StatusCode::OK)?;
            let version = text(&page.body, "/metadata/resourceVersion")?;
            let gone = s.apiserver("edge-1").gone();

            let watch = format!("{PODS}?watch=true&resourceVersion={version}");
            let mut watch = caller.get("edge-1", &watch).open().within(secs(1)).await?;
            let event = watch.line().within(secs(1)).await?.context("a watch without a word")?;
            anyhow::ensure!(event.contains("ERROR") && event.contains("too old resource version"), "{event}");
            anyhow::ensure!(watch.line().within(secs(1)).await?.is_none(), "the watch goes on");

            let next = |token: &str| caller.get("edge-1", &format!("{PODS}?limit=500&continue={token}"));
            let refused = next(&text(&page.body, "/metadata/continue")?).within(secs(1)).await?.expect(StatusCode::GONE)?;
            anyhow::ensure!(text(&refused.body, "/reason")? == "Expired", "{}", refused.text());
            // What the API server offers to go on with all the same.
            next(&text(&refused.body, "/metadata/continue")?).within(secs(1)).await?.expect(StatusCode::OK)?;
            drop(gone);
        }
        Ok(())
    });
}

#[test]
fn a_slow_list_comes_whole_and_delays_nobody() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            let slow = s.apiserver("edge-1").slow_lists(secs(90), millis(500));
            let list = s.start(caller.get("edge-1", PODS).into_future());
            for _ in 0..10 {
                s.pass(secs(9)).await;
                let reply = caller.get("edge-1", &format!("{PODS}/web-0")).within(secs(1)).await?.expect(StatusCode::OK)?;
                anyhow::ensure!(reply.took < millis(50), "{:?}", reply.took);
            }
            let list = list.within(minutes(1)).await??.expect(StatusCode::OK)?;
            anyhow::ensure!(serde_json::from_slice::<Value>(&list.body)?["items"].as_array().is_some_and(|pods| pods.len() == 3));
            drop(slow);
        }
        Ok(())
    });
}

#[test]
fn a_write_that_times_out_upstream_fails_in_the_api_servers_words_and_is_not_repeated() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        for (n, caller) in [&*s.kubectl(), &*s.argocd()].into_iter().enumerate() {
            let post = || caller.post("edge-1", CONFIG_MAPS, NEW).header("content-type", "application/json");
            let n_writes = || s.api("edge-1").executed_writes().len();

            let silent = s.apiserver("edge-1").silence_webhook();
            let refused = post().within(secs(11)).await?.expect(StatusCode::INTERNAL_SERVER_ERROR)?;
            anyhow::ensure!(text(&refused.body, "/message")?.contains("failed calling webhook"), "{}", refused.text());
            anyhow::ensure!(refused.took >= secs(10) && !refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
            anyhow::ensure!(n_writes() == n, "a write went past its webhook");
            drop(silent);

            let slow = s.apiserver("edge-1").time_out_writes();
            let refused = post().within(secs(35)).await?.expect(StatusCode::GATEWAY_TIMEOUT)?;
            anyhow::ensure!(text(&refused.body, "/reason")? == "Timeout", "{}", refused.text());
            anyhow::ensure!(!refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
            anyhow::ensure!(n_writes() == n + 1, "{} writes", n_writes());
            drop(slow);
        }
        Ok(())
    });
}

#[test]
fn an_answer_that_breaks_off_upstream_is_aborted_not_ended() {
    for over_http2 in [false, true] {
        let world = World::new().cluster("edge-1", |c| if over_http2 { c.tls_upstream() } else { c });
        world.version_1(Nothing("it says nothing when its target's connection ends"), Same).tell(async |s: Story| {
            for caller in [&*s.kubectl(), &*s.argocd()] {
                let broken = s.apiserver("edge-1").break_off();
                let error = caller.get("edge-1", PODS).within(secs(5)).await.err().context("half a list passed as whole")?;
                anyhow::ensure!(format!("{error:#}").contains("aborted"), "{error:#}");
                drop(broken);
                caller.get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
            }
            Ok(())
        });
    }
}

#[test]
fn an_answer_that_falls_silent_upstream_ends_there_when_its_caller_leaves() {
    for over_http2 in [false, true] {
        let world = World::new().unprobed().cluster("edge-1", |c| if over_http2 { c.tls_upstream() } else { c });
        world.version_1(Nothing(DEAF), Same).tell(async |s: Story| {
            for caller in [&*s.kubectl(), &*s.argocd()] {
                let silent = s.apiserver("edge-1").fall_silent();
                let mut answer = caller.get("edge-1", PODS).open().within(secs(1)).await?;
                answer.chunk().within(secs(1)).await?.context("not even the first half")?;
                s.pass(minutes(5)).await;
                caller.get("edge-1", "/healthz").open().within(secs(1)).await?;
                anyhow::ensure!(s.api("edge-1").n_requests_open() > 0, "the silent answer is over");

                drop(answer);
                s.until("no request runs upstream", || s.api("edge-1").n_requests_open() == 0).within(secs(1)).await?;
                drop(silent);
            }
            Ok(())
        });
    }
}

#[test]
fn a_watch_that_was_quiet_for_ten_minutes_tells_the_next_event_at_once() {
    for over_http2 in [false, true] {
        let world = World::new().cluster("edge-1", |c| if over_http2 { c.tls_upstream() } else { c }.over(Wan::OCEAN));
        let agent = if over_http2 { Nothing("it speaks HTTP/1.1 to its target") } else { Same };
        world.version_1(agent, Same).tell(async |s: Story| {
            for (n, caller) in [&*s.kubectl(), &*s.argocd()].into_iter().enumerate() {
                let silent = s.apiserver("edge-1").silence_watches();
                let path =
                    format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={}", s.api("edge-1").revision());
                let mut watch = caller.get("edge-1", &path).open().within(secs(2)).await?;
                s.pass(minutes(10)).await;
                drop(silent);
                // What allows bookmarks gets the one that is due by now.
                watch.line().within(secs(1)).await?.context("the watch was cut")?;

                s.api("edge-1").put("configmaps", "default", &format!("late-{n}"), Value::Null);
                let event = watch.line().within(Wan::OCEAN.latency * 2).await?.context("the watch was cut")?;
                anyhow::ensure!(event.contains(&format!("late-{n}")), "{event}");
            }
            Ok(())
        });
    }
}

#[test]
fn a_hanging_api_server_keeps_its_session_and_answers_late() {
    for over_http2 in [false, true] {
        let world = World::new().unprobed().cluster("edge-1", |c| if over_http2 { c.tls_upstream() } else { c });
        world.version_1(Nothing(DEAF), Same).tell(async |s: Story| {
            for caller in [&*s.kubectl(), &*s.argocd()] {
                let hanging = s.apiserver("edge-1").hang();
                let patient = s.start(caller.get("edge-1", PODS).into_future());
                let hasty = caller.get("edge-1", PODS).within(minutes(3)).await;
                anyhow::ensure!(hasty.is_err(), "somebody answered");
                anyhow::ensure!(s.n_sessions().await? == 1, "the session is lost");
                s.until("the hasty one is forgotten", || s.api("edge-1").n_requests_open() == 1).within(secs(1)).await?;

                drop(hanging);
                patient.within(secs(1)).await??.expect(StatusCode::OK)?;
            }
            Ok(())
        });
    }
}

fn text(body: &[u8], pointer: &str) -> anyhow::Result<String> {
    let document: Value = serde_json::from_slice(body)?;
    document.pointer(pointer).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {pointer} in {document}"))
}
