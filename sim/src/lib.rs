//! The world in one thread: machines, links, people and misfortunes on a clock that stands still while nothing happens.
//!
//! `World` is the plan, `Story` the verbs a test says while it runs; README.md has them on one page. Below them:
//! `fabric` (the network), `host` (a machine as a program sees it), `machine` (programs that crash and restart),
//! `trace` (the transcript) and `seed` (chance).

pub mod apiserver;
pub mod argocd;
pub mod caller;
pub mod certs;
mod checkers;
pub mod fabric;
pub mod host;
mod hostile;
pub mod kubectl;
pub mod machine;
pub mod seed;
mod stage;
pub mod story;
pub mod trace;
mod version_1;
pub mod world;
