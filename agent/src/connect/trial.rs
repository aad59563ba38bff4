//! Dials that bring no session to serve: a question to the hub, and a trial of the way.

use std::time::SystemTime;

use host::Connection;
use http::header::{DATE, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822;
use tokio::time::timeout;
use tunnel::trial::{self, Trial};
use tunnel::{Budget, Protocol, Role, SessionConfig, SessionHandle, TunnelStream, handshake};

use super::DialError;
use super::dial::{Dialer, Purpose, UPGRADE_MAX};

/// What the hub answers to who asks for no upgrade.
pub(crate) struct Word {
    pub(crate) status: StatusCode,
    /// The beginning of what it says, printable.
    pub(crate) text: String,
    /// Its clock.
    pub(crate) date: Option<SystemTime>,
    /// It wants an upgrade to a WebSocket, as hubs of all versions say (RFC 6455 section 4.4) and gateways do not.
    pub(crate) wants_websocket: bool,
    /// It tells a trial from a session.
    pub(crate) knows_trials: bool,
}

/// A trial of the way, which no running session learns of.
pub(crate) struct OpenTrial {
    pub(crate) trial: Trial<TunnelStream>,
    handle: SessionHandle,
}

impl Drop for OpenTrial {
    fn drop(&mut self) {
        self.handle.close(tunnel::Reason::Done);
    }
}

/// Memory of a trial: the credit of one stream, which grows on a way that is long and wide.
const TRIAL_BUDGET: usize = 4 << 20;

impl Dialer {
    /// Asks the hub for its time of day over a connection whose other end may be anybody: nothing is shown.
    pub(crate) async fn ask_time(&self, connection: Connection) -> Result<Word, DialError> {
        self.ask(connection, Purpose::Time).await
    }

    /// Shows the token and asks for no upgrade, so that no session begins.
    pub(crate) async fn ask_leave(&self, connection: Connection) -> Result<Word, DialError> {
        self.ask(connection, Purpose::Leave).await
    }

    async fn ask(&self, connection: Connection, purpose: Purpose) -> Result<Word, DialError> {
        let asked = timeout(UPGRADE_MAX, async {
            let (response, _) = self.exchange(connection, purpose).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let text = self.text_of(response).await;
            let knows_trials = status == StatusCode::UPGRADE_REQUIRED && is_offered(&headers);
            let wants_websocket = matches!(status, StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST)
                && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
            Ok(Word { status, text, date: date(&headers), wants_websocket, knows_trials })
        });
        asked.await.unwrap_or(Err(DialError::Silent))
    }

    /// Begins a trial with a hub that knows them.
    pub(crate) async fn try_out(&self, connection: Connection) -> Result<OpenTrial, DialError> {
        let upgraded = self.upgrade(connection, Purpose::Trial).await?;
        if !is_offered(&upgraded.headers) || upgraded.protocol != Protocol::Extended {
            // Dropped before its hello, without which nothing is a session to the hub.
            return Err(DialError::NotWebSocket("its answer to a trial is that to a session".to_owned()));
        }
        let budget = std::sync::Arc::new(Budget::new(TRIAL_BUDGET));
        let silent = SessionConfig {
            name: format!("{} trial", crate::PROGRAM),
            streams_max: 1,
            ping_interval: trial::TIME_MAX,
            silence_max: trial::TIME_MAX,
            ..SessionConfig::new(Role::Agent, Protocol::Extended, budget)
        };
        let (handle, mut incoming, driver) = tunnel::start(silent, upgraded.connection, upgraded.early).await;
        self.host.spawn("trial", async move { drop(driver.run().await) });
        let open_trial = |trial| OpenTrial { trial, handle: handle.clone() };
        handle.established().await.map_err(DialError::NoHello)?;
        match timeout(UPGRADE_MAX, incoming.next()).await {
            Ok(Some((_, stream))) => {
                stream.accept();
                Ok(open_trial(Trial::new(stream)))
            }
            Ok(None) => Err(DialError::NoHello(handle.ended().await)),
            Err(_) => Err(DialError::Silent),
        }
    }
}

/// The headers by which a purpose is told.
pub(super) fn headers_of(purpose: Purpose) -> &'static [(&'static str, &'static str)] {
    match purpose {
        Purpose::Session => &[(handshake::HEADER, handshake::OFFER)],
        Purpose::Trial => &[(handshake::HEADER, handshake::OFFER), (trial::HEADER, trial::OFFER)],
        Purpose::Leave | Purpose::Time => &[],
    }
}

fn is_offered(headers: &HeaderMap) -> bool {
    headers.get(trial::HEADER).is_some_and(|value| value == trial::OFFER)
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let date = rfc2822::parse(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(date.timestamp().into())
}
