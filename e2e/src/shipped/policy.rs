//! What a NetworkPolicy allows, by the rules of `networking.k8s.io/v1`, for clusters whose network does not enforce any.
//!
//! A peer outside of the cluster, and whatever uses the address of a host, has no labels: only `ipBlock` and a rule without peers
//! speak of it. API servers are such peers.

use std::net::IpAddr;

use serde_json::Value;

/// Whether `policy` lets pods that it selects open a TCP connection to an address that is no pod's.
pub fn allows(policy: &Value, to: IpAddr, port: u16) -> bool {
    let spec = &policy["spec"];
    // Without the field, egress is meant only if there are rules for it.
    let speaks_of_egress = match spec["policyTypes"].as_array() {
        Some(types) => types.iter().any(|one| one == "Egress"),
        None => spec["egress"].is_array(),
    };
    if !speaks_of_egress {
        return true;
    }
    let rules = spec["egress"].as_array().map(Vec::as_slice).unwrap_or_default();
    rules.iter().any(|rule| is_among(&rule["to"], |peer| names(peer, to)) && is_among(&rule["ports"], |one| has(one, port)))
}

/// Whether one of a list matches; an absent or empty list matches everything.
fn is_among(list: &Value, matches: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_none_or(|list| list.is_empty() || list.iter().any(matches))
}

fn names(peer: &Value, addr: IpAddr) -> bool {
    let block = &peer["ipBlock"];
    let Some(cidr) = block["cidr"].as_str() else { return false };
    let excepted = block["except"].as_array().into_iter().flatten().filter_map(Value::as_str);
    contains(cidr, addr) && !excepted.into_iter().any(|cidr| contains(cidr, addr))
}

fn has(ports: &Value, port: u16) -> bool {
    if ports["protocol"].as_str().is_some_and(|protocol| protocol != "TCP") {
        return false;
    }
    let Some(first) = ports["port"].as_u64() else {
        // Without a port all are meant; a name is one of a pod's, and hosts have none.
        return ports["port"].is_null();
    };
    let last = ports["endPort"].as_u64().unwrap_or(first);
    (first..=last).contains(&u64::from(port))
}

fn contains(cidr: &str, addr: IpAddr) -> bool {
    let Some((base, len)) = cidr.split_once('/') else { return false };
    let (Ok(base), Ok(len)) = (base.parse::<IpAddr>(), len.parse::<u32>()) else { return false };
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => (u128::from(addr.to_bits()), 32),
        IpAddr::V6(addr) => (addr.to_bits(), 128),
    };
    let ((base, width), (addr, same)) = (bits(base), bits(addr));
    width == same && len <= width && base.checked_shr(width - len).unwrap_or(0) == addr.checked_shr(width - len).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn egress(rules: Value) -> Value {
        json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": rules}})
    }

    fn allowed(policy: &Value, to: &str, port: u16) -> bool {
        allows(policy, to.parse().expect("an address"), port)
    }

    #[test]
    fn without_a_rule_nothing_is_allowed_and_without_a_word_everything() {
        assert!(!allowed(&egress(json!([])), "10.0.0.1", 443));
        assert!(!allowed(&egress(Value::Null), "10.0.0.1", 443));
        assert!(allowed(&egress(json!([{}])), "10.0.0.1", 443));
        assert!(allowed(&json!({"spec": {"policyTypes": ["Ingress"]}}), "10.0.0.1", 443));
    }

    #[test]
    fn a_rule_needs_a_peer_and_a_port_that_match() {
        let block = json!([{"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.2.0/24"]}}]);
        let policy = egress(json!([{"to": block, "ports": [{"port": 443}, {"port": 6443, "endPort": 6445}]}]));
        assert!(allowed(&policy, "10.1.0.1", 443) && allowed(&policy, "10.1.0.1", 6444));
        assert!(!allowed(&policy, "10.1.2.1", 443), "an exception");
        assert!(!allowed(&policy, "10.2.0.1", 443) && !allowed(&policy, "::1", 443), "another address");
        assert!(!allowed(&policy, "10.1.0.1", 80) && !allowed(&policy, "10.1.0.1", 6446), "another port");
    }

    #[test]
    fn hosts_have_no_labels_no_named_ports_and_speak_tcp() {
        let pods = egress(json!([{"to": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}]));
        assert!(!allowed(&pods, "10.0.0.1", 443));
        let named = egress(json!([{"ports": [{"port": "https"}, {"protocol": "UDP", "port": 443}]}]));
        assert!(!allowed(&named, "10.0.0.1", 443));
        let everywhere = egress(json!([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]}]));
        assert!(allowed(&everywhere, "10.0.0.1", 443) && allowed(&everywhere, "fd00::1", 443));
    }
}
