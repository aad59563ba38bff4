//! Access reviews: the fake has no authorization, so whoever is let in may do everything, and is told so.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::body::{self, Body};
use super::status::Status;

/// Group and version.
pub(crate) const GROUP: (&str, &str) = ("authorization.k8s.io", "v1");

/// The one review that is served.
pub(crate) const PLURAL: &str = "selfsubjectaccessreviews";
pub(crate) const KIND: &str = "SelfSubjectAccessReview";

/// Answers `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews`.
pub(crate) async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Status> {
    if request.method() != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let mut review = body::read_object(request).await?;
    if review["kind"] != KIND {
        return Err(Status::bad_request(format!("the body is no {KIND}")));
    }
    review["status"] = json!({ "allowed": true, "reason": "this simulation allows everything" });
    Ok(body::json(StatusCode::CREATED, &review))
}
