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
    /// The source that an address is of: itself, or its IPv6 site.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> SITE_BITS << SITE_BITS).into()),
        }
    }
}

/// How a proxy tells for whom it speaks. Each has one way: by any other it would pass on what a stranger made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A PROXY header begins each of its connections.
    ProxyHeader,
    /// `X-Forwarded-For` stands in each of its requests.
    ForwardedFor,
}

/// Which proxies stand before a listener and tell the addresses of those for whom they speak, and how.
///
/// The default knows nothing: an address may be a whole fleet behind a load balancer, and nothing is counted by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Option<Arc<[(Way, IpNet)]>>);

impl TrustedProxies {
    /// Whether it was said how addresses are known.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Whether `address` is that of a proxy that begins each connection with a PROXY header.
    pub fn sends_header(&self, address: IpAddr) -> bool {
        self.way(address) == Some(Way::ProxyHeader)
    }

    fn way(&self, address: IpAddr) -> Option<Way> {
        let address = address.to_canonical();
        self.networks().find(|(_, network)| network.contains(&address)).map(|(way, _)| way)
    }

    fn networks(&self) -> impl Iterator<Item = (Way, IpNet)> {
        self.0.iter().flat_map(|networks| networks.iter().copied())
    }

    /// What `address` counts as; none when it stands for many or nobody said what addresses are worth.
    pub fn source(&self, address: IpAddr) -> Option<Source> {
        (self.is_known() && self.way(address).is_none()).then(|| Source::of(address))
    }

    /// Who sent a request that came from `peer`: if that writes `X-Forwarded-For`, the rightmost address in it that does not.
    ///
    /// What stands left of it was written by somebody who is not believed; so was what is no address. The port is 0 then.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let forwards = |address| self.way(address) == Some(Way::ForwardedFor);
        if !forwards(peer.ip()) {
            return peer;
        }
        let mut client = peer.ip();
        let fields = headers.get_all("x-forwarded-for").iter();
        let hops: Vec<_> = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).collect();
        for hop in hops.into_iter().rev() {
            if !forwards(client) {
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

/// `direct`, or networks and addresses with commas between them, each after `proxy:` or `xff:`. None may be both.
impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "direct" {
            return Ok(Self(Some([].into())));
        }
        let networks: Vec<_> = text.split(',').map(|one| network(one.trim())).collect::<Result<_, _>>()?;
        for (n, (way, network)) in networks.iter().enumerate() {
            let other = networks[..n].iter().find(|(before, other)| before != way && overlap(other, network));
            if let Some((_, other)) = other {
                return Err(format!("{other} and {network} overlap, and a proxy has one way only: proxy: or xff:"));
            }
        }
        Ok(Self(Some(networks.into())))
    }
}

fn network(text: &str) -> Result<(Way, IpNet), String> {
    let read = |network: &str| network.parse::<IpNet>().or_else(|_| network.parse::<IpAddr>().map(IpNet::from)).ok();
    let (way, network) = match text.split_once(':') {
        Some(("proxy", network)) => (Some(Way::ProxyHeader), read(network)),
        Some(("xff", network)) => (Some(Way::ForwardedFor), read(network)),
        Some(_) | None => (None, None),
    };
    way.zip(network).ok_or_else(|| {
        format!(
            "{text:?} is neither direct nor a network with the way in which its proxies tell addresses, such as \
             proxy:10.0.0.0/8 (each connection begins with a PROXY header) or xff:10.0.0.0/8 (X-Forwarded-For)"
        )
    })
}

/// Whether two networks have an address in common: then one holds the other.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
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
        let proxies = proxies("xff:10.0.0.0/8,xff:2001:db8::/32,proxy:192.0.2.0/24");
        for (peer, fields, client) in [
            ("10.1.1.1", &["203.0.113.9"][..], "203.0.113.9"),
            ("10.1.1.1", &["1.2.3.4, 203.0.113.9,10.2.2.2"], "203.0.113.9"),
            ("10.1.1.1", &["1.2.3.4", "203.0.113.9", "10.2.2.2"], "203.0.113.9"),
            ("::ffff:10.1.1.1", &["[2002::1]:443"], "2002::1"),
            ("10.1.1.1", &["203.0.113.9:1234"], "203.0.113.9"),
            // Nobody who is not trusted is believed.
            ("203.0.113.9", &["1.2.3.4"], "203.0.113.9"),
            // Nor is what comes through a proxy that writes none.
            ("192.0.2.1", &["1.2.3.4"], "192.0.2.1"),
            ("10.1.1.1", &["1.2.3.4, 192.0.2.1"], "192.0.2.1"),
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
        let proxies = proxies("xff:10.0.0.0/8,proxy:198.51.100.1");
        assert_eq!(proxies.source(ip("2001:db8::1")), proxies.source(ip("2001:db8::ffff:0:0:2")));
        assert_ne!(proxies.source(ip("2001:db8::1")), proxies.source(ip("2001:db8:0:1::1")));
        assert_eq!(proxies.source(ip("192.0.2.1")), proxies.source(ip("::ffff:192.0.2.1")));
        assert_ne!(proxies.source(ip("192.0.2.1")), proxies.source(ip("192.0.2.2")));
        assert_eq!((proxies.source(ip("10.1.2.3")), proxies.source(ip("198.51.100.1"))), (None, None));
        assert_eq!(TrustedProxies::default().source(ip("192.0.2.1")), None);
    }

    #[test]
    fn direct_means_that_addresses_are_real() {
        let direct = proxies("direct");
        assert!(direct.is_known() && direct.source(ip("10.1.2.3")).is_some());
        assert!(!TrustedProxies::default().is_known());
    }

    #[test]
    fn each_proxy_has_one_way_to_tell_addresses() {
        let wrong = ["", "none", "xff:10.0.0.0/33", "xff:10.0.0.0/8,", "proxy.example", "10.0.0.0/8", "::1", "direct,xff:::1"];
        for wrong in wrong {
            let told = wrong.parse::<TrustedProxies>().expect_err(wrong);
            assert!(told.contains("proxy:10.0.0.0/8") && told.contains("xff:10.0.0.0/8"), "{told}");
        }
        for wrong in ["proxy:10.0.0.0/8,xff:10.1.0.0/16", "xff:10.0.0.1,xff:::1,proxy:10.0.0.0/8"] {
            let told = wrong.parse::<TrustedProxies>().expect_err(wrong);
            assert!(told.contains("overlap"), "{told}");
        }
        let proxies = proxies("proxy:10.0.0.0/8, xff:2001:db8::1,proxy:10.1.0.0/16");
        assert!(proxies.sends_header(ip("::ffff:10.1.1.1")) && !proxies.sends_header(ip("2001:db8::1")));
    }
}
