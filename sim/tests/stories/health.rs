//! What is shown of a cluster is what is so: asked from end to end, seen within seconds, and harmless to others.

pub(crate) mod seen;

use anyhow::ensure;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sim::promise::Promise::{Less, Nothing, Same};
use sim::promise::{FRONT_DOOR, Promise};
use sim::rogue::{self, Rogue};
use sim::stand_in::StandIn;
use sim::story::{Story, Within, minutes, secs};
use sim::world::{SA_TOKEN_PATH, World, callers_token, service_account_token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::Protocol;
use tunnel::frame::Open;

use crate::claims::heard_of;
use seen::{SHOWN_MAX, cluster, clusters, neighbour_since, page, until};

const GUARD: &str = "/etc/postern/guard.yaml";

/// Why a version 1 agent promises nothing.
const UNGUARDED: &str = "it has no guard";

/// Why version 1 agents promise nothing.
const ITS_OWN: &str = "two of them cannot be told apart, and how they read the token of the API server is their own business";

/// The weaker claim of a version 1 agent.
const DUMB: &str = "a link that was cut is dumb for as long as it was, and nobody dials another";

/// The cluster to which something happens, and its neighbour.
fn two_clusters() -> World {
    World::new().cluster("edge-1", |c| c).cluster("edge-2", |c| c)
}

#[test]
fn an_api_server_that_is_dead_shows_as_long_as_it_is() {
    shows(Same, "connection refused", |s| {
        s.crash("edge-1/api");
        let s = s.clone();
        Box::new(move || s.restart("edge-1/api"))
    });
}

#[test]
fn an_api_server_that_hangs_shows_as_long_as_it_does() {
    shows(Same, "no answer within 5 s", |s| {
        let hanging = s.apiserver("edge-1").hang();
        Box::new(move || drop(hanging))
    });
}

#[test]
fn an_api_server_that_answers_500_shows_as_long_as_it_does() {
    shows(Same, "500 Internal Server Error: Internal error occurred: etcdserver: no leader", |s| {
        let leaderless = s.apiserver("edge-1").lose_leader();
        Box::new(move || drop(leaderless))
    });
}

#[test]
fn a_half_open_link_shows_as_long_as_it_is() {
    shows(Less(DUMB), "", |s| {
        let cut = s.cut("hub", "edge-1");
        Box::new(move || drop(cut))
    });
}

#[test]
fn a_wedged_agent_shows_as_long_as_it_is() {
    shows(Same, "", |s| {
        let paused = s.pause("edge-1/agent");
        Box::new(move || drop(paused))
    });
}

/// Tells of a misfortune twice, once for some seconds and once for minutes, and claims that it shows, its words too, and then
/// that its end does; that the neighbour and the server are as they were all the time.
fn shows(agent: Promise, words: &str, misfortune: impl Fn(&Story) -> Box<dyn FnOnce()>) {
    two_clusters().version_1(agent, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        until(&s, "edge-1", "healthy").within(secs(1)).await?;
        let since = neighbour_since(&s).await?;
        for time in [secs(1), minutes(3)] {
            let undo = misfortune(&s);
            let shown = until(&s, "edge-1", "unhealthy").within(SHOWN_MAX).await?;
            let why = shown["why"].as_str().unwrap_or_default();
            ensure!(why.contains(words) && !why.is_empty(), "{shown}");
            ensure!(shown["lastError"]["text"].is_string() || words.is_empty(), "{shown}");
            let began = tokio::time::Instant::now();
            while began.elapsed() < time {
                ensure!(cluster(&s, "edge-1").await?["state"] != "healthy", "shown as healthy after {:?}", began.elapsed());
                s.pass(secs(1)).await;
            }
            undo();
            let over_max = if s.claims_less() { time + minutes(2) } else { SHOWN_MAX };
            let healthy = until(&s, "edge-1", "healthy").within(over_max).await?;
            ensure!(healthy["kubernetes"] == "v1.32.0-sim" && healthy["why"].is_null(), "{healthy}");
        }
        ensure!(neighbour_since(&s).await? == since, "the neighbour's health moved");
        Ok(())
    });
}

#[test]
fn a_cluster_whose_agent_is_gone_is_offline_and_its_last_error_is_kept() {
    two_clusters().version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let before = until(&s, "edge-1", "healthy").within(secs(1)).await?;
        ensure!(before["lastError"].is_null() && before["sessions"] == 1, "{before}");
        s.crash("edge-1/agent");
        let offline = until(&s, "edge-1", "offline").within(secs(1)).await?;
        for key in ["connectedSince", "agent", "kubernetes", "roundTripMs", "probe"] {
            ensure!(offline[key].is_null(), "{key} of what is offline: {offline}");
        }
        let told = offline["lastError"]["text"].clone();
        ensure!(told == offline["why"] && told.is_string(), "{offline}");
        s.restart("edge-1/agent");
        let back = until(&s, "edge-1", "healthy").within(secs(10)).await?;
        ensure!(back["lastError"]["text"] == told, "{back}");

        s.drain("edge-1/agent");
        let gone = until(&s, "edge-1", "offline").within(secs(5)).await?;
        ensure!(gone["lastError"]["time"] == back["lastError"]["time"], "an end that was wanted is no error: {gone}");
        Ok(())
    });
}

#[test]
fn of_two_agents_the_one_whose_api_server_answers_serves() {
    World::new().cluster("edge-1", |c| c.agents(2)).version_1(Nothing(ITS_OWN), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.write_file("edge-1/agent-2", SA_TOKEN_PATH, &format!("{}-of-old", service_account_token("edge-1")));
        s.crash("edge-1/agent-2");
        s.restart("edge-1/agent-2");
        let shown = async {
            while !cluster(&s, "edge-1").await?["why"].as_str().is_some_and(|why| why.starts_with("1 of 2 sessions: ")) {
                s.pass(secs(1)).await;
            }
            Ok(())
        };
        shown.within(secs(60)).await?;
        ensure!(cluster(&s, "edge-1").await?["state"] == "healthy", "one of two does it");
        for _ in 0..20 {
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        s.crash("edge-1/agent");
        until(&s, "edge-1", "unhealthy").within(SHOWN_MAX).await?;
        let reply = s.kubectl().get("edge-1", "/version").within(secs(1)).await?;
        ensure!(reply.status != StatusCode::OK && !reply.text().contains("offline"), "who is alone serves: {}", reply.text());
        Ok(())
    });
}

#[test]
fn a_frozen_cluster_shows_the_guards_words_and_one_that_allows_little_is_healthy() {
    let guarded = |config: &mut agent::AgentConfig| config.guard = Some(GUARD.to_owned());
    let world = World::new().cluster("edge-1", |c| c.with(guarded)).cluster("edge-2", |c| c).cold();
    world.version_1(Nothing(UNGUARDED), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.write_file("edge-1/agent", GUARD, "{allow: [{namespaces: [shop]}]}");
        until(&s, "edge-1", "healthy").within(secs(30)).await?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
        s.write_file("edge-1/agent", GUARD, "{frozen: true}");
        let frozen = until(&s, "edge-1", "unhealthy").within(SHOWN_MAX).await?;
        let why = "503 Service Unavailable: postern agent: the cluster is frozen by its own people";
        ensure!(frozen["why"] == why, "{frozen}");
        s.write_file("edge-1/agent", GUARD, "{deny: [{nonResourceURLs: [/version]}]}");
        let denied = async {
            while !cluster(&s, "edge-1").await?["why"].as_str().is_some_and(|why| why.contains("refuses this: deny[0]")) {
                s.pass(secs(1)).await;
            }
            Ok(())
        };
        denied.within(SHOWN_MAX).await
    });
}

#[test]
fn who_may_reach_some_clusters_sees_those_and_a_stranger_what_it_sees_of_any_cluster() {
    let callers = json!({ "callers": [
        { "name": "person", "tokens": [callers_token("kubectl")], "allow": [{ "clusters": ["edge-2"], "verbs": ["list"] }] },
        { "name": "argocd", "tokens": [callers_token("argocd")], "allow": [{ "clusters": ["*"] }] },
        { "name": "nobody", "tokens": [callers_token("nobody")], "allow": [] },
    ] });
    let world = two_clusters().hub(|hub| hub.callers(&callers.to_string()).with(|c| c.ops_addr = "0.0.0.0:9090".parse().ok()));
    world.version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        let names = async |token: Option<&str>| {
            let list = s.kubectl().bearing(token).request(Method::GET, "/clusters").within(secs(1)).await?;
            let list: Value = serde_json::from_slice(&list.expect(StatusCode::OK)?.body)?;
            let ids = list["clusters"].as_array().into_iter().flatten().filter_map(|cluster| cluster["id"].as_str());
            anyhow::Ok(ids.collect::<Vec<_>>().join(" "))
        };
        ensure!(names(Some(&callers_token("kubectl"))).await? == "edge-2");
        ensure!(names(Some(&callers_token("argocd"))).await? == "edge-1 edge-2");
        ensure!(names(Some(&callers_token("nobody"))).await?.is_empty());
        let argocd = s.argocd().request(Method::GET, "/clusters").within(secs(1)).await?.expect(StatusCode::OK)?;
        ensure!(argocd.text().contains("edge-1"), "over HTTP/2: {}", argocd.text());
        for wrong in [None, Some("wrong")] {
            let stranger = s.kubectl().bearing(wrong);
            let list = stranger.request(Method::GET, "/clusters").within(secs(5)).await?.expect(StatusCode::FORBIDDEN)?;
            let other = stranger.get("edge-1", "/version").within(secs(5)).await?.expect(StatusCode::FORBIDDEN)?;
            let nowhere = stranger.get("edge-9", "/version").within(secs(5)).await?.expect(StatusCode::FORBIDDEN)?;
            for told in [other, nowhere] {
                ensure!(nameless(&list.text()) == nameless(&told.text()), "{} {}", list.text(), told.text());
                ensure!(list.headers.keys().eq(told.headers.keys()), "{:?} {:?}", list.headers, told.headers);
            }
        }
        let foreign = s.argocd().request(Method::GET, "/clusters").header("origin", "https://elsewhere.example");
        foreign.within(secs(1)).await?.expect(StatusCode::OK)?;
        let foreign = s.kubectl().bearing(None).request(Method::GET, "/clusters").header("origin", "https://elsewhere.example");
        foreign.within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
        Ok(())
    });
}

#[test]
fn a_callers_file_without_an_ops_listener_warns_that_metrics_name_clusters() {
    let callers =
        json!({ "callers": [{ "name": "all", "networks": ["10.0.0.0/8"], "allow": [{ "clusters": ["*"] }] }] }).to_string();
    for (ops_addr, warns) in [(None, true), ("0.0.0.0:9090".parse().ok(), false)] {
        let world = World::new().hub(|hub| hub.callers(&callers).with(|config| config.ops_addr = ops_addr));
        world.cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
            let warning = "reads the names of clusters and callers in /metrics; --ops-addr moves it";
            ensure!(heard_of(&s, "hub/server", warning).is_ok() == warns, "with {ops_addr:?}");
            Ok(())
        });
    }
}

/// A refusal without the id of its request.
fn nameless(text: &str) -> String {
    text.split_once("(request ").map(|(before, after)| format!("{before}{}", &after[16..])).unwrap_or_default()
}

#[test]
fn without_probes_nobody_claims_to_know() {
    two_clusters().unprobed().version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.pass(minutes(1)).await;
        let unknown = cluster(&s, "edge-1").await?;
        ensure!(unknown["state"] == "unknown" && unknown["probe"].is_null() && unknown["kubernetes"].is_null(), "{unknown}");
        ensure!(unknown["why"] == "API servers are not asked (--probe-interval 0)", "{unknown}");
        ensure!(!seen::metrics(&s).await?.contains("cluster_healthy{"), "a metric says what nobody knows");
        ensure!(s.api("edge-1").requests().is_empty(), "it was asked");
        Ok(())
    });
}

#[test]
fn a_list_is_told_in_the_form_and_for_the_part_that_is_asked_for() {
    two_clusters().version_1(Same, Nothing(FRONT_DOOR)).tell(async |s: Story| {
        until(&s, "edge-2", "healthy").within(secs(2)).await?;
        s.drain("edge-1/agent");
        until(&s, "edge-1", "offline").within(secs(5)).await?;
        let kubectl = s.kubectl();
        let ask = async |query: &str, accept: &str| {
            kubectl.request(Method::GET, &format!("/clusters{query}")).header("accept", accept).within(secs(1)).await
        };
        for (query, names) in
            [("?state=offline", "edge-1"), ("?name=EDGE", "edge-1 edge-2"), ("?cluster=edge-2", "edge-2"), ("?state=unknown", "")]
        {
            let list: Value = serde_json::from_slice(&ask(query, "*/*").await?.expect(StatusCode::OK)?.body)?;
            let ids: Vec<_> = list["clusters"].as_array().into_iter().flatten().filter_map(|c| c["id"].as_str()).collect();
            ensure!(ids.join(" ") == names, "{query}: {list}");
        }
        let html = ask("", "text/html,*/*;q=0.8").await?;
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("refresh", "5"),
        ] {
            ensure!(html.headers.get(name).is_some_and(|told| told == value), "{name}: {:?}", html.headers);
        }
        let policy = html.headers["content-security-policy"].to_str()?.to_owned();
        ensure!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
        for caller in [s.kubectl().anew(), s.argocd().anew()] {
            let head = caller
                .request(Method::HEAD, "/clusters?format=html&refresh=off")
                .within(secs(1))
                .await?
                .expect(StatusCode::OK)?;
            ensure!(
                head.body.is_empty() && head.headers["content-length"] != "0" && !head.headers.contains_key("refresh"),
                "{head:?}"
            );
        }
        kubectl.request(Method::POST, "/clusters").within(secs(1)).await?.expect(StatusCode::METHOD_NOT_ALLOWED)?;
        ask("?format=xml", "*/*").await?.expect(StatusCode::BAD_REQUEST)?;
        ask("?state=dead", "*/*").await?.expect(StatusCode::BAD_REQUEST)?;
        let n_told = clusters(&s).await?["clusters"].as_array().map(Vec::len);
        ensure!(n_told == Some(2), "{n_told:?}");
        Ok(())
    });
}

/// What a hostile agent calls itself.
const NAMES: [&str; 4] = [
    "<script>alert(1)</script>/1.0",
    "\"><img/src=x/onerror=alert(1)>/</style>",
    "\u{202e}evil\u{200b}/{{7*7}}\0",
    "postern-agent/1.0&lt;b&gt;",
];

#[test]
fn what_an_agent_calls_itself_is_text_whatever_it_is() {
    for name in NAMES {
        let rogue = Rogue::new(move |host| async move {
            let (_session, mut incoming) = rogue::dial(&host, "ship-7", name).await?;
            // Whatever it is asked, it lets go of.
            while incoming.next().await.is_some() {}
            Ok(())
        });
        let world = World::new().cluster("ship-7", move |c| c.played_by(rogue));
        world.version_1(Nothing("it says no name"), Nothing(FRONT_DOOR)).tell(async |s: Story| {
            let shown = until(&s, "ship-7", "unhealthy").within(SHOWN_MAX).await?;
            let page = page(&s, "").await?;
            ensure!(page.matches('<').count() == page_of_nobody(&page), "{page}");
            for bad in ["<script", "<img", "onerror=alert(1)>", "\u{202e}", "\u{200b}", "\0"] {
                ensure!(!page.contains(bad), "{bad:?} is in the page: {page}");
                ensure!(bad.starts_with(['<', 'o']) || !shown.to_string().contains(bad), "{shown}");
            }
            ensure!(page.matches("</style>").count() == 1, "{page}");
            Ok(())
        });
    }
}

/// How many tags there would be if nobody chose any: each opens with a letter, `/` or `!` that the template has.
fn page_of_nobody(page: &str) -> usize {
    let is_known = |rest: &str| {
        let name: String = rest.trim_start_matches(['/', '!']).chars().take_while(char::is_ascii_alphanumeric).collect();
        const KNOWN: &str = "DOCTYPE html head meta title style body a header p span h1 time main ul li b form input label select \
             option button table caption thead tr th tbody td footer code";
        KNOWN.split_whitespace().any(|known| known == name)
    };
    page.split('<').skip(1).filter(|rest| is_known(rest)).count()
}

#[test]
fn a_probe_is_in_no_log_and_what_is_only_called_one_is() {
    two_clusters().version_1(Nothing("it writes another log"), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.pass(minutes(5)).await;
        let n_asked = s.api("edge-1").requests().len();
        ensure!((58..=62).contains(&n_asked), "asked {n_asked} times in five minutes");
        ensure!(seen::n_requests_told(&s) == 0, "a probe is in a log");
        Ok(())
    });

    let hub = StandIn::new(|host, io| async move {
        let Ok((session, _incoming)) = rogue::accept(&host, io, Protocol::Extended).await else { return };
        for target in ["/version", "/api/v1/secrets", "/version?x"] {
            let Ok(mut stream) = session.open(Open { is_probe: true, ..Open::default() }) else { return };
            let asked = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(asked.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        session.ended().await;
    });
    let world = World::new().hub(|h| h.stood_in_by(hub)).cluster("edge-1", |c| c).cold();
    world.version_1(Nothing("it writes another log"), Nothing("the hub is the story's own")).tell(async |s: Story| {
        s.pass(secs(20)).await;
        let told: Vec<_> = s.trace().lines().into_iter().filter(|line| line.who == "edge-1/agent").collect();
        let told = |path: &str| told.iter().filter(|line| line.what.contains(&format!("path={path} "))).count();
        ensure!((told("/version"), told("/api/v1/secrets")) == (1, 1), "one with a query, and the one for Secrets");
        Ok(())
    });
}

#[test]
fn an_agent_says_once_that_its_api_server_is_away_and_once_that_it_is_back() {
    two_clusters().version_1(Nothing("it writes another log"), Nothing(FRONT_DOOR)).tell(async |s: Story| {
        s.crash("edge-1/api");
        s.pass(minutes(3)).await;
        s.restart("edge-1/api");
        until(&s, "edge-1", "healthy").within(SHOWN_MAX).await?;
        let lines = s.trace().lines();
        let n_told = |words: &str| lines.iter().filter(|line| line.who == "edge-1/agent" && line.what.contains(words)).count();
        let told = (n_told("a request to the API server failed"), n_told("the API server answers again"));
        ensure!(told == (1, 1), "told {told:?} times");
        Ok(())
    });
}
