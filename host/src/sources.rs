//! Sources: where connections and requests really come from, told by proxies that are trusted to tell.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

/// Bits of an IPv6 address that one site has: a host may take any address of its /64 (RFC 4291 section 2.5.4).
const SITE_BITS: u32 = 64;

/// What limits per address count by: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> SITE_BITS << SITE_BITS).into()),
        }
    }
}

/// Which proxies stand before a listener and tell the addresses of those for whom they speak.
///
/// The default knows nothing: an address may be a whole fleet behind a load balancer, and nothing is counted by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Option<Arc<[IpNet]>>);

impl TrustedProxies {
    /// Whether it was said how addresses are known.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Whether `address` is a proxy's, which is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().flat_map(|networks| networks.iter()).any(|network| network.contains(&address))
    }

    /// What `address` counts as; none when it stands for many or nobody said what addresses are worth.
    pub fn source(&self, address: IpAddr) -> Option<Source> {
        (self.is_known() && !self.trusts(address)).then(|| Source::of(address))
    }

    /// Who sent a request that came from `peer`: for a trusted one, the rightmost address of `X-Forwarded-For` that is not.
    ///
    /// What stands left of it was written by somebody who is not trusted; so was what is no address. The port is 0 then.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trusts(peer.ip()) {
            return peer;
        }
        let mut client = peer.ip();
        let fields = headers.get_all("x-forwarded-for").iter();
        let hops: Vec<_> = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).collect();
        for hop in hops.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) else { break };
            client = address.to_canonical();
        }
        if client == peer.ip() { peer } else { SocketAddr::new(client, 0) }
    }
}

/// An address as proxies write it, some of them with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

/// `direct`, or networks and addresses with commas between them.
impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "direct" {
            return Ok(Self(Some([].into())));
        }
        let network = |one: &str| {
            let address = || one.parse::<IpAddr>().map(IpNet::from);
            let network = one.parse::<IpNet>().or_else(|_| address());
            network.map_err(|_| format!("{one:?} is neither direct nor a network such as 10.0.0.0/8"))
        };
        Ok(Self(Some(text.split(',').map(|one| network(one.trim())).collect::<Result<_, _>>()?)))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn proxies(text: &str) -> TrustedProxies {
        text.parse().expect("good networks")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        let proxies = proxies("10.0.0.0/8,2001:db8::/32");
        for (peer, fields, client) in [
            ("10.1.1.1", &["203.0.113.9"][..], "203.0.113.9"),
            ("10.1.1.1", &["1.2.3.4, 203.0.113.9,10.2.2.2"], "203.0.113.9"),
            ("10.1.1.1", &["1.2.3.4", "203.0.113.9", "10.2.2.2"], "203.0.113.9"),
            ("::ffff:10.1.1.1", &["[2002::1]:443"], "2002::1"),
            ("10.1.1.1", &["203.0.113.9:1234"], "203.0.113.9"),
            // Nobody who is not trusted is believed.
            ("203.0.113.9", &["1.2.3.4"], "203.0.113.9"),
            ("10.1.1.1", &["1.2.3.4, nonsense"], "10.1.1.1"),
            ("10.1.1.1", &["10.3.3.3"], "10.3.3.3"),
            ("10.1.1.1", &[], "10.1.1.1"),
        ] {
            let headers = fields.iter().map(|field| {
                let value = HeaderValue::from_str(field).expect("a value");
                (http::HeaderName::from_static("x-forwarded-for"), value)
            });
            let found = proxies.client(SocketAddr::new(ip(peer), 1), &headers.collect());
            assert_eq!(found.ip(), ip(client), "{peer} {fields:?}");
        }
    }

    #[test]
    fn a_site_counts_as_one_source_and_a_proxy_as_none() {
        let proxies = proxies("10.0.0.0/8");
        assert_eq!(proxies.source(ip("2001:db8::1")), proxies.source(ip("2001:db8::ffff:0:0:2")));
        assert_ne!(proxies.source(ip("2001:db8::1")), proxies.source(ip("2001:db8:0:1::1")));
        assert_eq!(proxies.source(ip("192.0.2.1")), proxies.source(ip("::ffff:192.0.2.1")));
        assert_ne!(proxies.source(ip("192.0.2.1")), proxies.source(ip("192.0.2.2")));
        assert_eq!(proxies.source(ip("10.1.2.3")), None);
        assert_eq!(TrustedProxies::default().source(ip("192.0.2.1")), None);
    }

    #[test]
    fn direct_means_that_addresses_are_real() {
        let direct = proxies("direct");
        assert!(direct.is_known() && direct.source(ip("10.1.2.3")).is_some());
        assert!(!TrustedProxies::default().is_known());
        for wrong in ["", "none", "10.0.0.0/33", "10.0.0.0/8,", "proxy.example"] {
            wrong.parse::<TrustedProxies>().expect_err(wrong);
        }
    }
}
