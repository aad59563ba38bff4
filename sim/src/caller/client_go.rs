//! client-go's persistence (rest/with_retry.go): any verb is sent again after a 429 or 5xx that carries `Retry-After`,
//! body and all; after a broken connection only a GET is.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{Answer, Call, Caller, Reply};

/// Attempts after the first (what `NewRequest` sets).
const RETRIES_MAX: usize = 10;

/// The pause before a GET whose connection broke is sent again.
const BROKEN_PAUSE: Duration = Duration::from_secs(1);

impl Caller {
    /// Sends what `make` makes, again and again as client-go does, and collects the last answer.
    ///
    /// # Errors
    /// No answer came, or its body was aborted.
    pub async fn persist(&self, make: impl Fn() -> Call) -> anyhow::Result<Reply> {
        self.persist_open(make).await?.reply().await
    }

    /// Like [`Caller::persist`], but leaves the body of the last answer to the caller.
    ///
    /// # Errors
    /// No answer came.
    pub async fn persist_open(&self, make: impl Fn() -> Call) -> anyhow::Result<Answer> {
        let write = self.ledger.begin_write();
        for _ in 0..RETRIES_MAX {
            let mut call = make();
            call.write = Some(write);
            let is_get = call.method == Method::GET;
            match call.open().await {
                Ok(answer) => {
                    let Some(pause) = pause(&answer) else { return Ok(answer) };
                    // Read out, so that the connection can be used again; how it ends is nobody's concern.
                    let _ = answer.reply().await;
                    tokio::time::sleep(pause).await;
                }
                Err(_) if is_get => tokio::time::sleep(BROKEN_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        let mut call = make();
        call.write = Some(write);
        call.open().await
    }
}

/// How long to wait before the next attempt, if there should be one.
fn pause(answer: &Answer) -> Option<Duration> {
    let asks = answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error();
    let seconds = answer.headers.get("retry-after").filter(|_| asks)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
