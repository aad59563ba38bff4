//! The agent's own token as it stands in its file, which kubelet replaces long before the token expires.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::Host;
use http::header::HeaderValue;
use tokio::time::Instant;

use super::UpstreamError;

/// How old a reading may be: less than a round trip to most hubs, while requests may come by the thousand in a second. One
/// that was refused is read again at once.
pub(super) const AGE_MAX: Duration = Duration::from_millis(20);

/// A file with a bearer token.
pub(super) struct TokenFile {
    host: Host,
    path: String,
    last: Mutex<Option<(HeaderValue, Instant)>>,
}

impl TokenFile {
    pub(super) fn new(host: Host, path: String) -> Self {
        Self { host, path, last: Mutex::default() }
    }

    /// Where the token is.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The value of `Authorization`, from a reading that is fresh enough.
    pub(super) fn get(&self) -> Result<HeaderValue, UpstreamError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some((value, read_at)) if read_at.elapsed() < AGE_MAX => Ok(value),
            Some(_) | None => self.read(),
        }
    }

    /// The same, read now.
    pub(super) fn read(&self) -> Result<HeaderValue, UpstreamError> {
        let unreadable = |source| UpstreamError::Token { path: self.path.clone(), source };
        let bytes = self.host.read_file(&self.path).map_err(unreadable)?;
        let value = [b"Bearer ", bytes.trim_ascii()].concat();
        let mut value = HeaderValue::from_bytes(&value).map_err(|error| unreadable(io::Error::other(error)))?;
        value.set_sensitive(true);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((value.clone(), Instant::now()));
        Ok(value)
    }
}
