//! What RBAC allows the agent's service account, and with it everybody who comes through the tunnel.

use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Patient;
use super::cluster::{SILENT, Unanswered};
use super::report::Verdict;

/// Where an API server says what whoever asks may do.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// One thing that somebody may want to do, in all namespaces.
struct Wish {
    what: &'static str,
    /// Verb, group, resource, subresource; all must be allowed.
    needs: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

/// What is asked for, from the broad to the particular.
const WISHES: [Wish; 8] = [
    Wish { what: "everything", needs: &[("*", "*", "*", "")] },
    Wish { what: "read everything", needs: &[("get", "*", "*", ""), ("list", "*", "*", ""), ("watch", "*", "*", "")] },
    Wish {
        what: "change everything",
        needs: &[("create", "*", "*", ""), ("update", "*", "*", ""), ("patch", "*", "*", ""), ("delete", "*", "*", "")],
    },
    // What the ClusterRole view, which allows no wildcard, grants.
    Wish { what: "read pods", needs: &[("list", "", "pods", "")] },
    Wish { what: "read Secrets", needs: &[("get", "", "secrets", "")] },
    Wish { what: "exec into pods", needs: &[("create", "", "pods", "exec")] },
    Wish { what: "forward ports", needs: &[("create", "", "pods", "portforward")] },
    Wish { what: "impersonate users", needs: &[("impersonate", "", "users", "")] },
];

/// The places of wishes in [`WISHES`] that the verdict depends on.
const EVERYTHING: usize = 0;
const READ: usize = 1;
const CHANGE: usize = 2;

#[derive(Deserialize)]
struct Review {
    status: Answer,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    allowed: bool,
}

/// Why it is not known what is allowed.
enum Unreviewed {
    Silent(String),
    Refused(String),
}

impl Patient {
    pub(super) async fn rights(&self) -> Verdict {
        let mut granted = Vec::new();
        for wish in &WISHES {
            match self.is_granted(wish).await {
                Ok(is) => granted.push(is),
                Err(Unreviewed::Silent(why)) => return Verdict::failed(why, SILENT),
                Err(Unreviewed::Refused(why)) => {
                    return Verdict::failed(
                        why,
                        "The API server does not say what the service account may do, so look whether system:basic-user is still bound to system:authenticated.",
                    );
                }
            }
        }
        verdict(&granted)
    }

    async fn is_granted(&self, wish: &Wish) -> Result<bool, Unreviewed> {
        for (verb, group, resource, subresource) in wish.needs {
            let attributes = json!({ "verb": verb, "group": group, "resource": resource, "subresource": subresource });
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": { "resourceAttributes": attributes },
            });
            let request = Request::builder().method(Method::POST).uri(REVIEWS).header(CONTENT_TYPE, "application/json");
            let (status, text) =
                self.ask_api_server(request.body(review.to_string().into_bytes())).await.map_err(|error| match error {
                    Unanswered::Silent { .. } => Unreviewed::Silent(error.to_string()),
                    Unanswered::Upstream(error) => Unreviewed::Refused(error.to_string()),
                })?;
            if status != StatusCode::CREATED && status != StatusCode::OK {
                let why = format!("the API server answered {status} to a SelfSubjectAccessReview");
                return Err(Unreviewed::Refused(why));
            }
            let review: Review = serde_json::from_slice(&text)
                .map_err(|_| Unreviewed::Refused("the answer to a SelfSubjectAccessReview is none".to_owned()))?;
            if !review.status.allowed {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn verdict(granted: &[bool]) -> Verdict {
    let lines: Vec<_> =
        WISHES.iter().zip(granted).map(|(wish, is)| format!("{:<18} {}", wish.what, if *is { "yes" } else { "no" })).collect();
    let seen = format!("what the service account may do in all namespaces:\n{}", lines.join("\n"));
    let may = |wish: usize| granted.get(wish) == Some(&true);
    if may(EVERYTHING) {
        return Verdict::fine(format!("{seen}\nand so may whoever the hub lets through; a guard (--guard) narrows that down"));
    }
    if !granted.contains(&true) {
        return Verdict::warning(
            seen,
            "RBAC gives the agent's service account none of these in all namespaces (a Role in single namespaces may still allow things there), so bind a ClusterRole to it (for Argo CD cluster-admin, or view for reading alone).",
        );
    }
    if !may(READ) {
        return Verdict::warning(
            seen,
            "Argo CD lists and watches everything, so bind a ClusterRole that may get, list and watch \"*\", or tell Argo CD which resources and namespaces there are for it.",
        );
    }
    if !may(CHANGE) {
        return Verdict::warning(
            seen,
            "Argo CD can show this cluster and not sync it, so bind a ClusterRole that may create, update, patch and delete what it is to sync.",
        );
    }
    Verdict::Fine(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_decides_the_verdict() {
        let verdict_of = |text: &str| verdict(&text.bytes().map(|byte| byte == b'y').collect::<Vec<_>>());
        assert!(matches!(verdict_of("yyyyyyyy"), Verdict::Fine(_)));
        assert!(matches!(verdict_of("nyyyynnn"), Verdict::Fine(_)));
        for (granted, expected) in [
            ("nynyyynn", "not sync it"),
            ("nnnynnnn", "lists and watches everything"),
            ("nnnnnnnn", "a Role in single namespaces may still allow things there"),
        ] {
            let Verdict::Warning { fix, .. } = verdict_of(granted) else { panic!("{granted}") };
            assert!(fix.contains(expected), "{fix}");
        }
    }
}
