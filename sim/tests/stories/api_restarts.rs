//! An API server that goes away, politely or not, and comes back: no GET is lost where that can be, no write done twice.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use sim::caller::{Caller, Reply};
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, minutes, secs};
use sim::world::World;

/// Why a version 1 agent promises nothing.
const HTTP_1: &str = "it speaks HTTP/1.1 to its target";

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn post(caller: &Caller, name: &str) -> impl Future<Output = anyhow::Result<Reply>> + use<> {
    let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"generateName":"{name}-"}}}}"#);
    caller.post("edge-1", CONFIG_MAPS, body).header("content-type", "application/json").into_future()
}

fn n_executed(s: &Story, name: &str) -> usize {
    let prefix = format!("{name}-");
    s.api("edge-1").executed_writes().iter().filter(|write| write.name.starts_with(&prefix)).count()
}

#[test]
fn goaways_lose_no_request_and_repeat_none() {
    World::new().cluster("edge-1", |c| c.tls_upstream()).version_1(Nothing(HTTP_1), Same).tell(async |s: Story| {
        let leaving = s.apiserver("edge-1").go_away(3);
        let caller = s.argocd();
        let mut watch = caller.get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(1)).await?;
        for n in 0..50 {
            let posts: Vec<_> = (0..4).map(|i| s.start(post(&caller, &format!("n{n}-{i}")))).collect();
            caller.get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
            for (i, post) in posts.into_iter().enumerate() {
                post.within(secs(1)).await??.expect(StatusCode::CREATED)?;
                anyhow::ensure!(n_executed(&s, &format!("n{n}-{i}")) == 1);
            }
        }
        // A watch outlives the going of its connection.
        for _ in 0..3 {
            watch.line().within(secs(1)).await?.context("the watch was ended")?;
        }
        s.api("edge-1").put("pods", "default", "late", serde_json::json!({ "spec": { "containers": [{ "name": "c" }] } }));
        anyhow::ensure!(watch.line().within(secs(1)).await?.context("the watch was ended")?.contains("late"));
        drop(leaving);
        Ok(())
    });
}

#[test]
fn a_rolling_restart_of_a_pair_loses_no_get_and_executes_no_write_twice() {
    for over_http2 in [false, true] {
        let world = World::new().cluster("edge-1", |c| if over_http2 { c.tls_upstream() } else { c }.api_servers(2));
        world.version_1(Nothing("it dials one address of a name"), Same).tell(async |s: Story| {
            let restarts = s.start(roll(s.clone()));
            let caller = s.argocd();
            for n in 0..150 {
                let (name, get) = (format!("n{n}"), caller.get("edge-1", PODS));
                let (written, read) = (s.start(post(&caller, &name)), s.start(get.into_future()));
                read.within(secs(2)).await??.expect(StatusCode::OK)?;
                let written = written.within(secs(2)).await??;
                let n_executed = n_executed(&s, &name);
                anyhow::ensure!(
                    written.status == StatusCode::CREATED && n_executed == 1,
                    "{written:?}, executed {n_executed} times"
                );
                s.pass(millis(100)).await;
            }
            restarts.within(minutes(1)).await?
        });
    }
}

/// One after the other, each down for some seconds.
async fn roll(s: Story) -> anyhow::Result<()> {
    for machine in ["edge-1/api", "edge-1/api-2"] {
        s.pass(secs(1)).await;
        s.drain(machine);
        s.pass(secs(5)).await;
        anyhow::ensure!(s.machine(machine).tasks().is_empty(), "{machine} still runs {:?}", s.machine(machine).tasks());
        s.restart(machine);
    }
    Ok(())
}

#[test]
fn a_crashed_api_servers_requests_are_refused_with_a_hint_only_where_nothing_can_have_been_done() {
    for over_http2 in [false, true] {
        let world = World::new().cluster("edge-1", |c| if over_http2 { c.tls_upstream() } else { c });
        world.version_1(Nothing("it says nothing when its target's connection ends"), Same).tell(async |s: Story| {
            for (n, caller) in [&*s.kubectl(), &*s.argocd()].into_iter().enumerate() {
                let name = format!("n{n}");
                let slow = s.apiserver("edge-1").time_out_writes();
                let hanging = s.start(post(caller, &name));
                let silent = s.start(caller.get("edge-1", "/silent").into_future());
                s.pass(secs(1)).await;
                s.crash("edge-1/api");
                drop(slow);
                let broken = hanging.within(secs(1)).await??.expect(StatusCode::BAD_GATEWAY)?;
                anyhow::ensure!(!broken.headers.contains_key("retry-after"), "a write that was done may be repeated");
                let read = silent.within(secs(1)).await??.expect(StatusCode::BAD_GATEWAY)?;
                anyhow::ensure!(read.headers.contains_key("retry-after"), "{:?}", read.headers);

                let refused = post(caller, &name).within(secs(1)).await?.expect(StatusCode::BAD_GATEWAY)?;
                anyhow::ensure!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
                anyhow::ensure!(s.n_sessions().await? == 1, "the session is lost");

                s.restart("edge-1/api");
                caller.get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
                anyhow::ensure!(n_executed(&s, &name) == 1, "executed {} times", n_executed(&s, &name));
            }
            Ok(())
        });
    }
}

#[test]
fn an_api_server_that_lost_its_power_is_found_out_by_pings() {
    /// The agent pings a connection from which nothing comes after 30 s and gives it up after 15 s more.
    const FOUND_OUT_MAX: Duration = secs(46);
    let world = World::new().cluster("edge-1", |c| c.tls_upstream());
    world.version_1(Nothing(HTTP_1), Same).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            let pending = [
                s.start(caller.get("edge-1", "/silent").into_future()),
                s.start(caller.post("edge-1", "/silent", "x").into_future()),
            ];
            s.pass(secs(1)).await;
            s.vanish("edge-1/api");
            for (request, may_repeat) in pending.into_iter().zip([true, false]) {
                let broken = request.within(FOUND_OUT_MAX).await??.expect(StatusCode::BAD_GATEWAY)?;
                anyhow::ensure!(broken.headers.contains_key("retry-after") == may_repeat, "{:?}", broken.headers);
            }
            s.restart("edge-1/api");
            caller.get("edge-1", PODS).within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn a_stream_limit_makes_no_watch_wait() {
    let world = World::new().cluster("edge-1", |c| c.tls_upstream().http2_streams_max(3));
    world.version_1(Nothing(HTTP_1), Same).tell(async |s: Story| {
        let caller = s.argocd();
        let mut watches = Vec::new();
        for n in 0..20 {
            let watch = caller.get("edge-1", &format!("{PODS}?watch=true&n={n}")).open();
            watches.push(watch.within(millis(100)).await?);
        }
        anyhow::ensure!(s.api("edge-1").n_watches() == 20);
        let together: Vec<_> = (0..20).map(|_| s.start(caller.get("edge-1", PODS).into_future())).collect();
        for list in together {
            list.within(secs(1)).await??.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}
