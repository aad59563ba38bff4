//! TLS material from files: read at start, watched, swapped whole when they change.
//!
//! A set that cannot be used is refused with a log line and the old one stays. Sessions are never resumed: a resumed
//! session is not verified again and would outlive a change of trust. Validity is judged by the host's wall clock.

mod any;
mod expiry;
mod failure;
mod inspected;
mod material;
mod pem;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificate::PeerCertificate;
use crate::turnstile::Turnstile;
use crate::watched::{Contents, Unread, Watched};
use crate::{Connection, Host};
pub(crate) use expiry::ExpiryMetrics;
pub use expiry::METRICS;
pub use failure::Failure;
pub use inspected::inspect;
use material::{ClientMaterial, ServerMaterial};
pub use pem::ClientPem;

/// How long a handshake may take: four flights over a satellite link and a loss.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Which protocols are offered or accepted (RFC 7301), in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 and HTTP/1.1.
    Http,
    /// HTTP/1.1 only, for connections that are to be upgraded.
    Http1,
}

impl Alpn {
    /// Their names on the wire.
    pub fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
        }
    }
}

/// Makes the one provider of cryptography the process's default; the first thing that a program does.
pub fn use_provider() {
    // An error means that a provider is installed already, which can only be this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The files of a TLS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Certificate chain, PEM.
    pub cert: String,
    /// Its private key, PEM.
    pub key: String,
    /// CA of client certificates, PEM; with it a client certificate is asked for.
    pub client_ca: Option<String>,
    /// Whether a client without a certificate is turned away, where there is a CA.
    pub client_required: bool,
}

/// The files of a TLS client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientFiles {
    /// CA of the server, PEM; the machine's own trust roots without it.
    pub ca: Option<String>,
    /// Client certificate and its key, PEM.
    pub identity: Option<(String, String)>,
    /// Accepts any server certificate.
    pub insecure: bool,
}

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: Unread,
    },
    /// The file holds nothing usable.
    #[error("{path} holds no {what}")]
    Content {
        /// The file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The parts do not fit together.
    #[error("{path} cannot be used: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}

impl TlsError {
    /// The file that is to blame; empty where the machine's trust store is.
    pub fn path(&self) -> &str {
        match self {
            Self::Read { path, .. } | Self::Content { path, .. } | Self::Unusable { path, .. } => path,
        }
    }
}

/// Accepts TLS connections.
pub struct ServerTls {
    material: Arc<Watched<ServerMaterial>>,
    turnstile: Turnstile,
    host: Host,
}

impl ServerTls {
    /// Reads `files` and goes on watching them; `name` says in logs and metrics whose they are.
    ///
    /// # Errors
    /// What is wrong with the files now.
    pub fn new(host: &Host, name: &'static str, files: ServerFiles, alpn: Alpn) -> Result<Self, TlsError> {
        let paths = [Some(files.cert.clone()), Some(files.key.clone()), files.client_ca.clone()];
        let clock = host.clone();
        let build = move |contents: &Contents| ServerMaterial::new(&clock, contents, &files, alpn);
        let material = Watched::new(host, name, paths.into_iter().flatten().collect(), build)?;
        expiry::watch(host, name, &material);
        Ok(Self { material, turnstile: Turnstile::new(), host: host.clone() })
    }

    /// Shakes hands, within a time limit; who shakes hands beside it takes turns with it. Says also whose certificate the
    /// client has shown, if it has.
    pub async fn accept(&self, connection: Connection) -> io::Result<(Connection, Option<PeerCertificate>)> {
        let acceptor = TlsAcceptor::from(self.material.get().config.clone());
        let peer = connection.peer();
        let handshake = self.turnstile.pass(acceptor.accept(connection));
        let tls = timeout(HANDSHAKE_MAX, handshake).await.map_err(|_| timed_out())??;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = match chain {
            [] => None,
            // Verified, and yet not to be read: whose it is cannot be said, so it is nobody's.
            chain => Some(PeerCertificate::of(chain).ok_or_else(|| io::Error::other("the client's certificate cannot be read"))?),
        };
        Ok((Connection::new(tls, peer), certificate))
    }

    /// Whether a client with this certificate would still be let in, as far as its issuer is concerned: the CA may have been
    /// replaced. That time has run out since it was let in is no reason to end what it does.
    pub fn trusts(&self, certificate: &PeerCertificate) -> bool {
        self.material.get().trusts(certificate, self.host.wall_clock())
    }

    /// How often the material has changed.
    pub fn n_changes(&self) -> u64 {
        self.material.n_changes()
    }

    /// Resolves at the first change of the material after this call.
    pub fn changed(&self) -> OwnedNotified {
        self.material.changed()
    }
}

/// Opens TLS connections.
pub struct ClientTls {
    material: Arc<Watched<ClientMaterial>>,
    host: Host,
}

/// What a server has shown.
#[derive(Debug)]
pub struct Shown {
    /// It chose HTTP/2.
    pub is_http2: bool,
    /// Verified, unless nothing is to be.
    pub certificate: Option<PeerCertificate>,
}

impl ClientTls {
    /// Reads `files` and goes on watching them; `name` says in logs and metrics whose they are.
    ///
    /// # Errors
    /// What is wrong with the files now.
    pub fn new(host: &Host, name: &'static str, files: ClientFiles) -> Result<Self, TlsError> {
        let identity = files.identity.clone().map(|(cert, key)| [cert, key]);
        let paths = files.ca.iter().cloned().chain(identity.into_iter().flatten()).collect();
        let clock = host.clone();
        let build = move |contents: &Contents| ClientMaterial::new(&clock, contents, &files);
        let material = Watched::new(host, name, paths, build)?;
        expiry::watch(host, name, &material);
        Ok(Self { material, host: host.clone() })
    }

    /// Shakes hands with `name`, within a time limit.
    pub async fn connect(&self, connection: Connection, name: &str, alpn: Alpn) -> io::Result<(Connection, Shown)> {
        let server_name = server_name(name)?;
        let connector = TlsConnector::from(self.material.get().config(alpn));
        let peer = connection.peer();
        let tls = timeout(HANDSHAKE_MAX, connector.connect(server_name, connection)).await.map_err(|_| timed_out())??;
        let session = tls.get_ref().1;
        let certificate = session.peer_certificates().and_then(PeerCertificate::of);
        let shown = Shown { is_http2: session.alpn_protocol() == Some(b"h2"), certificate };
        Ok((Connection::new(tls, peer), shown))
    }

    /// Whether a server `name` with this certificate would still be believed, as far as its issuer is concerned.
    pub fn trusts(&self, certificate: &PeerCertificate, name: &str) -> bool {
        let material = self.material.get();
        server_name(name).is_ok_and(|name| material.trusts(certificate, &name, self.host.wall_clock()))
    }

    /// How often the material has changed.
    pub fn n_changes(&self) -> u64 {
        self.material.n_changes()
    }

    /// Resolves at the first change of the material after this call.
    pub fn changed(&self) -> OwnedNotified {
        self.material.changed()
    }
}

/// An IPv6 address may stand in brackets.
fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tracing_test::traced_test;

    use super::*;
    use crate::watched::LOOK_INTERVAL;

    #[tokio::test(start_paused = true)]
    #[traced_test]
    async fn new_material_replaces_the_old_and_broken_material_does_not() {
        use_provider();
        let dir = TempDir::new().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("a writable file");
        let renew = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            write("cert", &made.cert.pem());
            write("key", &made.signing_key.serialize_pem());
        };
        renew();
        let files = ServerFiles { cert: path("cert"), key: path("key"), client_ca: None, client_required: true };
        let host = Host::real();
        let tls = ServerTls::new(&host, "tls", files.clone(), Alpn::Http).expect("usable material");
        let first = tls.material.get();

        // More than it takes to look twice.
        let changes = async |change: &dyn Fn()| {
            let changed = tls.changed();
            change();
            timeout(4 * LOOK_INTERVAL, changed).await.is_ok()
        };
        assert!(!changes(&|| {}).await);
        assert!(Arc::ptr_eq(&first, &tls.material.get()), "unchanged files change nothing");

        assert!(changes(&renew).await);
        let second = tls.material.get();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(logs_contain("changed files were taken"));

        assert!(!changes(&|| write("key", "not a key")).await);
        assert!(Arc::ptr_eq(&second, &tls.material.get()));
        assert!(logs_contain("changed files are refused, what was there before stays"));
        assert!(logs_contain("holds no private key in PEM"));
        let metrics = crate::ops::metrics_text(&crate::ops::registry(&host, "0"));
        assert!(metrics.contains("config_files_refused_total{file=\"tls\"} 1\n"), "{metrics}");
        assert!(metrics.contains("config_files_stale{file=\"tls\"} 1\n"), "{metrics}");
        assert!(metrics.contains("certificate_expires_timestamp_seconds{file="), "{metrics}");
        assert!(ServerTls::new(&Host::real(), "tls", files, Alpn::Http).is_err(), "at start it is a mistake");
    }

    #[tokio::test]
    async fn no_tls_session_is_resumed_so_none_outlives_its_ca() {
        use rustls::{ClientConfig, HandshakeKind, RootCertStore};
        use_provider();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let dir = TempDir::new().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name).to_str().expect("a plain path").to_owned();
        std::fs::write(path("cert"), made.cert.pem()).expect("a writable file");
        std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("a writable file");
        let files = ServerFiles { cert: path("cert"), key: path("key"), client_ca: None, client_required: false };
        let tls = ServerTls::new(&Host::real(), "tls", files, Alpn::Http1).expect("usable material");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).expect("an authority");
            let builder = ClientConfig::builder_with_protocol_versions(&[version]);
            // With a cache of sessions, as clients have.
            let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
            for _ in 0..3 {
                let (near, far) = tokio::io::duplex(1 << 16);
                let dial = async {
                    let name = ServerName::try_from("localhost").expect("a name");
                    let mut tls = TlsConnector::from(config.clone()).connect(name, near).await.expect("a handshake");
                    // Tickets come behind the handshake, if any do.
                    let mut byte = [0];
                    tls.read_exact(&mut byte).await.expect("a byte");
                    tls.get_ref().1.handshake_kind()
                };
                let serve = async {
                    let peer = "127.0.0.1:1".parse().expect("an address");
                    let (mut connection, _) = tls.accept(Connection::new(far, peer)).await.expect("a handshake");
                    connection.write_all(b"x").await.expect("a byte");
                    connection.flush().await.expect("a byte");
                    connection
                };
                let (kind, _connection) = tokio::join!(dial, serve);
                assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
            }
        }
    }
}
