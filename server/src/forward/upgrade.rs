//! Exec, attach, port-forward: after the 101 two raw connections, each direction closed on its own.

use host::Host;
use http::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proxy::body::Body;

use super::answer::Continued;
use super::exchange::Alive;

/// Pumps bytes between the caller and the stream once both have switched. The caller's side switches only after our 101
/// was written, so this runs beside the answer.
pub(super) fn pump(host: &Host, caller_side: OnUpgrade, response: &mut Response<Body>, alive: Alive, mut account: Continued) {
    let upstream_side = hyper::upgrade::on(response);
    host.spawn("upgrade", async move {
        let (upstream, caller) = match (upstream_side.await, caller_side.await) {
            (Ok(upstream), Ok(caller)) => (upstream, caller),
            (Err(error), _) | (_, Err(error)) => {
                account.ended(&format!("an upgrade did not come about: {error}"));
                return;
            }
        };
        // From here on the streams themselves say how long it lasts.
        drop(alive);
        let end = proxy::upgrade::pump(TokioIo::new(caller), TokioIo::new(upstream), &account.pumped).await;
        account.ended(&end.map_or_else(|error| error.to_string(), |()| "whole".to_owned()));
    });
}
