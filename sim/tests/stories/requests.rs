//! Requests whose tunnel goes away: before, during, and what a caller's retries may do.

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::json;
use sim::caller::{Call, Caller};
use sim::fabric::Wan;
use sim::promise::{
    FRONT_DOOR, NO_PARKING,
    Promise::{Less, Nothing, Same},
};
use sim::story::{Fault, Story, Within, millis, minutes, secs};
use sim::world::World;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn requests_wait_while_the_agent_is_away_and_then_succeed() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).version_1(Same, Nothing(NO_PARKING)).tell(async |s: Story| {
        let argo = s.argocd();
        argo.get("edge-1", "/version").await?.expect(StatusCode::OK)?;
        s.crash("edge-1/agent");
        s.pass(secs(1)).await;

        let waiting: Vec<_> = (0..20).map(|_| s.start(argo.get("edge-1", "/api/v1/pods").into_future())).collect();
        s.pass(secs(4)).await;
        s.restart("edge-1/agent");

        for request in waiting {
            request.within(secs(5)).await??.expect(StatusCode::OK)?;
        }
        Ok(())
    });
}

#[test]
fn a_body_is_whole_or_visibly_aborted() {
    // Three seconds each. The list announces its length, of the other only the framing says whether it is whole.
    let wan = Wan::OCEAN.with_bytes_per_second(500_000);
    let targets = ["/api/v1/pods", "/bulk?bytes=1500000&chunked=1"];
    World::new().cluster("edge-1", |c| c.pods(1500).over(wan)).version_1(Same, Same).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            for target in targets {
                let whole = caller.get("edge-1", target).open().await?.read_out(None).within(minutes(1)).await?;
                let cut_off = caller.get("edge-1", target).open().await?;
                let reading = s.start(cut_off.read_out(None));
                s.pass(secs(1)).await;
                s.crash("edge-1/agent");
                let ended = reading.within(minutes(1)).await?;
                let error = ended.err().with_context(|| format!("{target} lost its agent and ended as if whole"))?;
                anyhow::ensure!(format!("{error:#}").contains("aborted"), "{error:#}");

                s.restart("edge-1/agent");
                s.until_reachable("edge-1").within(secs(10)).await?;
                let again = caller.get("edge-1", target).open().within(secs(10)).await?;
                anyhow::ensure!(again.status == StatusCode::OK, "{}", again.status);
                anyhow::ensure!(again.read_out(None).within(minutes(1)).await?.sha256 == whole.sha256, "{target} has changed");
            }
        }
        Ok(())
    });
}

#[test]
fn a_post_is_executed_at_most_once_when_its_tunnel_dies() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN.with_round_trip(millis(100)))).version_1(Same, Same).tell(
        async |s: Story| {
            let callers = [Caller::clone(&s.kubectl()), Caller::clone(&s.argocd())];
            let deaths: [fn(&Story) -> Option<Fault>; 4] = [
                |s| crash_and_restart(s, Story::crash),
                |s| crash_and_restart(s, Story::vanish),
                |s| {
                    s.reset("hub", "edge-1");
                    None
                },
                |s| Some(s.cut("hub", "edge-1")),
            ];
            // The head needs 50 ms to the agent (150 where one is of version 1), the answer 50 ms back: the deaths lie before,
            // between and after.
            for n in 0..64_usize {
                let (caller, death) = (callers[n % 2].clone(), deaths[n / 2 % 4]);
                s.until_reachable("edge-1").within(minutes(2)).await?;
                // A name that the API server makes, so that a second execution is a second object.
                let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"generateName":"once-{n}-"}}}}"#);
                let post = s.start(async move { caller.persist(|| post(&caller, body.clone())).await });
                s.pass(millis(30 * (n as u64 / 8))).await;
                let fault = death(&s);
                s.pass(minutes(1)).await;
                drop(fault);

                let told = post.within(minutes(5)).await?;
                let writes = s.api("edge-1").executed_writes();
                let n_executed = writes.iter().filter(|write| write.name.starts_with(&format!("once-{n}-"))).count();
                anyhow::ensure!(n_executed <= 1, "post {n} was executed {n_executed} times");
                let succeeded = told.is_ok_and(|reply| reply.status.is_success());
                anyhow::ensure!(!succeeded || n_executed == 1, "post {n} was answered with success and not executed");
            }
            let n_executed = s.api("edge-1").executed_writes().len();
            anyhow::ensure!((8..64).contains(&n_executed), "{n_executed} of 64 were executed, which tests only one side");
            Ok(())
        },
    );
}

fn post(caller: &Caller, body: String) -> Call {
    caller.post("edge-1", CONFIGMAPS, body).header("content-type", "application/json")
}

fn crash_and_restart(s: &Story, crash: impl FnOnce(&Story, &str)) -> Option<Fault> {
    crash(s, "edge-1/agent");
    s.restart("edge-1/agent");
    None
}

/// What happens to a write, and what is done about it five seconds later.
struct Misfortune {
    name: &'static str,
    strikes: fn(&Story) -> Option<Fault>,
    is_mended: fn(&Story),
}

const MISFORTUNES: [Misfortune; 8] = {
    const fn of(name: &'static str, strikes: fn(&Story) -> Option<Fault>, is_mended: fn(&Story)) -> Misfortune {
        Misfortune { name, strikes, is_mended }
    }
    /// Does it, and leaves nothing to undo by drop.
    macro_rules! done {
        ($does:expr) => {
            |s| {
                let does: fn(&Story) = $does;
                does(s);
                None
            }
        };
    }
    [
        of("a crash of the agent", done!(|s| s.crash("edge-1/agent")), |s| s.restart("edge-1/agent")),
        of("a power loss of the agent", done!(|s| s.vanish("edge-1/agent")), |s| {
            s.restart("edge-1/agent");
            // An API server that waits for the rest of a body says nothing, and learns of the loss when its keepalive does.
            s.reset("edge-1", "edge-1");
        }),
        of("a reset", done!(|s| s.reset("hub", "edge-1")), |_| {}),
        of("a cut", |s| Some(s.cut("hub", "edge-1")), |_| {}),
        of("a drain of the agent", done!(|s| s.drain("edge-1/agent")), |s| s.restart("edge-1/agent")),
        of("a drain of the server", done!(|s| s.drain("hub/server")), |s| s.restart("hub/server")),
        of("a crash of the server", done!(|s| s.crash("hub/server")), |s| s.restart("hub/server")),
        of("an API server that throttles", |s| Some(s.apiserver("edge-1").throttle()), |_| {}),
    ]
};

/// The `n`th write: each verb in turn, two in four with a body of a megabyte.
fn nth_write(caller: &Caller, n: usize) -> Call {
    let blob = "b".repeat(if (n / 4).is_multiple_of(2) { 100 } else { 1_000_000 });
    let name = format!("object-{n}");
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "blob": blob } });
    let target = format!("/tunnel/edge-1{CONFIGMAPS}/{name}");
    match n % 4 {
        0 => {
            // A name that the API server makes, so that a second execution is a second object.
            let metadata = json!({ "generateName": format!("{name}-") });
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "blob": blob } });
            post(caller, object.to_string())
        }
        1 => caller.request(Method::PUT, &target).header("content-type", "application/json").body(object.to_string()),
        2 => {
            let patch = json!({ "data": { "blob": blob } }).to_string();
            caller.request(Method::PATCH, &target).header("content-type", "application/merge-patch+json").body(patch)
        }
        _ => caller.request(Method::DELETE, &target),
    }
}

#[test]
fn no_write_is_executed_twice_whatever_dies_and_however_client_go_repeats_it() {
    let wan = Wan::OCEAN.with_round_trip(millis(100));
    World::new().cluster("edge-1", |c| c.over(wan)).version_1(Same, Same).tell(async |s: Story| {
        let callers = [Caller::clone(&s.kubectl()), Caller::clone(&s.argocd())];
        let (mut n_executed, mut n_succeeded) = (0, 0);
        for n in 0..64_usize {
            let (caller, misfortune) = (callers[n / 2 % 2].clone(), &MISFORTUNES[n / 8]);
            s.until_reachable("edge-1").within(minutes(2)).await?;
            let api = s.api("edge-1");
            if n % 4 != 0 {
                api.put("configmaps", "default", &format!("object-{n}"), json!({ "data": {} }));
            }
            let writer = caller.clone();
            let write = s.start(async move { writer.persist(|| nth_write(&writer, n)).await });
            // A small write needs 50 ms to the agent and a large one 80 ms more; the answer as much back.
            s.pass(millis([20, 60, 110, 160][n % 8 / 2])).await;
            let fault = (misfortune.strikes)(&s);
            s.pass(secs(5)).await;
            drop(fault);
            (misfortune.is_mended)(&s);

            let told = write.within(minutes(2)).await?;
            let is_its_own = |name: &str| name == format!("object-{n}") || name.starts_with(&format!("object-{n}-"));
            let n_times = api.executed_writes().iter().filter(|write| is_its_own(&write.name)).count();
            let what = format!("write {n} beside {}", misfortune.name);
            anyhow::ensure!(n_times <= 1, "{what} was executed {n_times} times");
            n_executed += n_times;
            let Ok(reply) = told else { continue };
            let succeeded = reply.status.is_success();
            n_succeeded += usize::from(succeeded);
            anyhow::ensure!(!succeeded || n_times == 1, "{what} was answered with success and not executed");
            // What was there is gone only if an earlier attempt took it.
            let is_gone = reply.status == StatusCode::NOT_FOUND || reply.status == StatusCode::CONFLICT;
            anyhow::ensure!(!is_gone, "{what} met its own earlier attempt");
            anyhow::ensure!(succeeded || reply.status.is_server_error(), "{what} got {}: {}", reply.status, reply.text());
        }
        anyhow::ensure!((24..64).contains(&n_executed), "{n_executed} of 64 were executed, which tests only one side");
        anyhow::ensure!((16..=n_executed).contains(&n_succeeded), "{n_succeeded} of {n_executed} were known to succeed");
        Ok(())
    });
}

#[test]
fn a_cluster_whose_sessions_are_full_says_so_and_has_room_again_when_one_ends() {
    let world = World::new().hub(|hub| hub.with(|config| config.streams_max = 1)).cluster("edge-1", |c| c.agents(2));
    world.version_1(Less("there is room again, though the watch that was left goes on upstream"), Nothing(FRONT_DOOR)).tell(
        async |s: Story| {
            let caller = s.kubectl();
            let watch = |n: usize| caller.get("edge-1", &format!("/api/v1/pods?watch=true&n={n}")).open();
            let (first, _second) = (watch(1).within(secs(2)).await?, watch(2).within(secs(2)).await?);
            anyhow::ensure!(s.api("edge-1").n_watches() == 2);
            let refused = caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::SERVICE_UNAVAILABLE)?;
            anyhow::ensure!(
                refused.text().contains("SessionFull") && refused.headers.contains_key("retry-after"),
                "{}",
                refused.text()
            );

            drop(first);
            s.pass(secs(1)).await;
            s.until("one watch has ended", || s.claims_less() || s.api("edge-1").n_watches() == 1).within(secs(1)).await?;
            caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            Ok(())
        },
    );
}
