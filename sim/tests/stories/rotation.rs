//! Credentials that are files: each is replaced while everything runs, and a broken one is not taken.

use anyhow::Context;
use http::StatusCode;
use serde_json::json;
use sim::certs::Pem;
use sim::fabric::Wan;
use sim::pki::{ISSUED, NEW};
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, millis, secs};
use sim::world::{World, service_account_token, tunnel_token};

use agent::AgentConfig;
use agent::config::TunnelToken;

use crate::certificates::NO_TLS;
use crate::claims::heard_of;

const PODS: &str = "/api/v1/namespaces/default/pods";
const REVOKED: &str = "/etc/postern/revoked";
const TUNNEL_TOKEN: &str = "/etc/postern/token";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How often files are looked at, how long agents may wait before they show what is new, and a moment.
const NOTICED: std::time::Duration = secs(8);

#[test]
fn a_ca_is_replaced_without_a_restart_and_sessions_go_on() {
    let agents = ["edge-1/agent", "edge-2/agent"];
    let world = World::new().tls().cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        let everybody = ["hub/server"].into_iter().chain(agents);
        everybody.clone().for_each(|machine| s.trust(machine, &[&ISSUED, &NEW]));
        s.pass(NOTICED).await;
        s.certify("hub/server", &NEW.hub);
        agents.into_iter().for_each(|agent| s.certify(agent, &NEW.agent));
        s.pass(NOTICED).await;
        everybody.for_each(|machine| s.trust(machine, &[&NEW]));
        s.pass(secs(60)).await;

        s.api("edge-1").put(
            "pods",
            "default",
            "late",
            json!({ "spec": { "containers": [{ "name": "main", "image": "none" }] } }),
        );
        let heard = async {
            while !watch.line().await?.context("the watch ended")?.contains("late") {}
            Ok(())
        };
        heard.within(secs(1)).await?;
        anyhow::ensure!(n_told(&s, "revoked") == 0, "a session was cut");

        // Who knows the old CA only is a stranger to all of them by now.
        s.reset("hub", "edge-2");
        s.pass(secs(10)).await;
        s.kubectl().get("edge-2", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        s.certify("edge-2/agent", &ISSUED.agent);
        s.pass(NOTICED).await;
        s.reset("hub", "edge-2");
        s.pass(secs(10)).await;
        let refused = s.kubectl().get("edge-2", "/version").within(secs(11)).await?;
        refused.expect(StatusCode::SERVICE_UNAVAILABLE).context("an old certificate was believed")?;
        Ok(())
    });
}

#[test]
fn a_fleet_that_is_given_a_new_ca_at_once_does_not_dial_at_once() {
    let clusters = ["edge-1", "edge-2", "edge-3", "edge-4", "edge-5", "edge-6"];
    let world = clusters.into_iter().fold(World::new().tls(), |world, cluster| world.cluster(cluster, |c| c));
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        // As long as a session must live to be called calm.
        s.pass(secs(31)).await;
        let n_before = n_told(&s, "connected to the hub");
        clusters.iter().for_each(|cluster| s.trust(&format!("{cluster}/agent"), &[&ISSUED, &NEW]));
        s.pass(secs(1)).await;
        let n_at_once = n_told(&s, "connected to the hub") - n_before;
        anyhow::ensure!(n_at_once <= clusters.len() / 2, "{n_at_once} have dialled within a second");
        s.pass(NOTICED).await;
        anyhow::ensure!(n_told(&s, "connected to the hub") - n_before == clusters.len(), "somebody has not dialled");
        Ok(())
    });
}

#[test]
fn a_broken_set_of_files_is_refused_and_the_old_one_stays() {
    World::new().tls().cluster("edge-1", |c| c).version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let mixed = Pem { certificate: ISSUED.hub.certificate.clone(), key: NEW.hub.key.clone() };
        s.certify("hub/server", &mixed);
        s.certify("edge-1/agent", &Pem { certificate: "none".to_owned(), key: ISSUED.agent.key.clone() });
        s.pass(NOTICED).await;
        for _ in 0..3 {
            s.reset("hub", "edge-1");
            s.pass(secs(10)).await;
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        heard_of(&s, "hub/server", "changed files are refused, what was there before stays")?;
        heard_of(&s, "edge-1/agent", "/etc/postern/tls/tls.crt holds no certificate in PEM")?;
        // Both listeners of the hub have the files.
        anyhow::ensure!(n_told(&s, "changed files are refused") == 3, "it is told again and again");
        Ok(())
    });
}

#[test]
fn a_token_rotated_with_an_overlap_loses_no_request() {
    World::new().cluster("edge-1", |c| c).version_1(Nothing("as recorded it has one token"), Same).tell(async |s: Story| {
        let old = service_account_token("edge-1");
        let new = format!("{old}new");
        let kubectl = s.kubectl();
        let load = s.start(async move {
            for _ in 0..40 {
                for call in [kubectl.get("edge-1", "/version"), kubectl.post("edge-1", "/echo", "a write")] {
                    call.within(secs(1)).await?.expect(StatusCode::OK)?;
                }
            }
            anyhow::Ok(())
        });
        s.pass(millis(100)).await;
        s.api("edge-1").set_tokens(vec![old, new.clone()]);
        s.pass(millis(100)).await;
        s.write_file("edge-1/agent", TOKEN_PATH, &new);
        s.pass(millis(100)).await;
        s.api("edge-1").set_tokens(vec![new.clone()]);
        load.await??;
        let requests = s.api("edge-1").requests();
        let last = requests.last().context("no request")?;
        anyhow::ensure!(last.headers.get("authorization").is_some_and(|value| value == format!("Bearer {new}").as_str()));
        Ok(())
    });
}

#[test]
fn a_refused_token_is_read_again_and_only_a_read_repeated() {
    const OWN_WAY: &str = "it passes the API server's 401 on";
    World::new().unprobed().cluster("edge-1", |c| c).version_1(Nothing(OWN_WAY), Same).tell(async |s: Story| {
        let (old, kubectl) = (service_account_token("edge-1"), s.kubectl());
        for (round, is_read) in [(1, true), (2, false)] {
            let call = if is_read { kubectl.get("edge-1", "/version") } else { kubectl.post("edge-1", "/echo", "a write") };
            let n_before = s.api("edge-1").requests().len();
            let slow = s.degrade("edge-1", "edge-1", Wan::LAN.with_round_trip(secs(1)));
            let asked = s.start(async move { call.await });
            // The old token is read, and has not arrived.
            s.pass(millis(250)).await;
            let new = format!("{old}{round}");
            s.api("edge-1").set_tokens(vec![new.clone()]);
            s.write_file("edge-1/agent", TOKEN_PATH, &new);
            let reply = asked.within(secs(10)).await??;
            drop(slow);
            let n_asked = s.api("edge-1").requests().len() - n_before;
            if is_read {
                reply.expect(StatusCode::OK)?;
                anyhow::ensure!(n_asked == 2, "asked {n_asked} times");
            } else {
                let told = reply.expect(StatusCode::BAD_GATEWAY)?.text();
                anyhow::ensure!(told.contains(TOKEN_PATH), "{told}");
                anyhow::ensure!(n_asked == 1, "a write was sent {n_asked} times");
            }
        }
        Ok(())
    });
}

/// Watches that are open while every file is replaced.
const N_WATCHES: usize = 50;

#[test]
fn every_file_is_replaced_under_fifty_watches_and_an_exec_and_none_breaks() {
    let (old, new) = (tunnel_token("edge-1"), format!("{}new", tunnel_token("edge-1")));
    let world = World::new().tls().hub(|hub| hub.with(|config| config.revoked_certs = Some(REVOKED.to_owned())));
    let with_file = |config: &mut AgentConfig| config.token = TunnelToken::File(TUNNEL_TOKEN.to_owned());
    let world = world.cluster("edge-1", |c| c.with(with_file)).cold();
    world.version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let everybody = ["hub/server", "edge-1/agent"];
        s.write_file("hub/server", REVOKED, "# nobody\n");
        s.write_file("edge-1/agent", TUNNEL_TOKEN, &old);
        s.until_reachable("edge-1").within(secs(30)).await?;
        let argo = s.argocd();
        let mut watches = Vec::new();
        for _ in 0..N_WATCHES {
            watches.push(argo.watch("edge-1", PODS, "").within(secs(1)).await?);
        }
        let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;

        // What is new is made known first, then shown, and what is old is forgotten last.
        everybody.iter().for_each(|machine| s.trust(machine, &[&ISSUED, &NEW]));
        s.add_token("edge-1", &new);
        s.pass(NOTICED).await;
        s.certify("hub/server", &NEW.hub);
        s.certify("edge-1/agent", &NEW.agent);
        s.write_file("edge-1/agent", TUNNEL_TOKEN, &new);
        s.pass(secs(10)).await;
        let sa_token = format!("{}new", service_account_token("edge-1"));
        s.api("edge-1").set_tokens(vec![service_account_token("edge-1"), sa_token.clone()]);
        s.write_file("edge-1/agent", TOKEN_PATH, &sa_token);
        s.write_file("hub/server", REVOKED, &NEW.edge_1.fingerprint());
        everybody.iter().for_each(|machine| s.trust(machine, &[&NEW]));
        s.drop_old_tokens("edge-1");
        s.pass(secs(60)).await;

        let pod = json!({ "spec": { "containers": [{ "name": "main", "image": "none" }] } });
        s.api("edge-1").put("pods", "default", "late", pod);
        for watch in &mut watches {
            let heard = async {
                while !watch.line().await?.context("a watch ended")?.contains("late") {}
                anyhow::Ok(())
            };
            heard.within(secs(1)).await?;
        }
        exec.write(b"still there?").await?;
        let answered = async {
            while exec.read().await?.context("the exec has ended")?.1.as_ref() != b"still there?" {}
            anyhow::Ok(())
        };
        answered.within(secs(1)).await?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

fn n_told(s: &Story, what: &str) -> usize {
    s.trace().lines().into_iter().filter(|line| line.what.contains(what)).count()
}
