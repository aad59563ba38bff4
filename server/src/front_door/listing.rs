//! The list of clusters, for who may know of them.

use std::time::Duration;

use host::Source;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proxy::body::{Body, BoxError};

use super::refusal::Refusal;
use super::{Arrived, FrontDoor};
use crate::callers::Presented;
use crate::forward::{ANONYMOUS, Caller};

impl FrontDoor {
    /// Answers who asks for the list: a caller that is nobody as it would be for any cluster.
    pub(super) async fn list(&self, arrived: &Arrived, request: Request<Incoming>) -> Response<Body> {
        let peer = self.proxies.client(arrived.peer, request.headers());
        let mut caller = Caller { peer, name: ANONYMOUS.into(), admission: None };
        let (certificate, source) = (arrived.certificate.as_ref(), Source::of(peer.ip()));
        let mut delay = Duration::ZERO;
        let refusal = if self.is_anothers_page(&request) {
            Refusal::CrossSite
        } else if !self.callers.judges(certificate) {
            return self.lent.answer(&self.host, source, || self.overview.answer(&request, &|_| true));
        } else {
            let presented = Presented::by(peer.ip(), certificate.cloned(), request.headers());
            let token = presented.tokens.first().copied();
            let (name, seen) = self
                .callers
                .look(&presented, |may_reach| self.lent.answer(&self.host, source, || self.overview.answer(&request, may_reach)));
            caller.name = name;
            match seen {
                Ok(answer) => return answer,
                Err(refusal) => {
                    delay = self.delay_of(&refusal, peer, token);
                    refusal
                }
            }
        };
        let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
        let record = self.forward.record(&caller, "", &request);
        let answer = self.forward.refuse(refusal, record);
        // Behind its record: who leaves meanwhile was here all the same.
        tokio::time::sleep(delay).await;
        answer
    }
}
