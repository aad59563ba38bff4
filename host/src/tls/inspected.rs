//! A file of certificates looked at before anybody uses it.

use crate::Host;
use crate::certificate::Described;
use crate::watched::Contents;

use super::TlsError;
use super::material::certificates;

/// What the certificates of a file say of themselves, in the file's order.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn inspect(host: &Host, path: &str) -> Result<Vec<Described>, TlsError> {
    let contents = Contents::read(host, &[path.to_owned()]);
    let chain = certificates(&contents, path)?;
    let unreadable = || TlsError::Unusable { path: path.to_owned(), reason: "a certificate in it cannot be read".to_owned() };
    chain.iter().map(|certificate| Described::of(certificate).ok_or_else(unreadable)).collect()
}
