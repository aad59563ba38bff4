//! What both ends of a proxied Kubernetes request share: header hygiene, requests as the API server reads them,
//! impersonation, Status bodies, the byte pump of upgrades, rate limits, the audit log, and the flags of both programs.
//!
//! Knows neither the tunnel nor a Kubernetes client.

pub mod audit;
pub mod body;
pub mod expect;
pub mod file;
pub mod flags;
pub mod head;
pub mod health;
pub mod hygiene;
pub mod impersonation;
pub mod limits;
pub mod plain;
pub mod program;
pub mod request;
pub mod status;
pub mod traces;
pub mod trailers;
pub mod upgrade;
