//! TLS material that is handed on: somebody else will be the client, with what the files hold.

use std::sync::Arc;

use super::expiry::{self, Dated, Expiring};
use super::material::ClientMaterial;
use super::{ClientFiles, TlsError};
use crate::Host;
use crate::watched::{Contents, Watched};

/// What a client needs, as PEM. It has no `Debug`: one part is a secret.
pub struct ClientPem {
    /// Whom it believes.
    pub ca: Option<Vec<u8>>,
    /// Its certificate chain and private key, which fit together.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    dated: Vec<Dated>,
}

impl ClientPem {
    /// Reads `files` and goes on watching them; `name` says in logs and metrics whose they are.
    ///
    /// # Errors
    /// What would keep a client from using them.
    pub fn watch(host: &Host, name: &'static str, files: ClientFiles) -> Result<Arc<Watched<Self>>, TlsError> {
        let identity = files.identity.clone().map(|(cert, key)| [cert, key]);
        let paths = files.ca.iter().cloned().chain(identity.into_iter().flatten()).collect();
        let clock = host.clone();
        let pem = Watched::new(host, name, paths, move |contents: &Contents| Self::new(&clock, contents, &files))?;
        expiry::watch(host, name, &pem);
        Ok(pem)
    }

    fn new(host: &Host, contents: &Contents, files: &ClientFiles) -> Result<Self, TlsError> {
        // Without a CA the other machine's trust roots count, and not those of this one.
        let judged = ClientFiles { insecure: files.ca.is_none(), ..files.clone() };
        let dated = ClientMaterial::new(host, contents, &judged)?.dated().to_vec();
        let read = |path: &String| {
            let unread = |source| TlsError::Read { path: path.clone(), source };
            contents.of(path).map(<[u8]>::to_vec).map_err(unread)
        };
        let ca = files.ca.as_ref().map(read).transpose()?;
        let identity = files.identity.as_ref().map(|(cert, key)| Ok((read(cert)?, read(key)?))).transpose()?;
        Ok(Self { ca, identity, dated })
    }
}

impl Expiring for ClientPem {
    fn dated(&self) -> &[Dated] {
        &self.dated
    }
}
