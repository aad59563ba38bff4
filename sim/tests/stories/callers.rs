//! Callers have names: what each presents, what it may do, and what becomes of it when the rules change.

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use server::config::TlsFiles;
use sim::caller::{Answer, Caller, Protocol, Reply};
use sim::certs::Pem;
use sim::kubectl::Exec;
use sim::pki::{ISSUED, Issue, NEW};
use sim::promise::FRONT_DOOR;
use sim::promise::Promise::{Less, Nothing, Same};
use sim::story::{Story, Within, millis, secs};
use sim::world::{CALLERS_PATH, World, callers_token};
use tokio::io::AsyncWriteExt;

use crate::certificates::NO_TLS;
use crate::claims::{INTERNAL, aborted, add_pod, heard};

/// Where the hub finds the CA of its callers, and the certificates that are good no longer.
const CALLERS_CA: &str = "/etc/postern/tls/callers-ca.crt";
const REVOKED: &str = "/etc/postern/revoked";

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Why a version 1 server promises nothing.
const ANYBODY: &str = "it lets in whoever reaches it";

/// The claim of an agent that is told nothing but an address to dial.
const NAMELESS: &str = "the agent is not told who asks";

/// A change of the callers file is noticed and has its effect within this.
const AT_ONCE: std::time::Duration = secs(1);

/// kubectl by its token, wherever it may go; Argo CD by its own.
fn both(kubectl: &Value, argocd: &Value) -> String {
    file(&[
        json!({ "name": "person", "tokens": [callers_token("kubectl")], "allow": kubectl }),
        json!({ "name": "argocd", "tokens": [callers_token("argocd")], "allow": argocd }),
    ])
}

fn everything() -> Value {
    json!([{ "clusters": ["*"] }])
}

fn file(callers: &[Value]) -> String {
    json!({ "callers": callers }).to_string()
}

#[test]
fn a_guess_is_told_with_the_cluster_that_it_was_for_although_its_guesser_has_left() {
    let file = file(&[json!({ "name": "person", "tokens": [callers_token("kubectl")], "allow": everything() })]);
    let world = World::new().hub(|hub| hub.callers(&file)).cluster("edge-1", |c| c);
    world.version_1(Same, Nothing(ANYBODY)).tell(async |s: Story| {
        const N_GUESSES: usize = 10;
        for _ in 0..N_GUESSES {
            let mut guesser = s.stranger("hub/argocd", INTERNAL).await?;
            guesser.write_all(b"GET /tunnel/edge-1/version HTTP/1.1\r\nhost: x\r\nauthorization: Bearer guess\r\n\r\n").await?;
            // Long before the answer to a tenth guess.
            s.pass(millis(100)).await;
        }
        let told = s.trace().lines().into_iter().filter(|line| line.who == "hub/server" && line.what.contains("denied"));
        let n_told = told.filter(|line| line.what.contains("edge-1")).count();
        anyhow::ensure!(n_told == N_GUESSES, "{n_told} of {N_GUESSES} are in the log with their cluster");
        Ok(())
    });
}

#[test]
fn a_caller_is_known_by_its_token_and_nobody_else_passes() {
    let file = file(&[json!({ "name": "person", "tokens": [callers_token("kubectl")], "allow": everything() })]);
    World::new()
        .unprobed()
        .hub(|hub| hub.callers(&file))
        .cluster("edge-1", |c| c)
        .version_1(Less(NAMELESS), Nothing(ANYBODY))
        .tell(async |s: Story| {
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            let wrong = format!("{}x", callers_token("kubectl"));
            for stranger in
                [s.kubectl().bearing(None), s.kubectl().bearing(Some(&wrong)), s.argocd().over(Protocol::Http2).anew()]
            {
                let refused = stranger.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
                anyhow::ensure!(!refused.text().contains("edge-1"), "{}", refused.text());
            }
            // Where browsers put it, who can set no header.
            let protocol = format!("base64url.bearer.authorization.k8s.io.{}", base64url(&callers_token("kubectl")));
            let browser = s.kubectl().bearing(None).get("edge-1", "/version").header("sec-websocket-protocol", &protocol);
            browser.within(secs(1)).await?.expect(StatusCode::OK)?;
            anyhow::ensure!(s.api("edge-1").requests().len() == 2, "a stranger's request arrived");
            anyhow::ensure!(n_told(&s, "hub/server", "caller=person") == 2, "the hub's log does not name the caller");
            let metrics = s.kubectl().request(Method::GET, "/metrics").within(secs(1)).await?.text();
            for line in [
                r#"auth_failures_total{endpoint="tunnel"} 3"#,
                r#"refusals_total{reason="Denied"} 3"#,
                r#"caller_requests_total{caller="person"} 2"#,
            ] {
                anyhow::ensure!(metrics.contains(line), "{line} is not in\n{metrics}");
            }
            if s.claims_less() {
                return Ok(());
            }
            anyhow::ensure!(n_told(&s, "edge-1/agent", "caller=person") == 2, "the agent's log does not name the caller");
            Ok(())
        });
}

#[test]
fn a_network_is_the_last_resort_of_who_presents_nothing() {
    let file = file(&[
        json!({ "name": "hub", "networks": ["10.0.0.0/8"], "allow": everything() }),
        json!({ "name": "argocd", "tokens": [callers_token("argocd")] }),
    ]);
    World::new().hub(|hub| hub.callers(&file)).cluster("edge-1", |c| c).version_1(Same, Nothing(ANYBODY)).tell(
        async |s: Story| {
            let get =
                async |caller: Caller| Ok::<_, anyhow::Error>(caller.get("edge-1", "/version").within(secs(1)).await?.status);
            anyhow::ensure!(get(s.kubectl().bearing(None)).await? == StatusCode::OK);
            anyhow::ensure!(get(s.kubectl().anew()).await? == StatusCode::FORBIDDEN, "a wrong token passed for none");
            anyhow::ensure!(get(s.argocd().anew()).await? == StatusCode::FORBIDDEN, "a known caller passed for another");
            Ok(())
        },
    );
}

#[test]
fn a_caller_is_known_by_its_certificate() {
    let file = file(&[
        json!({ "name": "argocd", "certificates": ["uri:spiffe://hub/argocd"], "allow": everything() }),
        json!({ "name": "person", "tokens": [callers_token("kubectl")], "networks": ["0.0.0.0/0"], "allow": everything() }),
    ]);
    World::new().tls().hub(|hub| hub.callers(&file)).cluster("edge-1", |c| c).version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(
        async |s: Story| {
            let get =
                async |caller: Caller| Ok::<_, anyhow::Error>(caller.get("edge-1", "/version").within(secs(1)).await?.status);
            anyhow::ensure!(get(s.kubectl().over_tls()?).await? == StatusCode::OK, "a token without a certificate");
            s.certify("hub/argocd", &ISSUED.caller);
            let argocd = s.argocd().over_tls()?.bearing(None);
            for protocol in [Protocol::Http1, Protocol::Http2] {
                anyhow::ensure!(get(argocd.over(protocol)).await? == StatusCode::OK);
            }
            anyhow::ensure!(n_told(&s, "hub/server", "caller=argocd") == 2, "the certificate named somebody else");
            // A certificate of the CA that names nobody, from a network that would do for who has none.
            s.certify("hub/kubectl", &ISSUED.agent);
            anyhow::ensure!(get(s.kubectl().over_tls()?.bearing(None)).await? == StatusCode::FORBIDDEN);
            anyhow::ensure!(get(s.kubectl().over_tls()?).await? == StatusCode::OK, "the token says who it is");
            s.certify("hub/kubectl", &ISSUED.caller);
            anyhow::ensure!(get(s.kubectl().over_tls()?).await? == StatusCode::FORBIDDEN, "two callers in one");
            Ok(())
        },
    );
}

#[test]
fn a_callers_certificate_that_is_good_no_longer_cuts_what_runs_by_it() {
    let file = file(&[
        json!({ "name": "argocd", "certificates": ["cn:caller"], "allow": everything() }),
        json!({ "name": "person", "tokens": [callers_token("kubectl")], "allow": everything() }),
    ]);
    for has_file in [true, false] {
        let world = World::new().tls().hub(|hub| {
            let hub = if has_file { hub.callers(&file) } else { hub };
            hub.with(|config| {
                config.revoked_certs = Some(REVOKED.to_owned());
                let own = config.tls.clone().map(|files| TlsFiles { client_ca: Some(CALLERS_CA.to_owned()), ..files });
                config.internal_tls_files = own.map(|files| TlsFiles { client_required: !has_file, ..files });
            })
        });
        let world = world.cluster("edge-1", |c| c).cold().version_1(Nothing(NO_TLS), Nothing(NO_TLS));
        world.tell(async |s: Story| {
            let trust = |issues: &[&Issue]| {
                let bundle: String = issues.iter().map(|issue| issue.ca.as_str()).collect();
                s.write_file("hub/server", CALLERS_CA, &bundle);
            };
            trust(&[&ISSUED, &NEW]);
            s.write_file("hub/server", REVOKED, "# nobody\n");
            s.pass(secs(5)).await;
            let watch = async |pem: &Pem| {
                s.certify("hub/argocd", pem);
                let argocd = s.argocd().with(|argocd| argocd.over_tls().expect("usable files").bearing(None));
                let watch = argocd.watch("edge-1", PODS, "").within(secs(1)).await?;
                anyhow::Ok((argocd, watch))
            };
            let mut kept = s.kubectl().get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(1)).await?;
            let revoke = || s.write_file("hub/server", REVOKED, &ISSUED.caller.fingerprint());
            let distrust = || trust(&[&ISSUED]);
            for (pem, end) in [(&ISSUED.caller, &revoke as &dyn Fn()), (&NEW.caller, &distrust)] {
                let (argocd, mut lost) = watch(pem).await?;
                end();
                aborted(&mut lost).within(AT_ONCE).await?;
                // Its connection is still there, and good for nothing.
                argocd.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
            }
            add_pod(&s, "edge-1", "late");
            heard(&mut kept, "late").within(secs(1)).await
        });
    }
}

#[test]
fn a_caller_does_what_its_rules_allow_where_they_allow_it() {
    let rules = json!([{ "clusters": ["edge-*"], "verbs": ["get", "list", "watch", "patch"] }, { "clusters": ["test"], "verbs": ["create"] }]);
    let file = both(&rules, &everything());
    let world = World::new().unprobed().hub(|hub| hub.callers(&file)).cluster("edge-1", |c| c).cluster("test", |c| c);
    world.cluster("other", |c| c).version_1(Same, Nothing(ANYBODY)).tell(async |s: Story| {
        let kubectl = s.kubectl();
        let status = async |call: sim::caller::Call| Ok::<_, anyhow::Error>(call.within(secs(1)).await?.status);
        anyhow::ensure!(status(kubectl.get("edge-1", PODS)).await? == StatusCode::OK);
        anyhow::ensure!(status(kubectl.get("edge-1", &format!("{PODS}/web-0"))).await? == StatusCode::OK);
        anyhow::ensure!(status(kubectl.get("test", PODS)).await? == StatusCode::FORBIDDEN);
        anyhow::ensure!(status(kubectl.get("other", PODS)).await? == StatusCode::FORBIDDEN);
        let refused = kubectl.post("edge-1", PODS, "{}").within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?.text();
        anyhow::ensure!(refused.contains("may not create in cluster edge-1") && refused.contains("VerbDenied"), "{refused}");
        let patch = |media_type| {
            let patch = kubectl.request(Method::PATCH, &format!("/tunnel/edge-1{PODS}/new")).header("content-type", media_type);
            status(patch.body("{}"))
        };
        anyhow::ensure!(patch("application/merge-patch+json").await? == StatusCode::NOT_FOUND, "there is nothing to patch");
        anyhow::ensure!(patch("application/apply-patch+yaml").await? == StatusCode::FORBIDDEN, "an apply creates");
        let many = format!("{PODS}?watch=1{}", "&".repeat(1000));
        anyhow::ensure!(status(kubectl.get("edge-1", &many)).await? == StatusCode::BAD_REQUEST, "a watch, or a list?");
        let refused = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(1)).await.err().context("an exec passed as a get")?;
        anyhow::ensure!(refused.to_string().contains("may not create"), "{refused}");
        anyhow::ensure!(s.api("edge-1").n_execs() == 0 && s.api("other").requests().is_empty());
        // Argo CD may do it all.
        anyhow::ensure!(status(s.argocd().get("other", PODS)).await? == StatusCode::OK);
        anyhow::ensure!(status(s.argocd().get("nowhere", PODS)).await? == StatusCode::BAD_GATEWAY, "who may reach all may know");
        Ok(())
    });
}

#[test]
fn a_cluster_that_is_forbidden_offline_or_not_there_looks_the_same_and_so_does_a_stranger() {
    let file = both(&json!([{ "clusters": ["edge-1"] }]), &everything());
    let world = World::new().hub(|hub| hub.callers(&file)).cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.cluster("edge-3", |c| c.offline()).version_1(Same, Nothing(ANYBODY)).tell(async |s: Story| {
        let mut kept = s.kubectl().get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(1)).await?;
        let known = ["edge-2", "edge-3", "nowhere", "edge-", "edge-22"];
        let mut seen = Vec::new();
        let mut see = async |who: &Caller, cluster: &str, is_upgrade: bool| {
            // The first request of a connection pays for it.
            who.request(Method::GET, "/healthz").within(secs(1)).await?;
            let call = who.get(cluster, &format!("{PODS}/web-0/exec"));
            let call = if is_upgrade { call.header("connection", "upgrade").header("upgrade", "SPDY/3.1") } else { call };
            seen.push((cluster.to_owned(), looks(call.within(secs(1)).await?)?));
            anyhow::Ok(())
        };
        for is_upgrade in [false, true] {
            for cluster in known {
                see(&s.kubectl().anew(), cluster, is_upgrade).await?;
            }
            for cluster in ["edge-1"].iter().chain(&known) {
                see(&s.kubectl().bearing(None), cluster, is_upgrade).await?;
                // Another for each: who tries one again and again waits.
                let wrong = format!("wrong for {cluster} {is_upgrade}");
                see(&s.kubectl().bearing(Some(&wrong)), cluster, is_upgrade).await?;
            }
        }
        all_alike(&seen)?;
        // Its own state is not for strangers either.
        s.drain("hub/server");
        let mut seen = Vec::new();
        for cluster in known {
            seen.push((cluster.to_owned(), looks(s.kubectl().get(cluster, PODS).within(secs(1)).await?)?));
        }
        all_alike(&seen)?;
        kept.line().within(secs(1)).await?.context("the watch that runs has ended")?;
        Ok(())
    });
}

fn all_alike(seen: &[(String, String)]) -> anyhow::Result<()> {
    let (first, rest) = seen.split_first().context("nothing seen")?;
    anyhow::ensure!(first.1.contains("403 Forbidden"), "{}", first.1);
    let other = rest.iter().find(|(_, looks)| *looks != first.1);
    anyhow::ensure!(other.is_none(), "{first:#?}\n{other:#?}");
    Ok(())
}

/// All that an answer shows, but for the id of its request; the time it took is the way's.
fn looks(reply: Reply) -> anyhow::Result<String> {
    let text = reply.text();
    let (_, id) = text.split_once("(request ").context("no request id")?;
    let id = id.get(..16).context("a short request id")?;
    let text = text.replace(id, "ID");
    Ok(format!("{} {:?} {text} {:?} {}", reply.status, reply.headers, reply.trailers, reply.took.as_millis()))
}

#[test]
fn who_is_taken_out_of_the_file_loses_what_runs_at_once_and_nobody_else_notices() {
    let before = both(&everything(), &everything());
    World::new()
        .hub(|hub| hub.callers(&before))
        .cluster("edge-1", |c| c)
        .version_1(Less("the command ends with the session"), Nothing(ANYBODY))
        .tell(async |s: Story| {
            let kubectl = s.kubectl();
            let mut lost = kubectl.get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(1)).await?;
            let mut kept = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
            let mut exec = kubectl.exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;
            exec.write(b"heard").await?;
            echoed(&mut exec, "heard").within(secs(1)).await?;

            s.write_file("hub/server", CALLERS_PATH, &both(&json!([]), &everything()));

            both_end(&mut lost, &mut exec).within(AT_ONCE).await?;
            kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
            add_pod(&s, "edge-1", "late");
            heard(&mut kept, "late").within(secs(1)).await?;
            anyhow::ensure!(s.n_sessions().await? == 1, "the tunnel went down");

            s.write_file("hub/server", CALLERS_PATH, &before);
            s.pass(AT_ONCE).await;
            kubectl.get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            if s.claims_less() {
                return Ok(());
            }
            s.until("no command runs in the pod", || s.api("edge-1").n_execs() == 0).within(secs(1)).await
        });
}

#[test]
fn what_a_caller_may_do_no_longer_ends_and_the_rest_of_it_goes_on() {
    let before = both(&everything(), &everything());
    let world = World::new().hub(|hub| hub.callers(&before)).cluster("edge-1", |c| c).cluster("edge-2", |c| c);
    world.version_1(Same, Nothing(ANYBODY)).tell(async |s: Story| {
        let mut lost = s.kubectl().get("edge-2", &format!("{PODS}?watch=true")).open().within(secs(1)).await?;
        let mut kept = s.kubectl().get("edge-1", &format!("{PODS}?watch=true")).open().within(secs(1)).await?;
        let mut exec = s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(1)).await?;
        let kubectl = s.kubectl();
        let hang = s.apiserver("edge-1").hang();
        let write = s.start(async move { kubectl.post("edge-1", "/echo", "a write").await });
        s.pass(millis(10)).await;

        let reads = json!([{ "clusters": ["edge-1"], "verbs": ["get", "list", "watch"] }]);
        s.write_file("hub/server", CALLERS_PATH, &both(&reads, &everything()));

        both_end(&mut lost, &mut exec).within(AT_ONCE).await?;
        let cut = write.within(AT_ONCE).await?;
        drop(hang);
        anyhow::ensure!(cut.as_ref().is_ok_and(|reply| reply.status == StatusCode::BAD_GATEWAY), "{cut:?}");
        add_pod(&s, "edge-1", "late");
        heard(&mut kept, "late").within(secs(1)).await
    });
}

#[test]
fn a_request_that_waited_for_its_cluster_is_judged_again_before_it_enters() {
    World::new()
        .unprobed()
        .hub(|hub| hub.callers(&both(&everything(), &everything())))
        .cluster("edge-1", |c| c)
        .version_1(Same, Nothing(ANYBODY))
        .tell(async |s: Story| {
            s.crash("edge-1/agent");
            let kubectl = s.kubectl();
            let waits = s.start(async move { kubectl.post("edge-1", "/echo", "a write").await });
            s.pass(secs(1)).await;
            s.write_file("hub/server", CALLERS_PATH, &both(&json!([]), &everything()));
            s.pass(AT_ONCE).await;
            s.restart("edge-1/agent");
            waits.within(secs(6)).await??.expect(StatusCode::FORBIDDEN)?;
            anyhow::ensure!(s.api("edge-1").requests().is_empty(), "it arrived");
            Ok(())
        });
}

#[test]
fn a_callers_file_with_mistakes_changes_nothing() {
    World::new()
        .hub(|hub| hub.callers(&both(&everything(), &everything())))
        .cluster("edge-1", |c| c)
        .version_1(Same, Nothing(ANYBODY))
        .tell(async |s: Story| {
            let mut kept = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
            for broken in ["", "callers:", "callers:\n- name: argocd\n  tokns: []\n", "callers:\n- name: a b\n  tokens: [t]\n"] {
                s.write_file("hub/server", CALLERS_PATH, broken);
                s.pass(AT_ONCE).await;
            }
            s.machine("hub/server").disk().remove(CALLERS_PATH);
            s.pass(secs(5)).await;
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
            add_pod(&s, "edge-1", "late");
            heard(&mut kept, "late").within(secs(1)).await?;
            for told in [
                "--callers /etc/postern/callers.yaml:3: callers[0].tokns: unknown field",
                "--callers /etc/postern/callers.yaml:2: callers[0].name",
            ] {
                anyhow::ensure!(n_told(&s, "hub/server", told) == 1, "{told}");
            }
            let metrics = s.kubectl().request(Method::GET, "/metrics").within(secs(1)).await?.text();
            anyhow::ensure!(metrics.contains("config_files_refused_total{file=\"callers\"} 5\n"), "{metrics}");
            Ok(())
        });
}

#[test]
fn health_and_metrics_are_open_to_who_is_nobody() {
    World::new().hub(|hub| hub.callers("callers: []")).cluster("edge-1", |c| c).version_1(Same, Nothing(FRONT_DOOR)).tell(
        async |s: Story| {
            for path in ["/healthz", "/readyz/self", "/metrics"] {
                s.kubectl().bearing(None).request(Method::GET, path).within(secs(1)).await?.expect(StatusCode::OK)?;
            }
            Ok(())
        },
    );
}

async fn both_end(watch: &mut Answer, exec: &mut Exec) -> anyhow::Result<()> {
    let (watch, exec) = tokio::join!(aborted(watch), ended(exec));
    watch.and(exec)
}

/// The command was cut off: nobody says how it ended.
async fn ended(exec: &mut Exec) -> anyhow::Result<()> {
    while let Ok(Some((channel, _))) = exec.read().await {
        anyhow::ensure!(channel != 3, "the command came to its own end");
    }
    Ok(())
}

async fn echoed(exec: &mut Exec, text: &str) -> anyhow::Result<()> {
    while exec.read().await?.context("the command ended")?.1 != text {}
    Ok(())
}

fn n_told(s: &Story, who: &str, what: &str) -> usize {
    s.trace().lines().into_iter().filter(|line| line.who == who && line.what.contains(what)).count()
}

fn base64url(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}
