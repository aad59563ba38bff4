//! Certificates of a world with TLS: what security teams issue, and the files in which machines find it.

use std::sync::LazyLock;
use std::time::SystemTime;

use agent::AgentConfig;
use agent::config::{ClientIdentity, TargetTls};
use host::Host;
use server::ServerConfig;
use server::config::{InternalTls, TlsFiles};

use crate::apiserver::Tls;
use crate::certs::{Authority, Pem};
use crate::fabric::place_of;
use crate::host::EPOCH;
use crate::machine::Machine;
use crate::middlebox::PROXY_NAME;
use crate::stage::{API_NAME, CALLERS};

/// A machine's own certificate.
pub const CERT: &str = "/etc/postern/tls/tls.crt";

/// Its private key.
pub const KEY: &str = "/etc/postern/tls/tls.key";

/// The CAs whose certificates the machine believes, at the other end of the tunnel.
pub const CA: &str = "/etc/postern/tls/ca.crt";

/// The CA of the cluster's API server.
pub(crate) const TARGET_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// The URI in [`Issue::edge_1`].
pub const EDGE_1_URI: &str = "spiffe://hub/agent/edge-1";

/// What one authority issued.
pub struct Issue {
    /// Its own certificate.
    pub ca: String,
    /// The hub's.
    pub hub: Pem,
    /// The agents'.
    pub agent: Pem,
    /// One of its own for an agent of `edge-1`, by common name and by [`EDGE_1_URI`].
    pub edge_1: Pem,
    /// A caller's: `cn:caller`, `uri:spiffe://hub/argocd`.
    pub caller: Pem,
    /// A CONNECT proxy's, which is spoken to by TLS.
    pub proxy: Pem,
    /// The API servers'.
    api: Pem,
}

/// Made once for the process: what every world with TLS begins with.
pub static ISSUED: LazyLock<Issue> = LazyLock::new(|| all_of(&authority()).expect("certificates"));

/// Of another authority.
pub static NEW: LazyLock<Issue> = LazyLock::new(|| all_of(&authority()).expect("certificates"));

/// Of a third, good for the year in which worlds begin and no longer.
pub static SHORT: LazyLock<Issue> = LazyLock::new(|| {
    let mut authority = authority();
    authority.sign_for_years(1);
    all_of(&authority).expect("certificates")
});

/// Of whoever inspects TLS on the way out of a company's network.
pub static INSPECTION: LazyLock<Issue> = LazyLock::new(|| {
    host::tls::use_provider();
    let authority = Authority::named(SystemTime::UNIX_EPOCH + EPOCH, "Example Web Inspection CA", Some("Example Corp"));
    all_of(&authority.expect("an authority")).expect("certificates")
});

fn authority() -> Authority {
    host::tls::use_provider();
    Authority::new(SystemTime::UNIX_EPOCH + EPOCH).expect("an authority")
}

fn all_of(authority: &Authority) -> Result<Issue, rcgen::Error> {
    Ok(Issue {
        ca: authority.pem().certificate,
        hub: authority.server("hub", &["hub"])?,
        agent: authority.client("agent")?,
        edge_1: authority.client_of("edge-1", EDGE_1_URI)?,
        caller: authority.client_of("caller", "spiffe://hub/argocd")?,
        proxy: authority.server("proxy", &[PROXY_NAME])?,
        api: authority.server("kube-apiserver", &[API_NAME])?,
    })
}

/// Has the hub use the files.
pub(crate) fn plan_hub(config: &mut ServerConfig) {
    let client_ca = Some(CA.to_owned());
    config.tls = Some(TlsFiles { cert: CERT.to_owned(), key: KEY.to_owned(), client_ca, client_required: true });
    config.internal_tls = InternalTls::Optional;
}

/// Has agents use the files.
pub(crate) fn plan_agent(config: &mut AgentConfig) {
    config.server = "wss://hub:8443/connect".parse().expect("a server URL");
    config.server_ca_cert = Some(CA.to_owned());
    config.client_identity = Some(ClientIdentity { cert: CERT.to_owned(), key: KEY.to_owned() });
    plan_target(config);
}

/// Has agents use the file that they have of their API server.
pub(crate) fn plan_target(config: &mut AgentConfig) {
    config.target_tls = TargetTls::Verified { ca_cert: TARGET_CA.to_owned() };
}

/// Puts the files on a machine's disk. A caller knows the hub's CA and has no certificate until it is given one.
pub(crate) fn equip(machine: &Machine) {
    let disk = machine.disk();
    if CALLERS.contains(&machine.name()) {
        return disk.write(CA, ISSUED.ca.as_bytes());
    }
    let own = match machine.name() {
        name if name.contains("/api") => &ISSUED.api,
        name if place_of(name) == "hub" => &ISSUED.hub,
        _ => &ISSUED.agent,
    };
    for (path, content) in [(CERT, &own.certificate), (KEY, &own.key), (CA, &ISSUED.ca), (TARGET_CA, &ISSUED.ca)] {
        disk.write(path, content.as_bytes());
    }
}

/// TLS of an API server, if it has a certificate.
pub(crate) fn of_api_server(host: &Host) -> Result<Option<Tls>, String> {
    let (Ok(cert), Ok(key)) = (host.read_file(CERT), host.read_file(KEY)) else { return Ok(None) };
    Tls::new(&cert, &key).map(Some).map_err(|error| error.to_string())
}
