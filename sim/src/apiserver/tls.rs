//! TLS as Go serves it: ALPN decides the protocol, and nothing else is understood.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use host::tls::Alpn;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take: what Go's clients wait for theirs (`TLSHandshakeTimeout`).
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Accepts TLS connections. Cheap to clone.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Serves with a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// Either holds nothing usable, or they do not fit together.
    pub fn new(certificates: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let chain =
            CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>().context("no certificate in PEM")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("no private key in PEM")?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = Alpn::Http.protocols();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands, within a time limit; says also whether HTTP/2 was chosen.
    pub(crate) async fn accept<T: host::Io>(&self, connection: T) -> io::Result<(TlsStream<T>, bool)> {
        let tls = timeout(HANDSHAKE_MAX, self.0.accept(connection)).await.map_err(io::Error::other)??;
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((tls, is_http2))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use host::Host;
    use http::Request;
    use http_body_util::Empty;
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::TokioIo;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::{TlsConnector, client};

    use super::*;
    use crate::apiserver::{ApiServer, Options};
    use crate::certs::Authority;

    type Io = TokioIo<client::TlsStream<tokio::io::DuplexStream>>;

    #[tokio::test(start_paused = true)]
    async fn only_the_protocol_that_alpn_chose_is_understood() {
        for (alpn, http1_works, http2_works) in [(Some("h2"), false, true), (Some("http/1.1"), true, false), (None, true, false)]
        {
            assert_eq!(http1_answers(connect(alpn).await).await, http1_works, "HTTP/1.1 after {alpn:?}");
            assert_eq!(http2_answers(connect(alpn).await).await, http2_works, "HTTP/2 after {alpn:?}");
        }
    }

    /// A connection to a server of its own on which `alpn` was agreed.
    async fn connect(alpn: Option<&str>) -> Io {
        let host = Host::real();
        let authority = Authority::new(host.wall_clock()).expect("an authority");
        let pem = authority.server("kube-apiserver", &["localhost"]).expect("a certificate");
        let tls = Tls::new(pem.certificate.as_bytes(), pem.key.as_bytes()).expect("a usable pair");
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = ApiServer::new(host.clone(), Options::default());
        host.spawn("server", async move {
            let (connection, alpn_h2) = tls.accept(far).await.expect("a handshake");
            server.serve_connection(connection, alpn_h2).await;
        });
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(authority.pem().certificate.as_bytes()).expect("a certificate");
        roots.add(ca).expect("a root");
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.into_iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        TokioIo::new(TlsConnector::from(Arc::new(config)).connect(name, near).await.expect("a handshake"))
    }

    async fn http1_answers(io: Io) -> bool {
        let (mut sender, connection) = http1::handshake(io).await.expect("a client");
        Host::real().spawn("client", async move { drop(connection.await) });
        let request = Request::get("/version").header("host", "localhost").body(Empty::<Bytes>::new()).expect("a request");
        sender.send_request(request).await.is_ok_and(|answer| answer.status().is_success())
    }

    async fn http2_answers(io: Io) -> bool {
        let host = Host::real();
        let Ok((mut sender, connection)) = http2::handshake(host.tasks().clone(), io).await else { return false };
        host.spawn("client", async move { drop(connection.await) });
        let request = Request::get("https://localhost/version").body(Empty::<Bytes>::new()).expect("a request");
        sender.send_request(request).await.is_ok_and(|answer| answer.status().is_success())
    }
}
