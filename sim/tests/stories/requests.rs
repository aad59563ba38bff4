//! Requests whose tunnel goes away: before, during, and what a caller's retries may do.

use anyhow::Context;
use http::StatusCode;
use sim::caller::{Caller, Reply};
use sim::fabric::Wan;
use sim::story::{Fault, Story, Within, millis, minutes, secs};
use sim::world::World;

#[test]
fn requests_wait_while_the_agent_is_away_and_then_succeed() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN)).tell(async |s: Story| {
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
    // The list takes six seconds.
    let wan = Wan::OCEAN.with_bytes_per_second(500_000);
    World::new().cluster("edge-1", |c| c.pods(3000).over(wan)).tell(async |s: Story| {
        for caller in [&*s.kubectl(), &*s.argocd()] {
            let whole = caller.get("edge-1", "/api/v1/pods").open().await?.read_out(None).within(minutes(2)).await?;
            let cut_off = caller.get("edge-1", "/api/v1/pods").open().await?;
            let reading = s.start(cut_off.read_out(None));
            s.pass(secs(1)).await;
            s.crash("edge-1/agent");
            let error = reading.within(minutes(2)).await?.err().context("a body that lost its agent ended as if whole")?;
            anyhow::ensure!(format!("{error:#}").contains("aborted"), "{error:#}");

            s.restart("edge-1/agent");
            let again = caller.get("edge-1", "/api/v1/pods").open().within(secs(10)).await?;
            anyhow::ensure!(again.status == StatusCode::OK, "{}", again.status);
            anyhow::ensure!(again.read_out(None).within(minutes(2)).await?.sha256 == whole.sha256, "the list has changed");
        }
        Ok(())
    });
}

/// Sends as client-go does: again, whatever the verb, after a 429 or 5xx with `Retry-After`; after a broken
/// connection only if it is a GET (client-go rest/with_retry.go).
async fn post_like_client_go(s: &Story, caller: &Caller, path: &str, body: String) -> anyhow::Result<Reply> {
    for _ in 0..10 {
        let reply = caller.post("edge-1", path, body.clone()).header("content-type", "application/json").await?;
        let status = reply.status.as_u16();
        let after = reply.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        match after {
            Some(after) if status == 429 || status >= 500 => s.pass(secs(after)).await,
            Some(_) | None => return Ok(reply),
        }
    }
    anyhow::bail!("ten attempts were refused")
}

#[test]
fn a_post_is_executed_at_most_once_when_its_tunnel_dies() {
    World::new().cluster("edge-1", |c| c.over(Wan::OCEAN.with_round_trip(millis(100)))).tell(async |s: Story| {
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
        // The head needs 50 ms to the agent, the answer as much back: the deaths lie before, between and after.
        for n in 0..64_usize {
            let (caller, death) = (callers[n % 2].clone(), deaths[n / 2 % 4]);
            reachable(&s, &caller).within(minutes(2)).await?;
            // A name that the API server makes, so that a second execution is a second object.
            let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"generateName":"once-{n}-"}}}}"#);
            let (story, path) = (s.clone(), "/api/v1/namespaces/default/configmaps");
            let post = s.start(async move { post_like_client_go(&story, &caller, path, body).await });
            s.pass(millis(15 * (n as u64 / 8))).await;
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
    });
}

fn crash_and_restart(s: &Story, crash: impl FnOnce(&Story, &str)) -> Option<Fault> {
    crash(s, "edge-1/agent");
    s.restart("edge-1/agent");
    None
}

async fn reachable(s: &Story, caller: &Caller) -> anyhow::Result<()> {
    while !caller.get("edge-1", "/version").await.is_ok_and(|reply| reply.status == StatusCode::OK) {
        s.pass(secs(1)).await;
    }
    Ok(())
}

#[test]
fn a_cluster_whose_sessions_are_full_says_so_and_has_room_again_when_one_ends() {
    let world = World::new().hub(|hub| hub.with(|config| config.streams_max = 1)).cluster("edge-1", |c| c.agents(2));
    world.tell(async |s: Story| {
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
        s.until("one watch has ended", || s.api("edge-1").n_watches() == 1).within(secs(1)).await?;
        caller.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}
