//! No credential where it does not belong: each is marked, and the fabric saw every mark that crossed.
//!
//! A service account token goes from its cluster's agents, that of the hub from its server, to its API server. A tunnel token goes
//! from its cluster's agents towards the hub. What callers present goes to the hub's server and no further, what a proxy wants to
//! know to the proxy. None of them stands in a log.

use crate::fabric::{Crossing, MARK, place_of};
use crate::story::Story;

/// Where agents and callers arrive.
const HUB: &str = "hub";

/// What carries a caller's credential.
const CALLER: &str = "caller";

/// What carries an agent's credential for the hub.
const TUNNEL: &str = "tunnel";

/// What carries an agent's credential for its API server.
const SERVICE_ACCOUNT: &str = "service-account";

/// What an agent shows the proxy on its way out.
const PROXY: &str = "proxy";

/// What a caller presents to the hub.
pub(crate) fn callers_token(caller: &str) -> String {
    marked(CALLER, caller)
}

/// What agents of a cluster present to the hub.
pub(crate) fn tunnel_token(cluster: &str) -> String {
    marked(TUNNEL, cluster)
}

/// What agents of a cluster present to its API server.
pub(crate) fn service_account_token(cluster: &str) -> String {
    marked(SERVICE_ACCOUNT, cluster)
}

/// What agents of a cluster show the proxy on their way out.
pub(crate) fn proxy_password(cluster: &str) -> String {
    marked(PROXY, cluster)
}

fn marked(kind: &str, owner: &str) -> String {
    format!("{}{kind}~{owner}~", String::from_utf8_lossy(MARK))
}

pub(super) fn check(story: &Story) -> anyhow::Result<()> {
    let stage = story.stage();
    let is_cluster = |place: &str| stage.clusters.contains_key(place);
    for crossing in stage.fabric.crossings() {
        let Crossing { from, to, kind, owner } = &crossing;
        anyhow::ensure!(may_cross(&crossing, is_cluster), "the {kind} credential of {owner} went from {from} to {to}");
    }
    let mark = String::from_utf8_lossy(MARK);
    match stage.trace.lines().into_iter().find(|line| line.what.contains(&*mark)) {
        Some(line) => anyhow::bail!("a credential stands in a log: {line}"),
        None => Ok(()),
    }
}

fn may_cross(Crossing { from, to, kind, owner }: &Crossing, is_cluster: impl Fn(&str) -> bool) -> bool {
    let (from_place, to_place) = (place_of(from), place_of(to));
    match kind.as_str() {
        SERVICE_ACCOUNT => {
            // The hub's own is its server's.
            let is_its_program = from.contains("/agent") || from == "hub/server";
            from_place == owner && is_its_program && to.starts_with(&format!("{owner}/api"))
        }
        // Middleboxes on the way have it too.
        TUNNEL => {
            let towards_the_hub = from_place == owner || !is_cluster(from_place) && !is_cluster(to_place);
            towards_the_hub && (to_place == owner || !is_cluster(to_place)) && !to.contains("/api") && !is_caller(to)
        }
        PROXY => from_place == owner && from.contains("/agent") && *to == format!("{owner}/box"),
        CALLER => from_place == HUB && to_place == HUB && !is_caller(to),
        _ => false,
    }
}

fn is_caller(machine: &str) -> bool {
    machine == "hub/argocd" || machine == "hub/kubectl"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_credential_has_its_way_and_no_other() {
        let may = |kind: &str, from: &str, to: &str| {
            let crossing = Crossing { from: from.into(), to: to.into(), kind: kind.into(), owner: "edge-1".into() };
            may_cross(&crossing, |place| place.starts_with("edge"))
        };
        assert!(may(SERVICE_ACCOUNT, "edge-1/agent-2", "edge-1/api"));
        assert!(may(SERVICE_ACCOUNT, "edge-1/agent", "edge-1/api-2"));
        assert!(may(TUNNEL, "edge-1/agent", "hub/server"));
        assert!(may(TUNNEL, "edge-1/agent", "edge-1/proxy") && may(TUNNEL, "edge-1/proxy", "hub/balancer"));
        assert!(may(TUNNEL, "hub/balancer", "hub/server"));
        assert!(may(CALLER, "hub/kubectl", "hub/server"));
        assert!(may(PROXY, "edge-1/agent-2", "edge-1/box"));
        let forbidden = [
            (SERVICE_ACCOUNT, "edge-1/agent", "hub/server"),
            (SERVICE_ACCOUNT, "edge-2/agent", "edge-2/api"),
            (SERVICE_ACCOUNT, "edge-1/api", "edge-1/agent"),
            (SERVICE_ACCOUNT, "hub/server", "hub/kubectl"),
            (TUNNEL, "hub/server", "edge-1/agent"),
            (TUNNEL, "hub/server", "hub/kubectl"),
            (TUNNEL, "edge-1/agent", "edge-1/api"),
            (TUNNEL, "edge-2/agent", "hub/server"),
            (PROXY, "edge-1/box", "hub/server"),
            (PROXY, "edge-1/agent", "hub/server"),
            (PROXY, "edge-1/agent", "edge-1/api"),
            (PROXY, "edge-2/agent", "edge-2/box"),
            (CALLER, "hub/server", "edge-1/agent"),
            (CALLER, "hub/server", "hub/argocd"),
            (CALLER, "edge-1/agent", "edge-1/api"),
            ("new", "edge-1/agent", "hub/server"),
        ];
        for (kind, from, to) in forbidden {
            assert!(!may(kind, from, to), "{kind} from {from} to {to}");
        }
    }
}
