//! Trials of agents: sessions that somebody at the agent's end tries the way with. None is known to the registry, so none
//! ever carries a request or takes the place of a running agent's.

use std::sync::Arc;

use host::{Connection, Place};
use http::HeaderMap;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proxy::body::Body;
use proxy::plain::text;
use tracing::Instrument;
use tunnel::frame::{Class, Open};
use tunnel::id::ClusterId;
use tunnel::{Protocol, Reason, SessionConfig, trial};

use super::{Admitted, Agents, RETRY_SOON};

/// Trials of one cluster at once: the eight silences that one run of the agent's doctor tries side by side, and those by which it
/// measured before, which may end a moment later. Each holds a socket and no more than a session's credit.
pub(super) const TRIALS_PER_CLUSTER_MAX: usize = 10;

/// Whether an upgrade asks for one.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.get(trial::HEADER).is_some_and(|value| value == trial::OFFER)
}

/// Says that trials are known here.
pub(super) fn offer(response: &mut Response<Body>) {
    response.headers_mut().insert(trial::HEADER, HeaderValue::from_static(trial::OFFER));
}

impl Agents {
    /// Begins a trial once its upgrade has come about.
    ///
    /// # Errors
    /// The answer to who asks for one too many, or for one over version 1, which is not told from a session there.
    pub(super) fn begin_trial(
        self: &Arc<Self>,
        admitted: Admitted,
        protocol: Protocol,
        upgraded: OnUpgrade,
    ) -> Result<(), Box<Response<Body>>> {
        if protocol != Protocol::Extended {
            return Err(Box::new(text(StatusCode::BAD_REQUEST, "a trial is of version 2")));
        }
        let Some(place) = self.sessions.trials_of_cluster.take(&admitted.cluster) else {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "the cluster has too many trials");
            response.headers_mut().insert(RETRY_AFTER, RETRY_SOON);
            return Err(Box::new(response));
        };
        let agents = self.clone();
        let span = tracing::info_span!("trial", cluster = %admitted.cluster);
        let trial = async move {
            match upgraded.await {
                Ok(upgraded) => agents.hold_trial((admitted, place), upgraded).await,
                Err(error) => tracing::info!(%error, "a trial's upgrade did not come about"),
            }
        };
        self.host.spawn("trial", trial.instrument(span));
        Ok(())
    }

    /// Holds a trial to its end, which is its agent's, the drain's or that of its time.
    async fn hold_trial(&self, _places: (Admitted, Place<ClusterId>), upgraded: hyper::upgrade::Upgraded) {
        let Ok(parts) = upgraded.downcast::<TokioIo<Connection>>() else {
            tracing::error!("an agent's connection is not of the kind that was accepted");
            return;
        };
        // A silence is not tried by who breaks it.
        let silent = SessionConfig {
            streams_max: 1,
            ping_interval: trial::TIME_MAX,
            silence_max: trial::TIME_MAX,
            ..self.sessions.config(Protocol::Extended)
        };
        let (handle, _incoming, driver) = tunnel::start(silent, parts.io.into_inner(), parts.read_buf).await;
        let serving = handle.clone();
        let errands = async {
            serving.established().await.map_err(std::io::Error::other)?;
            tracing::info!("trial up");
            let open = Open { class: Class::Interactive, request_id: "trial".to_owned(), ..Open::default() };
            trial::serve(serving.open(open).map_err(std::io::Error::other)?).await
        };
        let mut drain = self.drain.clone();
        let over = async {
            tokio::select! {
                biased;
                () = drain.started() => {}
                done = tokio::time::timeout(trial::TIME_MAX, errands) => tracing::debug!(?done, "trial done"),
            }
            handle.close(Reason::Done);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            error = driver.run() => tracing::info!(%error, "trial down"),
            () = over => {}
        }
    }
}
