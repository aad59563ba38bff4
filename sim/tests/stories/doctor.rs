//! The agent's doctor in broken networks: each cause is named, with a fix in one sentence, and no agent that runs is disturbed.

use agent::config::Way;
use host::Connection;
use sim::apiserver::Rights;
use sim::middlebox::Middlebox;
use sim::promise::Promise::Nothing;
use sim::stand_in::StandIn;
use sim::story::{Examined, Story, Within, mib, minutes, secs};
use sim::world::{Cluster, World, proxy_password, tunnel_token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NOT_OF_PEERS: &str = "the doctor is no peer";

const DAY: i64 = 24 * 3600;

/// All that it said, which people read in the repository.
fn keep(name: &str, examined: &Examined) {
    let mut settings = insta::Settings::clone_current();
    // Signatures of certificates have no fixed length.
    settings.add_filter(r"\d+ ms", "<time> ms");
    settings.add_filter(r"[0-9.]+ Mbit/s", "<rate> Mbit/s");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/doctor");
    settings.bind(|| insta::assert_snapshot!(name, &examined.text));
}

/// Only `step` fails, its finding says `cause`, and its fix is one sentence with `fix` in it.
fn only(examined: &Examined, step: &str, cause: &str, fix: &str) -> anyhow::Result<()> {
    anyhow::ensure!(examined.summary.n_failed == 1, "{}", examined.text);
    fails(examined, step, cause, fix)
}

fn fails(examined: &Examined, step: &str, cause: &str, fix: &str) -> anyhow::Result<()> {
    let (word, lines) = examined.step(step);
    anyhow::ensure!(word == "FAIL", "{step} is {word}\n{}", examined.text);
    anyhow::ensure!(lines.contains(cause), "{step} says nothing of {cause}\n{}", examined.text);
    let said = examined.fix(step);
    anyhow::ensure!(said.contains(fix) && said.ends_with('.') && !said.contains(". "), "no fix: {said}");
    Ok(())
}

fn one(change: impl FnOnce(Cluster) -> Cluster) -> World {
    World::new().cluster("edge-1", change).version_1(Nothing(NOT_OF_PEERS), Nothing(NOT_OF_PEERS))
}

fn tls(change: impl FnOnce(Cluster) -> Cluster) -> World {
    World::new().tls().cluster("edge-1", change).version_1(Nothing(NOT_OF_PEERS), Nothing(NOT_OF_PEERS))
}

#[test]
fn where_all_is_well_it_says_so_and_disturbs_no_agent() {
    tls(|c| c).tell(async |s: Story| {
        let mut watch = s.kubectl().get("edge-1", "/api/v1/namespaces/default/pods?watch=true").open().within(secs(5)).await?;
        let examined = s.doctor("edge-1", Some(minutes(2))).within(minutes(5)).await?;
        keep("well", &examined);
        anyhow::ensure!((examined.summary.n_failed, examined.summary.n_skipped) == (0, 0), "{}", examined.text);
        anyhow::ensure!(s.n_sessions().await? == 1);
        let downs = s.trace().lines().into_iter().filter(|line| line.what.contains("session down")).count();
        anyhow::ensure!(downs == 0, "{downs} sessions went down");
        anyhow::ensure!(watch.line().within(secs(1)).await?.is_some(), "the watch ended");
        Ok(())
    });
}

#[test]
fn a_trial_carries_no_request_although_no_agent_runs() {
    one(|c| c.offline()).tell(async |s: Story| {
        let idle = s.start({
            let s = s.clone();
            async move { s.doctor("edge-1", Some(minutes(1))).await }
        });
        s.pass(secs(30)).await;
        anyhow::ensure!(s.n_sessions().await? == 0, "a trial is counted as a session");
        let reply = s.kubectl().get("edge-1", "/version").within(secs(30)).await?;
        anyhow::ensure!(reply.status.is_server_error(), "a request was sent into a trial: {}", reply.status);
        let text = idle.within(minutes(5)).await??.text;
        anyhow::ensure!(text.contains("1m without a word are survived"), "{text}");
        Ok(())
    });
}

#[test]
fn a_name_that_is_not_known() {
    one(|c| c).tell(async |s: Story| {
        let _lost = s.lose_name("edge-1", "hub");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("no_such_name", &examined);
        only(&examined, "DNS", "hub, the hub, was not found", "have the name entered")
    });
}

#[test]
fn a_resolver_that_is_silent() {
    one(|c| c).tell(async |s: Story| {
        let _mute = s.mute_resolver("edge-1");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("silent_resolver", &examined);
        fails(&examined, "DNS", "no answer for hub", "open UDP and TCP port 53")
    });
}

#[test]
fn a_firewall_that_drops_what_goes_out() {
    one(|c| c).tell(async |s: Story| {
        let _cut = s.cut("hub", "edge-1");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("firewall", &examined);
        only(&examined, "TCP", "no answer from", "have outgoing TCP to it opened in the firewall, or give --https-proxy")
    });
}

#[test]
fn a_proxy_that_wants_a_password() {
    let password = proxy_password("edge-1");
    let wrong = format!("http://ed:{password}wrong@proxy:3128").parse().expect("a proxy");
    let proxy = Middlebox::connect_proxy().with_basic_auth("ed", &password);
    one(|c| c.behind(proxy).with(|config| config.way = Way::Proxy(wrong))).cold().tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("proxy_wants_a_password", &examined);
        only(&examined, "proxy", "answered 407", "give that by --proxy-credentials")
    });
}

#[test]
fn a_proxy_that_forbids_and_one_that_cannot() {
    let proxy = || "http://proxy:3128".parse().expect("a proxy");
    one(|c| c.behind(Middlebox::connect_proxy()).with(|config| config.way = Way::Proxy(proxy()))).tell(async |s: Story| {
        let forbidden = s.forbid_connects("edge-1/box");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "proxy", "answered 403", "have its people allow CONNECT to hub:8443")?;
        drop(forbidden);
        s.crash("hub/server");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "proxy", "answered 502", "look whether the hub runs")?;
        s.crash("edge-1/box");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "proxy", "failed to reach the proxy http://proxy:3128", "look whether the proxy runs")?;
        s.restart("edge-1/box");
        s.restart("hub/server");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("through_a_proxy", &examined);
        anyhow::ensure!(examined.summary.n_failed == 0, "{}", examined.text);
        Ok(())
    });
}

#[test]
fn a_ca_that_intercepts() {
    tls(|c| c.behind(Middlebox::load_balancer().intercepts())).cold().tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("intercepting_ca", &examined);
        only(&examined, "TLS", "O=Example Corp", "\"CN=Example Web Inspection CA, O=Example Corp\"")
    });
}

#[test]
fn a_name_that_is_not_in_the_certificate() {
    tls(|c| c.with(|config| config.server.host = "hub.example".to_owned())).cold().tell(async |s: Story| {
        let _alias = s.move_name("edge-1", "hub.example", &["hub/server"]);
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "TLS", "not valid for name", "The certificate is for hub and not for hub.example")
    });
}

#[test]
fn a_clock_that_is_wrong() {
    // Certificates of these worlds are good for ten years.
    tls(|c| c).tell(async |s: Story| {
        s.skew("edge-1/agent", 20 * 365 * DAY);
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("wrong_clock", &examined);
        fails(&examined, "TLS", "certificate expired", "so set this clock right")?;
        fails(&examined, "API server", "certificate expired", "so set the clock right")?;
        let (word, lines) = examined.step("clock");
        anyhow::ensure!(word == "warn" && lines.contains("630720000 s ahead of the hub's"), "{lines}");
        Ok(())
    });
}

#[test]
fn a_clock_that_is_wrong_by_minutes() {
    one(|c| c).tell(async |s: Story| {
        s.skew("edge-1/agent", -300);
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        let (word, lines) = examined.step("clock");
        anyhow::ensure!(word == "warn" && lines.contains("299 s behind the hub's"), "{lines}");
        anyhow::ensure!(examined.summary.n_failed == 0, "{}", examined.text);
        Ok(())
    });
}

#[test]
fn a_middlebox_that_holds_what_is_behind_an_upgrade() {
    one(|c| c.behind(Middlebox::load_balancer().holds_what_is_upgraded())).unprobed().cold().tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("buffering_middlebox", &examined);
        only(&examined, "WebSocket", "no hello of the tunnel came behind it", "switch its buffering off")
    });
}

#[test]
fn a_gateway_that_knows_no_upgrades() {
    one(|c| c.behind(Middlebox::load_balancer().drops_upgrades())).cold().tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("no_upgrades", &examined);
        only(&examined, "WebSocket", "426 Upgrade Required", "pass the headers Upgrade and Connection")
    });
}

#[test]
fn a_box_that_takes_connections_and_forwards_nothing() {
    one(|c| c.behind(Middlebox::load_balancer())).cold().tell(async |s: Story| {
        let _dark = s.swallow("edge-1/box");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "token", "did not answer", "look at the gateway before the hub")
    });
}

#[test]
fn a_middlebox_that_forgets_what_is_idle() {
    let impatient = |seconds| Middlebox::load_balancer().idle_timeout(secs(seconds)).resets();
    let keepalive = |c: Cluster| c.with(|config| config.keepalive = Some(secs(2)));
    one(|c| keepalive(c.behind(impatient(5))))
        .cluster("ship-7", |c| c.behind(impatient(90)))
        .cluster("barge-3", |c| c.offline().behind(impatient(5)))
        .tell(async |s: Story| {
            let examined = s.doctor("edge-1", Some(minutes(2))).within(minutes(5)).await?;
            let (word, lines) = examined.step("idle time");
            anyhow::ensure!(
                word == "ok" && lines.contains("4s without a word are survived, 7s are not; --keepalive 2s suffices"),
                "{lines}"
            );
            let examined = s.doctor("ship-7", Some(minutes(2))).within(minutes(5)).await?;
            let (word, lines) = examined.step("idle time");
            anyhow::ensure!(word == "ok", "{lines}");
            anyhow::ensure!(lines.contains("1m without a word are survived, 2m are not"), "{lines}");
            anyhow::ensure!(lines.contains("the agent's own keepalive of 8s suffices"), "{lines}");
            let examined = s.doctor("barge-3", Some(minutes(2))).within(minutes(5)).await?;
            keep("idle_killer", &examined);
            only(&examined, "idle time", "4s without a word are survived, 7s are not", "give --keepalive 2s")
        });
}

#[test]
fn a_token_that_the_hub_does_not_know() {
    one(|c| c).tell(async |s: Story| {
        s.revoke("edge-1");
        s.pass(secs(2)).await;
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("wrong_token", &examined);
        only(&examined, "token", "401 Unauthorized", "the token of this cluster's entry in the hub's clusters file")
    });
}

#[test]
fn a_hub_that_knows_no_trials_keeps_the_session_that_it_has() {
    let world = World::new().hub(|hub| hub.version_1()).cluster("edge-1", |c| c);
    world.tell(async |s: Story| {
        s.until_reachable("edge-1").within(secs(30)).await?;
        let examined = s.doctor("edge-1", Some(minutes(1))).within(minutes(5)).await?;
        keep("version_1_hub", &examined);
        anyhow::ensure!(examined.summary.n_failed == 0, "{}", examined.text);
        let (word, _) = examined.step("WebSocket");
        anyhow::ensure!(word == "skip", "{}", examined.text);
        let downs = s.trace().lines().into_iter().filter(|line| line.what.contains("session down")).count();
        anyhow::ensure!(downs == 0, "{downs} sessions went down");
        s.until_reachable("edge-1").within(secs(1)).await
    });
}

#[test]
fn a_service_account_without_rights() {
    one(|c| c.rights(Rights::None)).tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("no_rights", &examined);
        let (word, lines) = examined.step("RBAC");
        anyhow::ensure!(word == "warn" && lines.contains("bind a ClusterRole to it"), "{lines}");
        Ok(())
    });
}

#[test]
fn a_service_account_that_may_view() {
    one(|c| c.rights(Rights::View)).tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        let (word, lines) = examined.step("RBAC");
        anyhow::ensure!(word == "warn" && lines.contains("read pods          yes"), "{lines}");
        anyhow::ensure!(lines.contains("lists and watches everything"), "{lines}");
        Ok(())
    });
}

#[test]
fn a_service_account_that_may_only_read() {
    one(|c| c.rights(Rights::ReadOnly)).tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        let (word, lines) = examined.step("RBAC");
        anyhow::ensure!(word == "warn" && lines.contains("can show this cluster and not sync it"), "{lines}");
        anyhow::ensure!(examined.summary.n_failed == 0, "{}", examined.text);
        Ok(())
    });
}

#[test]
fn an_api_server_that_hangs() {
    one(|c| c).tell(async |s: Story| {
        let _hangs = s.apiserver("edge-1").hang();
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "API server", "did not answer within 30 s", "look at the API server itself")
    });
}

#[test]
fn an_api_server_that_is_away_and_a_token_that_it_refuses() {
    one(|c| c).tell(async |s: Story| {
        s.write_file("edge-1/agent", "/var/run/secrets/kubernetes.io/serviceaccount/token", "stale");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "API server", "refuses the agent's token", "mount one of this very cluster")?;
        s.crash("edge-1/api");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        keep("no_api_server", &examined);
        only(&examined, "API server", "failed to reach the API server", "open the way to it")
    });
}

#[test]
fn a_hub_out_of_trials_serves_its_agents_all_the_same() {
    one(|c| c).tell(async |s: Story| {
        let doctors: Vec<_> = (0..3)
            .map(|_| {
                let s_ = s.clone();
                s.start(async move { s_.doctor("edge-1", Some(minutes(10))).await })
            })
            .collect();
        s.pass(secs(20)).await;
        let bulk = s.kubectl().get("edge-1", &format!("/bulk?bytes={}", mib(1))).within(secs(10)).await?;
        anyhow::ensure!(bulk.status.is_success());
        let mut n_untried = 0;
        for doctor in doctors {
            n_untried += doctor.within(minutes(15)).await??.text.matches("could not be tried").count();
        }
        // Six silences each, and room for ten, of which those that measured the speed may not have left all yet.
        anyhow::ensure!((3 * 6 - 10..=3 * 6 - 10 + 3).contains(&n_untried), "{n_untried} were not tried");
        Ok(())
    });
}

/// Reads a request's head and answers it with what `answer` makes of it.
async fn say(mut io: Connection, answer: impl Fn(&str) -> String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && matches!(io.read_buf(&mut head).await, Ok(1..)) {}
    let _ = io.write_all(answer(&String::from_utf8_lossy(&head)).as_bytes()).await;
    let _ = io.shutdown().await;
    let _ = io.read_to_end(&mut Vec::new()).await;
}

/// A world whose hub answers every request with what `answer` makes of its head.
fn answered(answer: fn(&str) -> String) -> World {
    let hub = StandIn::new(move |_, io| say(io, answer));
    one(|c| c).hub(|hub_| hub_.stood_in_by(hub)).cold()
}

#[test]
fn a_server_that_repeats_what_it_is_sent_is_told_without_the_token() {
    const PART: &str = "tunnel~edge-1~";
    // All of the token in the other direction would be a leak to every world.
    let echo = |head: &str| {
        let part = if head.contains(PART) { PART } else { "" };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nBearer {part}", "Bearer ".len() + part.len())
    };
    answered(echo).tell(async |s: Story| {
        anyhow::ensure!(tunnel_token("edge-1").ends_with(PART));
        s.pass(minutes(1)).await;
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "token", "repeats a credential that it was sent, and is withheld", "correct --server")?;
        let lines = s.trace().lines();
        let refused: Vec<_> = lines.iter().filter(|line| line.what.contains("failed to connect to the hub")).collect();
        anyhow::ensure!(refused.len() > 1, "the agent logged {} refusals", refused.len());
        anyhow::ensure!(!examined.text.contains(PART) && !refused.iter().any(|line| line.what.contains(PART)));
        Ok(())
    });
}

/// A short answer of somebody who is no hub.
fn no_hub(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 3\r\n\r\nno\n")
}

#[test]
fn an_answer_that_is_no_hubs_is_not_taken_for_one() {
    type Answer = fn(&str) -> String;
    let answers: [(Answer, &str, &str); 7] = [
        (|_| no_hub("400 Bad Request"), "answered 400", "What answers is not a hub"),
        (|_| no_hub("426 Upgrade Required"), "answered 426", "What answers is not a hub"),
        (|_| no_hub("401 Unauthorized"), "answered 401", "This 401 is not a hub's answer"),
        (|_| no_hub("403 Forbidden"), "answered 403", "This 403 is not a hub's answer"),
        (|_| no_hub("429 Too Many Requests"), "answered 429", "This 429 is not a hub's answer"),
        (|_| no_hub("502 Bad Gateway"), "answered 502", "look whether the hub runs"),
        (|_| no_hub("503 Service Unavailable"), "answered 503", "look whether the hub runs"),
    ];
    for (answer, cause, fix) in answers {
        answered(answer).tell(async |s: Story| {
            let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
            only(&examined, "token", cause, fix)
        });
    }
}

#[test]
fn a_gateway_that_loses_its_hub_before_the_upgrade() {
    let answer = |head: &str| match head.contains("sec-websocket-key") {
        true => no_hub("503 Service Unavailable"),
        false => {
            let offer = format!("{}: {}", tunnel::trial::HEADER, tunnel::trial::OFFER);
            format!("HTTP/1.1 426 Upgrade Required\r\n{offer}\r\ncontent-length: 0\r\n\r\n")
        }
    };
    answered(answer).tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "WebSocket", "503 Service Unavailable", "look whether the hub runs")
    });
}

#[test]
fn a_hub_and_a_proxy_that_are_silent_in_the_handshake() {
    tls(|c| c.behind(Middlebox::load_balancer())).cold().tell(async |s: Story| {
        let _dark = s.swallow("edge-1/box");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "TLS", "the TLS handshake took too long", "look whether the hub hangs")
    });
    let way = Way::Proxy("https://proxy:3128".parse().expect("a proxy"));
    let boxed = |c: Cluster| c.behind(Middlebox::connect_proxy().with_tls()).with(|config| config.way = way);
    tls(boxed).cold().tell(async |s: Story| {
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "proxy", "is --proxy-ca-cert the CA", "so give its CA by --proxy-ca-cert")?;
        let _dark = s.swallow("edge-1/box");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "proxy", "the TLS handshake took too long", "have its people look whether it hangs")
    });
}

#[test]
fn a_name_that_only_the_proxy_knows_whose_use_is_excepted() {
    let way = Way::Exempted { from: "http://proxy:3128".parse().expect("a proxy"), by: "NO_PROXY has hub".to_owned() };
    one(|c| c.with(|config| config.way = way)).tell(async |s: Story| {
        let _lost = s.lose_name("edge-1", "hub");
        let examined = s.doctor("edge-1", None).within(minutes(5)).await?;
        only(&examined, "DNS", "hub, the hub, was not found", "take it out of NO_PROXY")
    });
}
