//! What Argo CD is given to reach the front door with: the `config` of every cluster Secret, made of watched files.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host::tls::{ClientPem, TlsError};
use host::watched::if_any;
use host::{Host, Watched};
use proxy::flags;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, json};

use crate::config::argocd::ArgoCdConfig;

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    /// CA, certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token.
    #[error("{path} {problem}")]
    Token { path: String, problem: String },
}

impl MaterialError {
    /// The file that is to blame.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Tls(error) => error.path(),
            Self::Token { path, .. } => path,
        }
    }
}

/// The files, as they are now.
pub(crate) struct Material {
    is_https: bool,
    pem: Option<Arc<Watched<ClientPem>>>,
    token: Option<Arc<Watched<SecretString>>>,
}

impl Material {
    /// Reads the files and goes on watching them.
    ///
    /// # Errors
    /// What is wrong with them now.
    pub(crate) fn new(host: &Host, config: &ArgoCdConfig) -> Result<Self, MaterialError> {
        let has_pem = config.files.ca.is_some() || config.files.identity.is_some();
        let pem = has_pem.then(|| ClientPem::watch(host, "argocd", config.files.clone())).transpose()?;
        let token = config.token_file.as_ref().map(|path| {
            let its = path.clone();
            Watched::new(host, "argocd-token", vec![path.clone()], move |contents| {
                let wrong = |problem: String| MaterialError::Token { path: its.clone(), problem };
                let bytes = contents.of(&its).map_err(|unread| wrong(format!("cannot be read: {unread}")))?;
                let text = std::str::from_utf8(bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
                flags::secret(text).map_err(wrong)
            })
        });
        Ok(Self { is_https: config.is_https(), pem, token: token.transpose()? })
    }

    /// Resolves at the first change after this call.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let pem = if_any(self.pem.as_ref().map(|pem| pem.changed()));
        let token = if_any(self.token.as_ref().map(|token| token.changed()));
        async {
            tokio::select! {
                biased;
                () = pem => {}
                () = token => {}
            }
        }
    }

    /// The JSON that Argo CD reads (its declarative setup: clusters).
    pub(crate) fn config(&self) -> Vec<u8> {
        // Over plain http it has no effect, and people read in it that nothing is verified.
        let mut tls = Map::from_iter([("insecure".to_owned(), (!self.is_https).into())]);
        if let Some(pem) = self.pem.as_ref().map(|pem| pem.get()) {
            let identity = pem.identity.as_ref();
            let parts = [
                ("caData", pem.ca.as_ref()),
                ("certData", identity.map(|(cert, _)| cert)),
                ("keyData", identity.map(|(_, key)| key)),
            ];
            for (key, bytes) in parts.into_iter().filter_map(|(key, bytes)| Some((key, bytes?))) {
                tls.insert(key.to_owned(), STANDARD.encode(bytes).into());
            }
        }
        let mut config = json!({ "tlsClientConfig": tls });
        if let Some(token) = &self.token {
            config["bearerToken"] = token.get().expose_secret().into();
        }
        config.to_string().into_bytes()
    }
}
