//! The PROXY protocol, versions 1 and 2: a load balancer's first bytes say whose connection it passes on.
//!
//! <https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>; it is read only of peers that send one always: others would
//! pass on what a stranger made up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Buf;
use tokio::time::timeout;

use crate::Connection;

const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its end of line (section 2.1).
const LINE_MAX: usize = 107;

/// The fixed part of version 2: signature, command, family, length.
const FIXED: usize = 16;

/// The longest header of version 2 that is taken. Those with a client's certificate in them have a kilobyte or two; longer
/// ones end the connection.
const HEADER_MAX: usize = 4096;

/// How long a proxy may take to say it.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// What is read at once: all of any usual header.
const CHUNK: usize = 256;

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// The beginning of a header, or of what looks like one.
    Partial,
    /// Something else.
    None,
    /// A header of so many bytes, and whom it names; nobody for the proxy's own connections.
    Whole(usize, Option<SocketAddr>),
    /// No header that can be understood.
    Broken,
}

/// The connection behind its PROXY header, from the peer that it names; as it was when it ends without a byte.
///
/// # Errors
/// No header, a broken one, one that took too long, or the connection's own.
pub(crate) async fn remove(connection: Connection) -> io::Result<Connection> {
    timeout(HEADER_TIME_MAX, read(connection)).await.map_err(|_| io::Error::other("the PROXY header took too long"))?
}

async fn read(mut connection: Connection) -> io::Result<Connection> {
    loop {
        match parse(connection.held()) {
            Header::None => return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no PROXY header")),
            Header::Broken => return Err(io::Error::new(io::ErrorKind::InvalidData, "the PROXY header is broken")),
            Header::Whole(len, client) => {
                connection.held().advance(len);
                return Ok(match client {
                    Some(client) => connection.of_peer(client),
                    None => connection,
                });
            }
            Header::Partial if connection.hold_more(CHUNK).await? == 0 => {
                // A balancer that looks whether the port is open says nothing.
                let is_silent = connection.held().is_empty();
                return if is_silent { Ok(connection) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            Header::Partial => {}
        }
    }
}

fn parse(bytes: &[u8]) -> Header {
    if begins_like(bytes, SIGNATURE_2) {
        return if bytes.len() < FIXED { Header::Partial } else { parse_2(bytes) };
    }
    if begins_like(bytes, SIGNATURE_1) {
        return match bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') {
            Some(end) => parse_1(&bytes[..=end]),
            None if bytes.len() < LINE_MAX => Header::Partial,
            None => Header::Broken,
        };
    }
    Header::None
}

fn begins_like(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, of)| byte == of)
}

fn parse_1(line: &[u8]) -> Header {
    let words = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<_> = words.unwrap_or_default().split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Header::Whole(line.len(), None),
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            let addresses = from.parse::<Ipv4Addr>().ok().zip(to.parse::<Ipv4Addr>().ok());
            addresses.map(|(from, _)| IpAddr::from(from)).zip(port(from_port)).zip(port(to_port))
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            let addresses = from.parse::<Ipv6Addr>().ok().zip(to.parse::<Ipv6Addr>().ok());
            addresses.map(|(from, _)| IpAddr::from(from)).zip(port(from_port)).zip(port(to_port))
        }
        _ => None,
    };
    match client {
        Some((client, _)) => Header::Whole(line.len(), Some(SocketAddr::from(client))),
        None => Header::Broken,
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `bytes` has the fixed part.
fn parse_2(bytes: &[u8]) -> Header {
    let body = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let whole = FIXED + body;
    if whole > HEADER_MAX {
        return Header::Broken;
    }
    let Some(body) = bytes.get(FIXED..whole) else { return Header::Partial };
    let client = match (bytes[12], bytes[13]) {
        // LOCAL: the proxy asks for itself, to see whether we live.
        (0x20, _) => None,
        // An unspecified family or a Unix socket has no address.
        (0x21, 0x00 | 0x31) => None,
        (0x21, 0x11) => match *body {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
            }
            _ => return Header::Broken,
        },
        (0x21, 0x21) => match (body.first_chunk::<16>(), body.get(32..36)) {
            (Some(address), Some(ports)) => Some(SocketAddr::from((*address, u16::from_be_bytes([ports[0], ports[1]])))),
            (_, _) => return Header::Broken,
        },
        // Another version or command, or datagrams.
        (_, _) => return Header::Broken,
    };
    Header::Whole(whole, client)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header_1(client: SocketAddr) -> Vec<u8> {
        let (family, to) = if client.is_ipv4() { ("TCP4", "192.0.2.1") } else { ("TCP6", "2001:db8::1") };
        format!("PROXY {family} {} {to} {} 443\r\n", client.ip(), client.port()).into_bytes()
    }

    fn header_2(client: SocketAddr, more: &[u8]) -> Vec<u8> {
        let (family, mut body) = match client.ip() {
            IpAddr::V4(ip) => (0x11, [ip.octets(), [192, 0, 2, 1]].concat()),
            IpAddr::V6(ip) => (0x21, [ip.octets(), [9; 16]].concat()),
        };
        body.extend(client.port().to_be_bytes());
        body.extend(443_u16.to_be_bytes());
        body.extend(more);
        let len = u16::try_from(body.len()).expect("short").to_be_bytes();
        [SIGNATURE_2, &[0x21, family], &len, &body].concat()
    }

    proptest! {
        #[test]
        fn a_header_in_any_pieces_names_the_client_and_takes_no_byte_of_what_follows(
            ip: IpAddr, port: u16, more in prop::collection::vec(any::<u8>(), 0..200), rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let client = SocketAddr::new(ip, port);
            for header in [header_1(client), header_2(client, &more)] {
                for cut in 0..header.len() {
                    prop_assert_eq!(parse(&header[..cut]), Header::Partial);
                }
                let whole = [header.as_slice(), &rest].concat();
                prop_assert_eq!(parse(&whole), Header::Whole(header.len(), Some(client)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_wait_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200), signature in 0..3_usize) {
            let bytes = [[&[][..], SIGNATURE_1, SIGNATURE_2][signature], &bytes].concat();
            match parse(&bytes) {
                Header::Whole(len, _) => prop_assert!(len <= bytes.len()),
                Header::Partial | Header::None | Header::Broken => {}
            }
            prop_assert_ne!(parse(&[&bytes[..], &[b'x'; HEADER_MAX]].concat()), Header::Partial);
        }
    }

    #[test]
    fn what_is_no_header_is_left_alone() {
        for other in [&b"POST /x HTTP/1.1"[..], b"PRI * HTTP/2.0", b"PUT / ", b"\x16\x03\x01", b"GET /", b"\r\nGET"] {
            assert_eq!(parse(other), Header::None, "{other:?}");
        }
        for partial in [&b""[..], b"P", b"PRO", b"\r\n\r\n"] {
            assert_eq!(parse(partial), Header::Partial, "{partial:?}");
        }
    }

    #[test]
    fn a_proxys_own_connection_names_nobody_and_broken_headers_are_refused() {
        let local = [SIGNATURE_2, &[0x20, 0, 0, 0]].concat();
        assert_eq!(parse(&local), Header::Whole(16, None));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Header::Whole(15, None));
        assert_eq!(parse(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Header::Whole(35, None));
        for broken in [
            &b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY \r\n",
        ] {
            assert_eq!(parse(broken), Header::Broken, "{broken:?}");
        }
        for (command, family, len) in [(0x11, 0x11, 12), (0x22, 0x11, 12), (0x21, 0x12, 12), (0x21, 0x11, 11), (0x21, 0x21, 35)] {
            let header = [SIGNATURE_2, &[command, family, 0, len], &[1; 40]].concat();
            assert_eq!(parse(&header), Header::Broken, "{command} {family} {len}");
        }
    }
}
