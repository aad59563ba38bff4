//! Kubeconfigs, as written for a kubectl that asks an upstream itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// Writes a kubeconfig for `server` with a CA and a bearer token. (JSON is YAML.)
pub(crate) fn write(path: &Path, server: &str, ca_pem: &str, token: &str) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority-data": BASE64_STANDARD.encode(ca_pem)}}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    });
    fs::write(path, config.to_string()).with_context(|| path.display().to_string())
}

/// The API server's `HOST:PORT` and CA in a flattened, minified kubeconfig.
pub(crate) fn endpoint(config: &Value) -> Result<(String, Vec<u8>)> {
    let cluster = &config["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().context("the kubeconfig names no server")?;
    let authority = server.strip_prefix("https://").context("the kubeconfig's server is not https")?.trim_end_matches('/');
    let has_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let target = if has_port { authority.to_owned() } else { format!("{authority}:443") };
    let ca = cluster["certificate-authority-data"].as_str().context("the kubeconfig has no certificate authority")?;
    Ok((target, BASE64_STANDARD.decode(ca).context("certificate-authority-data")?))
}
