//! Every "no" of the guard, and what a caller is told of it.

use std::fmt;

use http::{Method, Request, StatusCode};
use proxy::hygiene;
use proxy::status::Status;

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is nothing that a server sends.
    Flawed(Flaw),
    /// It asks to be somebody whom it may not be; why.
    Impersonation(String),
    /// The cluster is frozen.
    Frozen,
    /// Path or query could be read in two ways, or the method is none that a policy speaks of.
    Unclear(&'static str),
    /// The cluster is read-only.
    ReadOnly,
    /// Nobody may enter pods.
    Exec,
    /// Nobody may have to do with Secrets.
    Secrets,
    /// The rule of this index denies it.
    Denied(usize),
    /// No rule allows it.
    NotAllowed,
}

impl Refused {
    /// The metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Flawed(_) => "flawed",
            Self::Impersonation(_) => "impersonation",
            Self::Frozen => "frozen",
            Self::Unclear(_) => "unclear",
            Self::ReadOnly => "readOnly",
            Self::Exec => "exec",
            Self::Secrets => "secrets",
            Self::Denied(_) => "deny",
            Self::NotAllowed => "allow",
        }
    }

    /// What the caller is told.
    pub(crate) fn status(&self) -> Status {
        let message = format!("postern agent: {self}");
        let forbidden = |message| Status::failure(StatusCode::FORBIDDEN, "Forbidden", message);
        match self {
            Self::Flawed(flaw) => {
                Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message).cause(flaw.cause(), "refused by the agent")
            }
            Self::Impersonation(_) => forbidden(message).cause("Impersonation", "refused by the agent"),
            // Without a hint to try again: a cluster is frozen for hours, and a caller that repeats would hide why.
            Self::Frozen => {
                Status::failure(StatusCode::SERVICE_UNAVAILABLE, "Frozen", message).cause("Frozen", "refused by the agent")
            }
            Self::Unclear(_) | Self::ReadOnly | Self::Exec | Self::Secrets | Self::Denied(_) | Self::NotAllowed => {
                forbidden(message).cause("Guard", self.rule())
            }
        }
    }

    /// The words of the policy that refuse it.
    fn rule(&self) -> String {
        match self {
            Self::Denied(index) => format!("deny[{index}]"),
            Self::Flawed(_)
            | Self::Impersonation(_)
            | Self::Frozen
            | Self::Unclear(_)
            | Self::ReadOnly
            | Self::Exec
            | Self::Secrets
            | Self::NotAllowed => self.label().to_owned(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flawed(flaw) => flaw.fmt(f),
            Self::Impersonation(why) => f.write_str(why),
            Self::Frozen => f.write_str("the cluster is frozen by its own people"),
            Self::Unclear(what) => write!(f, "the cluster's guard refuses what can be read in two ways: {what}"),
            Self::ReadOnly | Self::Exec | Self::Secrets | Self::Denied(_) | Self::NotAllowed => {
                write!(f, "the cluster's guard refuses this: {}", self.rule())
            }
        }
    }
}

/// What no server sends, whatever a policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// CONNECT, which asks for another place, or TRACE, which would show the agent's token to the caller.
    Method,
    /// A target that names another place than ours, or none.
    Target,
    /// A body in a coding that is none of ours.
    Coding,
}

impl Flaw {
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            Some(Self::Method)
        } else if request.uri().authority().is_some() || !request.uri().path().starts_with('/') {
            Some(Self::Target)
        } else if hygiene::is_coded(request.headers()) {
            Some(Self::Coding)
        } else {
            None
        }
    }

    /// A word for programs.
    fn cause(self) -> &'static str {
        match self {
            Self::Method => "BadMethod",
            Self::Target => "BadTarget",
            Self::Coding => "Coded",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "CONNECT and TRACE are not forwarded",
            Self::Target => "the request target is not a path",
            Self::Coding => "a body has no transfer coding but chunked, once",
        })
    }
}
