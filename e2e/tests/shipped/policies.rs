//! NetworkPolicies as rendered, judged by their rules against the addresses that real Endpoints have.
//!
//! Not whether a network enforces them: kind's own does not.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::{AGENT, Shipped, allows};
use serde_json::Value;

use crate::Stage;

/// Ports of hosts that no agent has any business with: SSH, etcd, the kubelet.
const ELSEWHERE: [u16; 3] = [22, 2379, 10250];

/// Runs all of it.
pub(crate) fn run(stage: &mut Stage) {
    stage.step("the agent's policy lets it reach the API server where it really is, and the hub, and nothing beside", agent);
}

fn agent(shipped: &mut Shipped) -> Result<()> {
    let policy = shipped.edge.admin.json(&["get", "networkpolicy", AGENT])?;
    let endpoints = shipped.edge.admin.json(&["get", "endpoints", "kubernetes", "--namespace", "default"])?;
    let mut n_endpoints = 0;
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for (addr, port) in pairs(subset)? {
            n_endpoints += 1;
            ensure!(allows(&policy, addr, port), "the API server at {addr}:{port} is not allowed by {policy}");
            for elsewhere in ELSEWHERE {
                ensure!(!allows(&policy, addr, elsewhere), "{addr}:{elsewhere} is allowed by {policy}");
            }
        }
    }
    ensure!(n_endpoints > 0, "the Service kubernetes has no endpoints: {endpoints}");
    let hub: IpAddr = shipped.hub_addr().parse().context("the hub's address")?;
    let port = shipped.node_port()?;
    ensure!(allows(&policy, hub, port), "the hub at {hub}:{port} is not allowed by {policy}");
    Ok(())
}

fn pairs(subset: &Value) -> Result<Vec<(IpAddr, u16)>> {
    let mut pairs = Vec::new();
    for address in subset["addresses"].as_array().into_iter().flatten() {
        let addr: IpAddr = address["ip"].as_str().context("an endpoint without an address")?.parse()?;
        for port in subset["ports"].as_array().into_iter().flatten() {
            pairs.push((addr, port["port"].as_u64().context("an endpoint without a port")?.try_into()?));
        }
    }
    Ok(pairs)
}
