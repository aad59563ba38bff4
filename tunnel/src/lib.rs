//! The wire and the session.

pub mod id;
