//! The chain of two nginx, from the checked-in configuration.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;

use super::place::Place;
use super::process::Process;

const HUB: &str = include_str!("../../nginx/hub.conf");
const EDGE: &str = include_str!("../../nginx/edge.conf");

/// What `nginx -v` says, if nginx is installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned())
}

/// The two ends, and what the hub's end may be told to do.
pub(crate) struct Chain {
    pub(crate) hub: SocketAddr,
    /// Where the edge listens.
    pub(crate) edge: SocketAddr,
    /// Where the hub finds the edge: the same, or a link to it.
    pub(crate) to_edge: SocketAddr,
    pub(crate) upstream: SocketAddr,
    /// Whether answers are gathered before they are passed on; no for what streams.
    pub(crate) buffering: bool,
    /// Whether callers speak HTTP/2, and nothing else.
    pub(crate) http2: bool,
}

impl Chain {
    pub(crate) fn start_edge(&self, place: &Place) -> Result<Process> {
        start(place, "nginx-edge", "edge.conf", &self.fill(place, EDGE, self.edge), self.edge)
    }

    pub(crate) fn start_hub(&self, place: &Place) -> Result<Process> {
        start(place, "nginx-hub", "hub.conf", &self.fill(place, HUB, self.to_edge), self.hub)
    }

    fn fill(&self, place: &Place, template: &str, edge: SocketAddr) -> String {
        template
            .replace("@DIR@", &place.dir().display().to_string())
            .replace("@CERTS@", &place.cert("").display().to_string())
            .replace("@HUB_PORT@", &self.hub.port().to_string())
            .replace("@EDGE_PORT@", &edge.port().to_string())
            .replace("@UPSTREAM_PORT@", &self.upstream.port().to_string())
            .replace("@HTTP2@", if self.http2 { "http2" } else { "" })
            .replace("@BUFFERING@", if self.buffering { "on" } else { "off" })
    }
}

fn start(place: &Place, name: &str, file: &str, text: &str, listens: SocketAddr) -> Result<Process> {
    let path = place.file(file);
    fs::write(&path, text)?;
    let mut command = Command::new("nginx");
    // The log named here is for what happens before the configuration's own is open.
    command.arg("-p").arg(place.dir()).arg("-e").arg("stderr").arg("-c").arg(&path);
    let mut process = place.start(name, &mut command)?;
    process.until_listening(listens)?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::stop::Stop;

    #[test]
    fn every_word_of_the_templates_is_filled_in() {
        let place = Place::fake(Stop::on_signals().unwrap());
        let [hub, edge, upstream] = super::super::place::free_addresses().unwrap();
        let chain = Chain { hub, edge, to_edge: edge, upstream, buffering: false, http2: true };
        for template in [HUB, EDGE] {
            let text = chain.fill(&place, template, edge);
            assert!(!text.contains('@'), "{text}");
            assert!(text.contains("proxy_buffering off"), "{text}");
        }
    }
}
