//! TLS material from files: read at start, watched, swapped whole when they change.
//!
//! A set that cannot be used is refused with a log line and the old one stays. Sessions are never resumed: a resumed
//! session is not verified again and would outlive a change of trust. Validity is judged by the host's wall clock.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::turnstile::Turnstile;
use crate::{Connection, Host};

/// How often files are looked at, at most, and only when they are needed: a stat and a read of a few KiB.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// How long a handshake may take: four flights over a satellite link and a loss.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// HTTP/2 and HTTP/1.1, in this order.
pub const ALPN_HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];

/// HTTP/1.1 only, for connections that are to be upgraded.
pub const ALPN_HTTP1: &[&[u8]] = &[b"http/1.1"];

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
    /// CA of client certificates, PEM; with it a client certificate is required.
    pub client_ca: Option<String>,
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
        source: io::Error,
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

/// Accepts TLS connections.
pub struct ServerTls {
    config: Reloaded<ServerConfig>,
    turnstile: Turnstile,
}

impl ServerTls {
    /// Reads `files`; `alpn` is offered in its order.
    pub fn new(host: Host, files: ServerFiles, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let paths = [Some(files.cert.clone()), Some(files.key.clone()), files.client_ca.clone()];
        let build = move |host: &Host| server_config(host, &files, alpn);
        let config = Reloaded::new(host, paths.into_iter().flatten().collect(), Box::new(build))?;
        Ok(Self { config, turnstile: Turnstile::new() })
    }

    /// Shakes hands, within a time limit; who shakes hands beside it takes turns with it.
    pub async fn accept(&self, connection: Connection) -> io::Result<Connection> {
        let acceptor = TlsAcceptor::from(self.config.get());
        let peer = connection.peer();
        let handshake = self.turnstile.pass(acceptor.accept(connection));
        let tls = timeout(HANDSHAKE_MAX, handshake).await.map_err(|_| timed_out())??;
        Ok(Connection::new(tls, peer))
    }
}

/// Opens TLS connections.
pub struct ClientTls(Reloaded<ClientConfig>);

impl ClientTls {
    /// Reads `files`; `alpn` is offered in its order.
    pub fn new(host: Host, files: ClientFiles, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let identity = files.identity.clone().map(|(cert, key)| [cert, key]);
        let paths = files.ca.iter().cloned().chain(identity.into_iter().flatten()).collect();
        let build = move |host: &Host| client_config(host, &files, alpn);
        Ok(Self(Reloaded::new(host, paths, Box::new(build))?))
    }

    /// Shakes hands with `name`, within a time limit; says also whether HTTP/2 was chosen.
    pub async fn connect(&self, connection: Connection, name: &str) -> io::Result<(Connection, bool)> {
        let server_name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.0.get());
        let peer = connection.peer();
        let tls = timeout(HANDSHAKE_MAX, connector.connect(server_name, connection)).await.map_err(|_| timed_out())??;
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Connection::new(tls, peer), is_http2))
    }
}

type Build<T> = Box<dyn Fn(&Host) -> Result<T, TlsError> + Send + Sync>;

/// A value made of files, made again when their content changes.
struct Reloaded<T> {
    host: Host,
    paths: Vec<String>,
    build: Build<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    contents: Vec<Option<Vec<u8>>>,
    looked_at: Instant,
}

impl<T> Reloaded<T> {
    fn new(host: Host, paths: Vec<String>, build: Build<T>) -> Result<Self, TlsError> {
        let contents = contents(&host, &paths);
        let state = State { value: Arc::new(build(&host)?), contents, looked_at: Instant::now() };
        Ok(Self { host, paths, build, state: Mutex::new(state) })
    }

    fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= RELOAD_INTERVAL {
            state.looked_at = Instant::now();
            let contents = contents(&self.host, &self.paths);
            if contents != state.contents {
                match (self.build)(&self.host) {
                    Ok(value) => {
                        tracing::info!(files = ?self.paths, "TLS material replaced");
                        state.value = Arc::new(value);
                    }
                    Err(error) => tracing::warn!(%error, "new TLS material refused, the old one stays"),
                }
                // A broken set is told once, and tried again when it changes.
                state.contents = contents;
            }
        }
        state.value.clone()
    }
}

fn contents(host: &Host, paths: &[String]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path| host.read_file(path).ok()).collect()
}

fn server_config(host: &Host, files: &ServerFiles, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(WallClock(host.clone())));
    let builder = builder.with_protocol_versions(DEFAULT_VERSIONS).map_err(|error| unusable(&files.cert, &error))?;
    let builder = match &files.client_ca {
        Some(path) => {
            let roots = Arc::new(roots(host, path)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(|error| unusable(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = identity(host, &files.cert, &files.key)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(&files.cert, &error))?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(host: &Host, files: &ClientFiles, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(WallClock(host.clone())));
    let versions = builder.with_protocol_versions(DEFAULT_VERSIONS);
    let builder = versions.map_err(|error| unusable(files.ca.as_deref().unwrap_or_default(), &error))?;
    let builder = if files.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny))
    } else {
        let (roots, path) = match &files.ca {
            Some(path) => (roots(host, path)?, path.as_str()),
            None => (native_roots(), "the machine's trust store"),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        builder.with_webpki_verifier(verifier.map_err(|error| unusable(path, &error))?)
    };
    let mut config = match &files.identity {
        Some((cert, key_path)) => {
            let (chain, key) = identity(host, cert, key_path)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(cert, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn identity(host: &Host, cert: &str, key: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(host, cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read(host, key)?)
        .map_err(|_| TlsError::Content { path: key.to_owned(), what: "private key in PEM" })?;
    Ok((chain, key))
}

fn roots(host: &Host, path: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(host, path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "a file of the machine's trust store was passed over");
    }
    roots.add_parsable_certificates(loaded.certs);
    roots
}

fn certificates(host: &Host, path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = || TlsError::Content { path: path.to_owned(), what: "certificate in PEM" };
    let pem = read(host, path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| content())?;
    if certificates.is_empty() { Err(content()) } else { Ok(certificates) }
}

fn read(host: &Host, path: &str) -> Result<Vec<u8>, TlsError> {
    host.read_file(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn unusable(path: &str, error: &dyn std::error::Error) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), reason: error.to_string() }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
}

/// The process's provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    use_provider();
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Tells rustls the time of day by which certificates are valid or not.
struct WallClock(Host);

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.wall_clock().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// The verifier of `insecure`: the user has said that any certificate will do.
#[derive(Debug)]
struct AcceptAny;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tracing_test::traced_test;

    use super::*;

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
        let files = ServerFiles { cert: path("cert"), key: path("key"), client_ca: None };
        let tls = ServerTls::new(Host::real(), files.clone(), ALPN_HTTP).expect("usable material");
        let first = tls.config.get();

        tokio::time::advance(RELOAD_INTERVAL).await;
        assert!(Arc::ptr_eq(&first, &tls.config.get()), "unchanged files change nothing");

        renew();
        tokio::time::advance(RELOAD_INTERVAL).await;
        let second = tls.config.get();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(logs_contain("TLS material replaced"));

        write("key", "not a key");
        tokio::time::advance(RELOAD_INTERVAL).await;
        assert!(Arc::ptr_eq(&second, &tls.config.get()));
        assert!(logs_contain("new TLS material refused, the old one stays"));
        assert!(logs_contain("holds no private key in PEM"));
        assert!(ServerTls::new(Host::real(), files, ALPN_HTTP).is_err(), "at start it is a mistake");
    }
}
