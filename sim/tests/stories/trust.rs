//! What must never cross: credentials, and the right to be somebody else.

use http::StatusCode;
use sim::promise::Promise::{Nothing, Same};
use sim::story::{Story, Within, secs};
use sim::world::{World, service_account_token, tunnel_token};

const CALLERS_SECRET: &str = "a-secret-of-the-caller";

#[test]
fn no_credential_crosses() {
    World::new().cluster("edge-1", |c| c).cluster("edge-2", |c| c).cold().version_1(Same, Nothing("it passes cookies on")).tell(
        async |s: Story| {
            for cluster in ["edge-1", "edge-2"] {
                s.fabric().tap("hub", cluster);
            }
            s.pass(secs(10)).await;
            for cluster in ["edge-1", "edge-2"] {
                let call = s.kubectl().get(cluster, "/version").header("authorization", &format!("Bearer {CALLERS_SECRET}"));
                let call = call.header("cookie", &format!("session={CALLERS_SECRET}")).header("x-remote-user", CALLERS_SECRET);
                call.within(secs(2)).await?.expect(StatusCode::OK)?;
                let requests = s.api(cluster).requests();
                let arrived = &requests.last().expect("the request just made").headers;
                let authorization = format!("Bearer {}", service_account_token(cluster));
                anyhow::ensure!(arrived.get("authorization").is_some_and(|value| value == authorization.as_str()), "{arrived:?}");
                anyhow::ensure!(!format!("{arrived:?}").contains(CALLERS_SECRET), "{arrived:?}");
            }
            let secrets = ["edge-1", "edge-2"].map(|cluster| [tunnel_token(cluster), service_account_token(cluster)]).concat();
            for cluster in ["edge-1", "edge-2"] {
                let sent = s.fabric().tapped("hub", cluster);
                let heard = sent.iter().any(|bytes| contains(bytes, b"/version"));
                anyhow::ensure!(heard, "the tap heard nothing of the request");
                for secret in secrets.iter().map(String::as_str).chain([CALLERS_SECRET]) {
                    anyhow::ensure!(!sent.iter().any(|bytes| contains(bytes, secret.as_bytes())), "{secret} went to {cluster}");
                }
            }
            let transcript = s.trace().render(usize::MAX);
            let leaked = secrets.iter().find(|secret| transcript.contains(*secret));
            anyhow::ensure!(leaked.is_none(), "{leaked:?} stands in a log");
            Ok(())
        },
    );
}

#[test]
fn a_request_to_be_somebody_else_is_refused_before_it_crosses() {
    World::new().unprobed().cluster("edge-1", |c| c).version_1(Same, Same).tell(async |s: Story| {
        let call = s.kubectl().get("edge-1", "/version").header("impersonate-user", "admin");
        call.within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
        anyhow::ensure!(s.api("edge-1").requests().is_empty(), "it reached the API server");
        Ok(())
    });
}

#[test]
fn a_page_of_another_site_gets_nothing_through_a_browser() {
    const POD_EXEC: &str = "/api/v1/namespaces/default/pods/web-0/exec?command=cat&stdin=true";
    World::new().unprobed().cluster("edge-1", |c| c).version_1(Same, Nothing("it asks nobody where they come from")).tell(
        async |s: Story| {
            let page = |call: sim::caller::Call, origin: &str| call.header("origin", origin);
            for origin in ["http://evil.example", "null"] {
                let posted = s.kubectl().post("edge-1", "/api/v1/namespaces/default/pods", "{}");
                page(posted, origin).within(secs(1)).await?.expect(StatusCode::FORBIDDEN)?;
                let exec = page(s.kubectl().get("edge-1", POD_EXEC), origin).header("sec-websocket-version", "13");
                let exec = exec.header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
                // What a page may choose, and nobody looks at here.
                let exec = exec.header("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YQ, v5.channel.k8s.io");
                anyhow::ensure!(exec.upgrade("websocket").within(secs(1)).await.is_err(), "a page of {origin} has an exec");
            }
            anyhow::ensure!(s.api("edge-1").requests().is_empty(), "it reached the API server");
            // As clients do that are no browsers.
            let own = page(s.kubectl().get("edge-1", "/version"), "http://hub");
            own.header("host", "hub").within(secs(1)).await?.expect(StatusCode::OK)?;
            Ok(())
        },
    );
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
