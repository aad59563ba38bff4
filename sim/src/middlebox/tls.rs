//! Boxes that end TLS: an https proxy with a certificate of its own, and one that reads what others meant to hide.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use host::tls::{Alpn, ClientFiles, ClientTls, ServerFiles, ServerTls};
use host::{Connection, Host};

use super::flow::Leg;
use super::{Middlebox, Tls};
use crate::fabric::Socket;
use crate::machine::Machine;
use crate::pki;

/// Where a box has its certificate.
const CERT: &str = "/etc/box/tls.crt";
const KEY: &str = "/etc/box/tls.key";

/// What a TLS connection's end is to the other: it breaks off without a goodbye.
impl Leg for Connection {
    fn reset(self: Box<Self>) {}
}

/// Gives a box the certificate that it shows.
pub(super) fn equip(machine: &Machine, plan: &Middlebox) {
    let own = match plan.tls {
        Tls::None => return,
        Tls::Own => &pki::NEW.proxy,
        Tls::Intercepts => &pki::INSPECTION.hub,
    };
    machine.disk().write(CERT, own.certificate.as_bytes());
    machine.disk().write(KEY, own.key.as_bytes());
}

/// Shakes hands with who dialled, if the box has TLS.
pub(super) async fn accept(host: &Host, tls: Tls, near: Socket) -> io::Result<Box<dyn Leg>> {
    if tls == Tls::None {
        return Ok(Box::new(near));
    }
    let files = ServerFiles { cert: CERT.to_owned(), key: KEY.to_owned(), client_ca: None, client_required: false };
    let server = ServerTls::new(host, "box", files, Alpn::Http1).map_err(io::Error::other)?;
    Ok(Box::new(server.accept(Connection::new(near, NOWHERE)).await?.0))
}

/// Shakes hands with the hub in the place of who dialled, if the box does that; it has no certificate to show there.
pub(super) async fn dial_on(host: &Host, tls: Tls, far: Socket) -> io::Result<Box<dyn Leg>> {
    if tls != Tls::Intercepts {
        return Ok(Box::new(far));
    }
    let client =
        ClientTls::new(host, "box", ClientFiles { insecure: true, ..ClientFiles::default() }).map_err(io::Error::other)?;
    Ok(Box::new(client.connect(Connection::new(far, NOWHERE), "hub", Alpn::Http1).await?.0))
}

/// The addresses of a flow's ends are of no use here.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
