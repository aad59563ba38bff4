//! DNS, proxy, TCP: whether there is a connection to the hub at all.

use std::io;

use host::tls::Failure;
use proxy::flags::HostPort;
use tokio::time::Instant;

use super::report::{Report, Step, Verdict};
use super::{Patient, bounded};
use crate::config::{HubProxy, Way};
use crate::connect::{DialError, ProxyError, proxy_cannot_reach_hub, wants_credentials};
use http::StatusCode;

impl Patient {
    /// Whether the hub, or the proxy on its behalf, took a connection.
    pub(super) async fn path(&self, report: &mut Report<'_>) -> bool {
        let dns = bounded(self.dns()).await;
        report.tell(Step::Dns, &dns);
        if matches!(dns, Verdict::Failed { .. }) {
            report.tell(Step::Proxy, &Verdict::needs(Step::Dns));
            report.tell(Step::Tcp, &Verdict::needs(Step::Dns));
            return false;
        }
        let began = Instant::now();
        let dialled = tokio::time::timeout(super::STEP_MAX, self.dialer.way.dial(&self.config.server)).await;
        let took = began.elapsed();
        let hub = self.hub();
        match dialled.unwrap_or(Err(DialError::TooLong)) {
            Ok(connection) => {
                report.tell(Step::Proxy, &self.proxy_is_fine());
                let by = match &self.config.way {
                    Way::Proxy(_) => format!("the proxy led to {hub}"),
                    Way::Straight | Way::Exempted { .. } => format!("{} took the connection", connection.peer()),
                };
                report.tell(Step::Tcp, &Verdict::fine(format!("{by} within {} ms", took.as_millis())));
                true
            }
            Err(DialError::Proxy(error)) => {
                report.tell(Step::Proxy, &proxy_failed(&error, &hub));
                report.tell(Step::Tcp, &Verdict::needs(Step::Proxy));
                false
            }
            Err(error) => {
                report.tell(Step::Proxy, &self.proxy_is_fine());
                report.tell(Step::Tcp, &self.tcp_failed(&error));
                false
            }
        }
    }

    /// The hub's name and port.
    pub(super) fn hub(&self) -> String {
        HostPort { host: self.config.server.host.clone(), port: self.config.server.port }.to_string()
    }

    async fn dns(&self) -> Verdict {
        let (whose, name, port, flag) = match self.config.way.proxy() {
            None => ("the hub", &self.config.server.host, self.config.server.port, "--server"),
            Some(HubProxy { host, port, .. }) => ("the proxy", host, *port, "--https-proxy"),
        };
        match self.host.resolve(name, port).await {
            Ok(addrs) => {
                let addrs: Vec<_> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
                let rest = if whose == "the proxy" { "; the hub's name is for the proxy to resolve" } else { "" };
                match addrs.as_slice() {
                    [only] if only == name => Verdict::fine(format!("{whose} is given by address, {name}{rest}")),
                    addrs => Verdict::fine(format!("{whose}, {name}, is {}{rest}", addrs.join(" "))),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Verdict::failed(
                format!("no answer for {name}, {whose}"),
                "The resolver does not answer, so open UDP and TCP port 53 from here to the cluster's DNS (a NetworkPolicy?) or look whether it runs.",
            ),
            Err(error) => {
                let behind_proxy = match &self.config.way {
                    Way::Straight => "; where only a proxy resolves it, give that by --https-proxy".to_owned(),
                    Way::Exempted { from, .. } => format!("; where only the proxy {from} resolves it, take it out of NO_PROXY"),
                    Way::Proxy(_) => String::new(),
                };
                Verdict::failed(
                    format!("{name}, {whose}, was not found: {error}"),
                    format!("This network's DNS does not know {name}, so correct {flag} or have the name entered{behind_proxy}."),
                )
            }
        }
    }

    fn proxy_is_fine(&self) -> Verdict {
        Verdict::fine(match &self.config.way {
            Way::Straight => "none is configured".to_owned(),
            Way::Exempted { from, by } => format!("{from} is configured and not used: {by}"),
            Way::Proxy(proxy) => format!("{proxy} leads on"),
        })
    }

    fn tcp_failed(&self, error: &DialError) -> Verdict {
        let hub = self.hub();
        let refused = matches!(error, DialError::Unreachable(source) if source.kind() == io::ErrorKind::ConnectionRefused);
        let fix = match (refused, &self.config.way) {
            (true, _) => {
                format!("Nothing listens at {hub}, so look whether the hub's public listener runs and --server has its port.")
            }
            (false, Way::Exempted { from, .. }) => format!(
                "Nothing answers at {hub}, so have outgoing TCP to it opened, or take it out of NO_PROXY if only the proxy {from} leads out of this network."
            ),
            (false, Way::Straight | Way::Proxy(_)) => format!(
                "Nothing answers at {hub}, so have outgoing TCP to it opened in the firewall, or give --https-proxy if only a proxy leads out of this network."
            ),
        };
        Verdict::failed(error.to_string(), fix)
    }
}

fn proxy_failed(error: &ProxyError, hub: &str) -> Verdict {
    let fix = match error {
        ProxyError::Unreachable { proxy, .. } => {
            format!("Nothing works at {proxy}, so correct --https-proxy (or HTTPS_PROXY), or look whether the proxy runs.")
        }
        ProxyError::Tls { source, .. } => proxy_tls_failed(Failure::of(source)).to_owned(),
        ProxyError::Refused { status, .. } if wants_credentials(*status) => {
            "The proxy wants another user and password, so write user:password into a file and give that by --proxy-credentials."
                .to_owned()
        }
        ProxyError::Refused { status, .. } if *status == StatusCode::FORBIDDEN => {
            format!("The proxy's rules forbid it, so have its people allow CONNECT to {hub}.")
        }
        ProxyError::Refused { status, .. } if proxy_cannot_reach_hub(*status) => {
            format!(
                "The proxy works and cannot reach the hub, so look whether the hub runs and have the proxy's people open its way to {hub}."
            )
        }
        ProxyError::Refused { .. } | ProxyError::NoProxy { .. } => {
            "What answers there takes no CONNECT, so correct --https-proxy (or HTTPS_PROXY) to name the network's HTTP proxy."
                .to_owned()
        }
        ProxyError::Silent { .. } => {
            format!(
                "The proxy takes connections and answers nothing, so have its people look at it, and at its own way to {hub}."
            )
        }
    };
    Verdict::failed(error.to_string(), fix)
}

/// What to do about a handshake with the proxy itself.
fn proxy_tls_failed(failure: Failure) -> &'static str {
    match failure {
        Failure::Issuer => "The proxy's own certificate is not believed, so give its CA by --proxy-ca-cert.",
        Failure::Name => {
            "The proxy's own certificate is for other names, so name it in --https-proxy (or HTTPS_PROXY) as its certificate does."
        }
        Failure::Expired | Failure::NotYetValid => {
            "The proxy's own certificate is not of this time by this machine's clock, so compare the clock, or have its people renew the certificate."
        }
        Failure::Certificate => "The proxy's own certificate is not usable, so have it made anew by the proxy's people.",
        Failure::NoTls => "The proxy speaks no TLS, so write http:// before its name.",
        Failure::Alert => "The proxy ended the handshake, so have its people look at its log for what it wants.",
        Failure::Silent => {
            "The proxy takes connections and says nothing, so have its people look whether it hangs, or write http:// if it is spoken to plainly."
        }
        Failure::Broken => {
            "The proxy cuts the handshake, so write http:// if it is spoken to plainly, or have its people look at its log."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_cannot_connect_is_not_told_to_be_no_proxy() {
        let proxy = "http://proxy:3128".to_owned();
        let refused = ProxyError::Refused { proxy, status: StatusCode::INTERNAL_SERVER_ERROR, reason: None };
        let told = format!("{:?}", proxy_failed(&refused, "hub:8443"));
        assert!(told.contains("The proxy works and cannot reach the hub"), "{told}");
    }
}
