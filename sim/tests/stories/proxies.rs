//! Networks with one way out, an HTTP proxy: with a password, with TLS, with rules, and with bad days.

use agent::config::{HubProxy, ProxyCredentials, Way};
use http::StatusCode;
use sim::middlebox::Middlebox;
use sim::pki::NEW;
use sim::promise::Promise::Nothing;
use sim::story::{Story, Within, minutes, secs};
use sim::world::{Cluster, World, proxy_password};

use crate::certificates::NO_TLS;
use crate::claims::heard_of;

const PASSWORD_FILE: &str = "/etc/postern/proxy";
const PROXY_CA: &str = "/etc/postern/proxy-ca.crt";

/// Why version 1 peers promise nothing.
const NO_PROXY: &str = "it knows no proxy";

/// How long an agent that was refused may wait before it dials again, and a handshake.
const REDIALLED: std::time::Duration = secs(62);

fn proxy(text: &str) -> HubProxy {
    text.parse().expect("a proxy")
}

/// Behind `proxy`, which takes CONNECTs of `ed` with the password of `edge-1` only, and is asked as `asked` says.
fn behind(cluster: Cluster, proxy: Middlebox, asked: HubProxy) -> Cluster {
    cluster.behind(proxy.with_basic_auth("ed", &proxy_password("edge-1"))).with(|config| config.way = Way::Proxy(asked))
}

fn with_file(mut proxy: HubProxy) -> HubProxy {
    proxy.credentials = ProxyCredentials::File(PASSWORD_FILE.to_owned());
    proxy
}

#[test]
fn an_agent_reaches_its_hub_through_a_proxy_with_a_password_and_a_ca_of_its_own() {
    let mut asked = with_file(proxy("https://proxy:3128"));
    asked.ca_cert = Some(PROXY_CA.to_owned());
    let world = World::new().tls().cluster("edge-1", |c| behind(c, Middlebox::connect_proxy().with_tls(), asked));
    world.cold().version_1(Nothing(NO_TLS), Nothing(NO_TLS)).tell(async |s: Story| {
        s.crash("edge-1/agent");
        s.write_file("edge-1/agent", PASSWORD_FILE, &format!("ed:{}\n", proxy_password("edge-1")));
        s.write_file("edge-1/agent", PROXY_CA, &NEW.ca);
        s.restart("edge-1/agent");
        s.until_reachable("edge-1").within(secs(5)).await?;
        heard_of(&s, "edge-1/box", "is asked for hub:8443")?;
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        Ok(())
    });
}

#[test]
fn a_password_that_is_corrected_in_its_file_connects_without_a_restart() {
    let world = World::new().cluster("edge-1", |c| behind(c, Middlebox::connect_proxy(), with_file(proxy("proxy:3128"))));
    world.cold().version_1(Nothing(NO_PROXY), Nothing(NO_PROXY)).tell(async |s: Story| {
        s.crash("edge-1/agent");
        s.write_file("edge-1/agent", PASSWORD_FILE, &format!("ed:{}wrong", proxy_password("edge-1")));
        s.restart("edge-1/agent");
        s.pass(minutes(10)).await;
        anyhow::ensure!(s.n_sessions().await? == 0, "the proxy lets anybody through");
        heard_of(
            &s,
            "edge-1/agent",
            "the proxy http://proxy:3128 answered 407 Proxy Authentication Required: it wants another user",
        )?;
        // An answer is not asked for again at once: half a minute on average.
        let n_dials = s.trace().lines().iter().filter(|line| line.what.contains("answered 407")).count();
        anyhow::ensure!((10..60).contains(&n_dials), "{n_dials} dials in ten minutes");

        s.write_file("edge-1/agent", PASSWORD_FILE, &format!("ed:{}", proxy_password("edge-1")));
        s.until_reachable("edge-1").within(REDIALLED).await
    });
}

#[test]
fn a_hub_that_is_exempted_is_dialled_past_the_proxy() {
    let way = Way::Exempted { from: proxy("proxy:3128"), by: "NO_PROXY has hub".to_owned() };
    let world = World::new().cluster("edge-1", |c| c.behind(Middlebox::connect_proxy()).with(|config| config.way = way));
    world.version_1(Nothing(NO_PROXY), Nothing(NO_PROXY)).tell(async |s: Story| {
        s.kubectl().get("edge-1", "/version").within(secs(1)).await?.expect(StatusCode::OK)?;
        anyhow::ensure!(heard_of(&s, "edge-1/box", "is asked for").is_err(), "the proxy was asked");
        heard_of(&s, "edge-1/agent", "the hub is dialled past the proxy http://proxy:3128: NO_PROXY has hub")
    });
}

#[test]
fn a_proxy_that_dies_and_returns_is_told_from_a_hub_that_does() {
    let asked = proxy(&format!("http://ed:{}@proxy:3128", proxy_password("edge-1")));
    let world = World::new().cluster("edge-1", |c| behind(c, Middlebox::connect_proxy(), asked));
    world.version_1(Nothing(NO_PROXY), Nothing(NO_PROXY)).tell(async |s: Story| {
        s.crash("edge-1/box");
        s.pass(minutes(2)).await;
        heard_of(&s, "edge-1/agent", "failed to reach the proxy http://proxy:3128: ")?;
        s.restart("edge-1/box");
        // Nobody answered, so it was asked again soon.
        s.until_reachable("edge-1").within(secs(6)).await?;

        s.crash("hub/server");
        s.pass(minutes(2)).await;
        heard_of(&s, "edge-1/agent", "the proxy http://proxy:3128 answered 502 Bad Gateway: the proxy cannot reach the hub")?;
        s.restart("hub/server");
        s.until_reachable("edge-1").within(secs(6)).await?;

        let dark = s.swallow("edge-1/box");
        s.reset("edge-1", "edge-1");
        s.pass(minutes(2)).await;
        heard_of(&s, "edge-1/agent", "the proxy http://proxy:3128 did not answer within 20 s")?;
        drop(dark);
        s.until_reachable("edge-1").within(secs(20 + 6)).await?;

        let forbidden = s.forbid_connects("edge-1/box");
        s.reset("edge-1", "edge-1");
        s.pass(minutes(2)).await;
        heard_of(
            &s,
            "edge-1/agent",
            "answered 403 Forbidden (ERR_ACCESS_DENIED 0): its rules do not allow a CONNECT to the hub's name and port",
        )?;
        drop(forbidden);
        s.until_reachable("edge-1").within(REDIALLED).await
    });
}

#[test]
fn what_is_no_proxy_is_called_so() {
    // The front of the hub itself: it speaks HTTP, and knows no CONNECT.
    let world = World::new().cluster("edge-1", |c| c.with(|config| config.way = Way::Proxy(proxy("http://hub:8443"))));
    world.cold().version_1(Nothing(NO_PROXY), Nothing(NO_PROXY)).tell(async |s: Story| {
        s.pass(minutes(2)).await;
        heard_of(&s, "edge-1/agent", "the proxy http://hub:8443 answered 404 Not Found")
    });
}
