//! NO_PROXY: which hubs are dialled past the proxy, as Go's programs read it, which are most of a cluster's.

use std::net::IpAddr;

use ipnet::IpNet;

/// The hosts of a `NO_PROXY` list (the rules of Go's `golang.org/x/net/http/httpproxy`, where curl's differ).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Exemptions(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    text: String,
    hosts: Hosts,
    /// Every port without one.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    Network(IpNet),
    /// The domain itself and what is under it.
    Domain(String),
    /// What is under it (`.example`, `*.example`).
    Under(String),
}

impl Exemptions {
    /// A list with commas. What cannot be a host is passed over, as everywhere: the list is shared by many programs.
    pub(crate) fn parse(list: &str) -> Self {
        Self(list.split([',', ' ']).filter_map(|text| Rule::parse(text.trim())).collect())
    }

    /// The rule by which a hub is dialled past the proxy. Names are compared, never resolved.
    pub(crate) fn rule_for(&self, host: &str, port: u16) -> Option<&str> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().find(|rule| rule.means(&host, port)).map(|rule| rule.text.as_str())
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let rule = |hosts, port| Some(Self { text: text.to_owned(), hosts, port });
        if lower == "*" {
            return rule(Hosts::All, None);
        }
        if let Ok(network) = lower.parse() {
            return rule(Hosts::Network(network), None);
        }
        if let Ok(ip) = lower.trim_matches(['[', ']']).parse::<IpAddr>() {
            return rule(Hosts::Network(ip.into()), None);
        }
        let (name, port) = match lower.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (lower.as_str(), None),
        };
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return rule(Hosts::Network(ip.into()), port);
        }
        let name = name.trim_end_matches('.');
        match name.strip_prefix('*').unwrap_or(name).strip_prefix('.') {
            Some("") => None,
            Some(under) => rule(Hosts::Under(under.to_owned()), port),
            None if name.is_empty() => None,
            None => rule(Hosts::Domain(name.to_owned()), port),
        }
    }

    fn means(&self, host: &str, port: u16) -> bool {
        let is_under = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1);
        let is_host = match &self.hosts {
            Hosts::All => true,
            Hosts::Network(network) => host.parse::<IpAddr>().is_ok_and(|ip| network.contains(&ip)),
            Hosts::Domain(domain) => host == domain || is_under(domain),
            Hosts::Under(domain) => is_under(domain),
        };
        is_host && self.port.is_none_or(|only| only == port)
    }
}

/// Whether this is the machine itself, which Go never asks a proxy of the environment for.
pub(crate) fn is_own_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Go's `TestProxyFromEnvironment` and `UseProxy` tests that speak of NO_PROXY, and a few of ours.
    #[test]
    fn a_list_means_what_it_means_to_go() {
        for (list, host, port, expected) in [
            ("", "hub.example", 443, false),
            ("*", "hub.example", 443, true),
            ("example", "example", 443, true),
            ("example", "hub.example", 443, true),
            ("example", "counterexample", 443, false),
            (".example", "hub.example", 443, true),
            (".example", "example", 443, false),
            ("*.example", "hub.example", 443, true),
            ("*.example", "example", 443, false),
            ("HUB.Example", "hub.eXample.", 443, true),
            ("hub.example:443", "hub.example", 443, true),
            ("hub.example:8443", "hub.example", 443, false),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "11.1.2.3", 443, false),
            ("10.0.0.0/8", "ten.example", 443, false),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3:80", "10.1.2.3", 443, false),
            ("::1", "::1", 443, true),
            ("[fd00::1]:443", "fd00::1", 443, true),
            ("fd00::/8", "fd12::1", 443, true),
            ("a, hub.example ,b", "hub.example", 443, true),
            ("hub.example:https,.,:,*.", "hub.example", 443, false),
            ("169.254.169.254, foo.bar", "bar", 443, false),
        ] {
            assert_eq!(Exemptions::parse(list).rule_for(host, port).is_some(), expected, "{list:?} for {host}:{port}");
        }
        assert_eq!(Exemptions::parse("a,.Example").rule_for("hub.example", 443), Some(".Example"));
    }
}
