//! The parts of the end-to-end suites: real processes, real API servers and a real kubectl on loopback.
//!
//! A [`Scene`] is one [`Upstream`] (the fake API server, a kube-apiserver, a cluster) with a [`Pair`] of server and agent in
//! front of it, and two [`Kubectl`]s: one through the tunnel, one that asks the upstream itself. A [`Suite`] runs named
//! steps on it. A [`Fleet`] is a server and clusters on separate hosts, which can be cut, paused and crashed. [`Shipped`] is two
//! clusters with the images and charts as they ship. Nothing here links product code: what is tested is what people install.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "drives real processes in real time"
)]

mod apiserver;
mod binary;
mod browser;
mod client;
mod cluster;
mod collector;
pub mod corpus;
mod fault;
mod fleet;
mod http;
mod image;
mod kubeconfig;
mod kubectl;
mod mount;
mod namespaces;
mod pair;
mod plain;
mod process;
mod prometheus;
pub mod requirement;
mod scene;
mod shipped;
mod suite;
mod upstream;
mod wait;

pub use binary::product;
pub use browser::Browser;
pub use client::Client;
pub use cluster::{Source, delete_kind_cluster};
pub use collector::{Collector, Delivered};
pub use fault::Fault;
pub use fleet::{Call, Fleet, HUB};
pub use http::{Answer, get, get_within, post};
pub use image::Images;
pub use kubectl::{Kubectl, Output, call};
pub use mount::Mount;
pub use pair::{CLUSTER_ID, Pair, TUNNEL_TOKEN, write_certs};
pub use plain::Plain;
pub use process::{Process, free_addr};
pub use prometheus::{Prometheus, Sample, promtool};
pub use scene::Scene;
pub use shipped::{AGENT, ASKED, Authority, Census, Counts, Names, Place, SERVER, Shipped, Way, allows};
pub use suite::Suite;
pub use upstream::{Kind, Upstream};
pub use wait::wait_for;
