//! The token that the agent shows its hub: fixed, or in a file that may change.

use std::sync::Arc;

use host::watched::{Contents, if_any};
use host::{Host, Watched};
use proxy::flags;
use secrecy::SecretString;

use crate::config::TunnelToken;

/// The token as it is now.
pub(crate) enum Token {
    Fixed(SecretString),
    File(Arc<Watched<SecretString>>),
}

impl Token {
    /// Reads the file, if it is in one.
    ///
    /// # Errors
    /// What is wrong with the file now.
    pub(crate) fn new(host: &Host, config: &TunnelToken) -> Result<Self, String> {
        match config {
            TunnelToken::Fixed(token) => Ok(Self::Fixed(token.clone())),
            TunnelToken::File(path) => {
                let (paths, path) = (vec![path.clone()], path.clone());
                Watched::new(host, "token", paths, move |contents| read_token(contents, &path)).map(Self::File)
            }
        }
    }

    pub(crate) fn get(&self) -> SecretString {
        match self {
            Self::Fixed(token) => token.clone(),
            Self::File(file) => SecretString::clone(&file.get()),
        }
    }

    /// How often it has changed.
    pub(crate) fn n_changes(&self) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            Self::File(file) => file.n_changes(),
        }
    }

    /// Resolves at the first change after this call, polled or not.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + use<> {
        if_any(match self {
            Self::Fixed(_) => None,
            Self::File(file) => Some(file.changed()),
        })
    }
}

/// The token in a file.
///
/// # Errors
/// What is wrong with it, never what it says.
pub(crate) fn read_token(contents: &Contents, path: &str) -> Result<SecretString, String> {
    let bytes = contents.of(path).map_err(|unread| format!("{path} cannot be read: {unread}"))?;
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{path} is no text"))?;
    flags::secret(text).map_err(|problem| format!("{path} {problem}"))
}
