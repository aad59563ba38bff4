//! Who believes whom: what TLS lets through, what it refuses in which words, and what the time of day has to do with it.

use http::StatusCode;
use sim::pki::{ISSUED, NEW, SHORT};
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, minutes, secs};
use sim::world::World;

use crate::claims::heard_of;

/// Why version 1 peers promise nothing.
pub(crate) const NO_TLS: &str = "as recorded it is without TLS";

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A name that leads to the hub and is not in its certificate.
const ALIAS: &str = "hub.example";

/// Where an agent serves health.
const HEALTH: u16 = 8081;

/// How long an agent that was refused may wait before it dials again, and a handshake.
const REDIALLED: std::time::Duration = secs(62);

const DAY: i64 = 24 * 3600;

#[test]
fn all_work_passes_through_mutual_tls() {
    World::new().tls().cluster("edge-1", |c| c).version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.kubectl().get("edge-1", "/version").within(secs(2)).await?.expect(StatusCode::OK)?;
        let (n_pods, _) = s.argocd().list("edge-1", PODS).within(secs(2)).await?;
        anyhow::ensure!(n_pods == 3);
        let bulk = s.argocd().get("edge-1", "/bulk?bytes=1000000").open().within(secs(2)).await?;
        anyhow::ensure!(bulk.read_out(None).within(secs(10)).await?.n_bytes == 1_000_000);
        drop(s.kubectl().exec("edge-1", "web-0", &["cat"]).within(secs(2)).await?);
        Ok(())
    });
}

#[test]
fn an_agent_without_a_good_certificate_is_refused_and_says_so() {
    let world = World::new().tls().cluster("edge-1", |c| c.with(|config| config.client_identity = None));
    world.cluster("edge-2", |c| c).cold().version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.certify("edge-2/agent", &NEW.agent);
        s.pass(secs(20)).await;
        anyhow::ensure!(s.n_sessions().await? == 0, "a stranger has a session");
        heard_of(&s, "edge-1/agent", "CertificateRequired (the hub wants a client certificate of a CA that it knows")?;
        heard_of(&s, "edge-2/agent", "(the hub wants a client certificate of a CA that it knows")?;
        heard_of(&s, "hub/server", "an agent's connection was not taken")
    });
}

#[test]
fn an_agent_that_does_not_know_the_hubs_ca_goes_on_trying_and_is_alive_and_not_ready() {
    let world =
        World::new().tls().cluster("edge-1", |c| c.with(|config| config.health_addr = Some(([0, 0, 0, 0], HEALTH).into())));
    world.cold().version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.trust("edge-1/agent", &[&NEW]);
        s.pass(minutes(30)).await;
        anyhow::ensure!(s.probe("edge-1/agent", HEALTH, "/healthz").within(secs(1)).await? == StatusCode::OK);
        anyhow::ensure!(s.probe("edge-1/agent", HEALTH, "/readyz").within(secs(1)).await? == StatusCode::SERVICE_UNAVAILABLE);
        heard_of(&s, "edge-1/agent", "(is --server-ca-cert the CA of the hub's certificate")?;
        let dials = dials(&s);
        // Half a minute on average, once the waits have grown.
        anyhow::ensure!((40..120).contains(&dials.len()), "{} dials", dials.len());
        let waits: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
        anyhow::ensure!(waits.iter().all(|wait| *wait < REDIALLED), "{waits:?}");
        let n_short = waits.iter().filter(|wait| **wait < secs(20)).count();
        let n_long = waits.iter().filter(|wait| **wait > secs(40)).count();
        anyhow::ensure!(n_short > 3 && n_long > 3, "waits without jitter: {waits:?}");

        s.trust("edge-1/agent", &[&ISSUED]);
        s.pass(REDIALLED).await;
        anyhow::ensure!(s.probe("edge-1/agent", HEALTH, "/readyz").within(secs(1)).await? == StatusCode::OK);
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn an_agent_that_dials_a_name_which_the_hubs_certificate_lacks_says_so() {
    let world = World::new().tls().cluster("edge-1", |c| c.with(|config| config.server.host = ALIAS.to_owned()));
    world.cold().version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        let _alias = s.move_name("edge-1", ALIAS, &["hub/server"]);
        s.pass(REDIALLED).await;
        anyhow::ensure!(s.n_sessions().await? == 0, "a certificate of another name was believed");
        heard_of(&s, "edge-1/agent", "(the host of --server is not among the names of the hub's certificate)")
    });
}

#[test]
fn an_expired_certificate_is_refused_at_the_next_handshake_and_a_renewed_one_is_taken() {
    World::new().tls().cluster("edge-1", |c| c).version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.trust("edge-1/agent", &[&ISSUED, &SHORT]);
        s.certify("hub/server", &SHORT.hub);
        s.pass(secs(2)).await;
        s.reset("hub", "edge-1");
        s.pass(secs(10)).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;

        for machine in ["hub/server", "edge-1/agent", "edge-1/api"] {
            s.skew(machine, 400 * DAY);
        }
        s.pass(minutes(5)).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        s.reset("hub", "edge-1");
        s.pass(minutes(2)).await;
        anyhow::ensure!(s.n_sessions().await? == 0, "an expired certificate was believed");
        heard_of(&s, "edge-1/agent", "certificate expired")?;

        s.certify("hub/server", &ISSUED.hub);
        s.pass(REDIALLED).await;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_wrong_clock_harms_no_session() {
    World::new().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let mut watch = s.argocd().watch("edge-1", PODS, "").within(secs(1)).await?;
        for seconds in [40, -80, 400 * DAY, -800 * DAY, 400 * DAY + 40] {
            s.skew("hub/server", seconds);
            s.pass(minutes(2)).await;
            s.skew("edge-1/agent", -seconds);
            s.pass(minutes(2)).await;
            s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        }
        let downs = s.trace().lines().into_iter().filter(|line| line.what.contains("session down")).count();
        anyhow::ensure!(downs == 0, "{downs} sessions went down");
        anyhow::ensure!(watch.line().within(secs(1)).await?.is_some(), "the watch ended");
        anyhow::ensure!(s.api("edge-1").n_watches() == 1);
        Ok(())
    });
}

/// When the agent's dials failed.
fn dials(s: &Story) -> Vec<std::time::Duration> {
    s.trace().lines().into_iter().filter(|line| line.what.contains("failed to connect to the hub")).map(|line| line.at).collect()
}
