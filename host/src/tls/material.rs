//! What rustls is configured with, made of the bytes of PEM files.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore, ServerConfig};

use super::any::AcceptAny;
use super::expiry::{Dated, Expiring};
use super::{Alpn, ClientFiles, ServerFiles, TlsError, use_provider};
use crate::Host;
use crate::certificate::{PeerCertificate, Validity};
use crate::watched::Contents;

/// What a server shakes hands with.
pub(super) struct ServerMaterial {
    pub(super) config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    dated: Vec<Dated>,
}

impl ServerMaterial {
    pub(super) fn new(host: &Host, contents: &Contents, files: &ServerFiles, alpn: Alpn) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(WallClock(host.clone())));
        // TLS 1.2 and 1.3.
        let builder = builder.with_protocol_versions(DEFAULT_VERSIONS).map_err(|error| unusable(&files.cert, &error))?;
        let mut dated = Vec::new();
        let verifier = match &files.client_ca {
            Some(path) => {
                let authorities = certificates(contents, path)?;
                dated.extend(Dated::of_authorities(path, &authorities));
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path, authorities)?), provider());
                let builder = if files.client_required { builder } else { builder.allow_unauthenticated() };
                Some(builder.build().map_err(|error| unusable(path, &error))?)
            }
            None => None,
        };
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let (chain, key) = identity(contents, &files.cert, &files.key)?;
        dated.extend(Dated::of_chain(&files.cert, &chain));
        let mut config = builder.with_single_cert(chain, key).map_err(|error| unfit(&files.cert, &files.key, &error))?;
        config.alpn_protocols = alpn.protocols();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), verifier, dated })
    }

    pub(super) fn trusts(&self, certificate: &PeerCertificate, now: SystemTime) -> bool {
        let (Some(verifier), Some((leaf, intermediates))) = (&self.verifier, certificate.chain.split_first()) else {
            return false;
        };
        verifier.verify_client_cert(leaf, intermediates, good_second(leaf, now)).is_ok()
    }
}

impl Expiring for ServerMaterial {
    fn dated(&self) -> &[Dated] {
        &self.dated
    }
}

/// What a client shakes hands with.
pub(super) struct ClientMaterial {
    http: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    verifier: Arc<dyn ServerCertVerifier>,
    dated: Vec<Dated>,
}

impl ClientMaterial {
    pub(super) fn new(host: &Host, contents: &Contents, files: &ClientFiles) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(WallClock(host.clone())));
        let versions = builder.with_protocol_versions(DEFAULT_VERSIONS);
        let builder = versions.map_err(|error| unusable(files.ca.as_deref().unwrap_or_default(), &error))?;
        let mut dated = Vec::new();
        let verifier: Arc<dyn ServerCertVerifier> = if files.insecure {
            Arc::new(AcceptAny)
        } else {
            let (roots, path) = match &files.ca {
                Some(path) => {
                    let authorities = certificates(contents, path)?;
                    dated.extend(Dated::of_authorities(path, &authorities));
                    (roots(path, authorities)?, path.as_str())
                }
                None => (native_roots(), "the machine's trust store"),
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            verifier.map_err(|error| unusable(path, &error))?
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier.clone());
        let mut config = match &files.identity {
            Some((cert, key_path)) => {
                let (chain, key) = identity(contents, cert, key_path)?;
                dated.extend(Dated::of_chain(cert, &chain));
                builder.with_client_auth_cert(chain, key).map_err(|error| unfit(cert, key_path, &error))?
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let offering = |alpn: Alpn| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.protocols();
            Arc::new(config)
        };
        Ok(Self { http: offering(Alpn::Http), http1: offering(Alpn::Http1), verifier, dated })
    }

    pub(super) fn trusts(&self, certificate: &PeerCertificate, name: &ServerName<'_>, now: SystemTime) -> bool {
        let Some((leaf, intermediates)) = certificate.chain.split_first() else { return false };
        self.verifier.verify_server_cert(leaf, intermediates, name, &[], good_second(leaf, now)).is_ok()
    }

    pub(super) fn config(&self, alpn: Alpn) -> Arc<ClientConfig> {
        match alpn {
            Alpn::Http => self.http.clone(),
            Alpn::Http1 => self.http1.clone(),
        }
    }
}

impl Expiring for ClientMaterial {
    fn dated(&self) -> &[Dated] {
        &self.dated
    }
}

/// Now, or the last good second of a certificate whose time is over.
fn good_second(leaf: &[u8], now: SystemTime) -> UnixTime {
    let last = Validity::of(leaf).map_or(now, |validity| now.min(validity.not_after - Duration::from_secs(1)));
    UnixTime::since_unix_epoch(last.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn identity(
    contents: &Contents,
    cert: &str,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(contents, cert)?;
    let key = PrivateKeyDer::from_pem_slice(read(contents, key)?)
        .map_err(|_| TlsError::Content { path: key.to_owned(), what: "private key in PEM" })?;
    Ok((chain, key))
}

fn roots(path: &str, authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| unusable(path, &error))?;
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

pub(super) fn certificates(contents: &Contents, path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = || TlsError::Content { path: path.to_owned(), what: "certificate in PEM" };
    let pem = read(contents, path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| content())?;
    if certificates.is_empty() { Err(content()) } else { Ok(certificates) }
}

fn read<'a>(contents: &'a Contents, path: &str) -> Result<&'a [u8], TlsError> {
    contents.of(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn unusable(path: &str, error: &dyn std::error::Error) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), reason: error.to_string() }
}

/// Why a certificate and a key make no identity: whichever of the two is to blame, and the key where they are good alone.
fn unfit(cert: &str, key: &str, error: &rustls::Error) -> TlsError {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        return TlsError::Unusable {
            path: key.to_owned(),
            reason: format!("it is not the key of the first certificate in {cert}"),
        };
    }
    let is_certificates = matches!(error, rustls::Error::InvalidCertificate(_));
    unusable(if is_certificates { cert } else { key }, error)
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
