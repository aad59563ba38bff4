//! Access: what whoever is let in may do, as reviews tell it and as requests meet it. There are no roles and no users.

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

/// What everybody may do with resources. Whoever is let in may ask after its rights, the version and the health, as
/// `system:basic-user` and `system:public-info-viewer` allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    /// Everything.
    #[default]
    All,
    /// What changes nothing.
    ReadOnly,
    /// What the ClusterRole `view` allows: to read what is named, Secrets aside. No wildcard is among its rules.
    View,
    /// Nothing: a service account that nobody bound a role to.
    None,
}

impl Rights {
    /// Refuses a request for a resource as kube-apiserver does.
    pub(crate) fn check(self, method: &Method, path: &str) -> Result<(), Status> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::All => Ok(()),
            Self::ReadOnly if is_read => Ok(()),
            Self::View if is_read && !path.split('/').any(|segment| segment == "secrets") => Ok(()),
            Self::ReadOnly | Self::View | Self::None => {
                Err(Status::forbidden(format!("{path} is forbidden: User \"sim\" cannot do this")))
            }
        }
    }

    fn allows(self, verb: &str, resource: &str) -> bool {
        let is_read = matches!(verb, "get" | "list" | "watch");
        match self {
            Self::All => true,
            Self::ReadOnly => is_read,
            Self::View => is_read && !matches!(resource, "*" | "secrets"),
            Self::None => false,
        }
    }
}

/// Answers `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews`.
pub(crate) async fn answer(rights: Rights, request: Request<Incoming>) -> Result<Response<Body>, Status> {
    if request.method() != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let mut review = body::read_object(request).await?;
    if review["kind"] != KIND {
        return Err(Status::bad_request(format!("the body is no {KIND}")));
    }
    let attribute = |name: &str| review["spec"]["resourceAttributes"][name].as_str().unwrap_or_default();
    review["status"] = match rights.allows(attribute("verb"), attribute("resource")) {
        true => json!({ "allowed": true, "reason": "this simulation allows it" }),
        // kube-apiserver gives no reason when no rule matches.
        false => json!({ "allowed": false }),
    };
    Ok(body::json(StatusCode::CREATED, &review))
}
