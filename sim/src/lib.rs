//! The world in one thread: machines, links, people and misfortunes on a clock that stands still while nothing happens.
//!
//! `World` is the plan, `Story` the verbs a test says while it runs; README.md has them on one page. Below them:
//! `fabric` (the network), `host` (a machine as a program sees it), `machine` (programs that crash and restart),
//! `trace` (the transcript), `seed` (chance) and `promise` (what version 1 peers can keep). Stories that chance tells:
//! `moves` (what a walk may do), `errands` (what callers do meanwhile), `model` (what ought to come of it), `walk` (which
//! compares the two).

pub mod apiserver;
pub mod argocd;
pub mod caller;
pub mod certs;
mod checkers;
pub mod errands;
pub mod fabric;
pub mod host;
mod hostile;
pub mod kubectl;
pub mod machine;
pub mod middlebox;
pub mod model;
pub mod moves;
pub mod pki;
pub mod promise;
pub mod rogue;
pub mod seed;
mod stage;
pub mod stand_in;
pub mod story;
pub mod trace;
mod version_1;
pub mod walk;
pub mod world;
