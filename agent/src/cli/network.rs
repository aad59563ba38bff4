//! The flags and variables about the way to the hub: proxy, exemptions from it, keepalive.

use std::time::Duration;

use host::Host;
use host::watched::Contents;
use proxy::flags::{self, Env, Flag, Section, Values};

use crate::config::exemptions::{Exemptions, is_own_machine};
use crate::config::{AgentConfig, HubProxy, ProxyCredentials, Way};
use crate::connect;

/// How seldom the hub may be pinged at most: what the protocol does by itself, by which a session that was cut is replaced
/// in the time that is promised.
const KEEPALIVE_MAX: Duration = Duration::from_secs(8);

/// How often at most: no middlebox that people keep forgets sooner than in two seconds, and a fleet's pings are the hub's work.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

pub(super) const SECTION: Section = Section {
    title: "Network",
    flags: &[
        Flag::value(
            "https-proxy",
            "URL",
            "HTTP proxy on the way to the hub, http:// or https://; empty = none, whatever the environment says",
        )
        .env("HTTPS_PROXY"),
        Flag::value("no-proxy", "LIST", "Hosts, .domains, networks that are dialled past it, as Go reads NO_PROXY")
            .env("NO_PROXY"),
        Flag::value("proxy-credentials", "FILE", "A file with user:password for the proxy, read again when it changes"),
        Flag::value("proxy-ca-cert", "FILE", "CA of an https:// proxy's own certificate; else the machine's own roots"),
        Flag::value("keepalive", "TIME", "Ping a hub that was silent for so long, 1s to 8s; 8s is what happens without"),
    ],
};

/// The environment with the lower-case spelling of a proxy's variables, which counts where the other is not set.
pub(super) fn with_lower_case<'a>(env: Env<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    move |name| {
        let given = env(name).filter(|text| !text.is_empty());
        given.or_else(|| if name.ends_with("_PROXY") { env(&name.to_ascii_lowercase()) } else { None })
    }
}

/// Reads the section; the hub's URL is known by now.
pub(super) fn read(values: &mut Values, host: &Host, config: &mut AgentConfig, warnings: &mut Vec<String>) {
    config.way = read_way(values, host, config, warnings);
    config.keepalive = values.get("keepalive", keepalive);
}

fn keepalive(text: &str) -> Result<Duration, String> {
    let time = flags::duration(text)?;
    if (KEEPALIVE_MIN..=KEEPALIVE_MAX).contains(&time) { Ok(time) } else { Err(format!("{text:?} is not between 1s and 8s")) }
}

fn read_way(values: &mut Values, host: &Host, config: &AgentConfig, warnings: &mut Vec<String>) -> Way {
    let is_from_env = values.is_from_env("https-proxy");
    let proxy = values.get("https-proxy", |text| Ok(flags::optional(str::parse::<HubProxy>)(text)));
    let ca_cert = values.get("proxy-ca-cert", flags::optional(flags::readable(host))).flatten();
    let file = values.get("proxy-credentials", flags::optional(flags::path)).flatten();
    let exemptions = values.get("no-proxy", |list| Ok(Exemptions::parse(list))).unwrap_or_default();
    let hub = &config.server;
    if is_from_env && !hub.tls {
        // As its name says, the variable is not about this hub.
        return Way::Straight;
    }
    let exempted_by = match exemptions.rule_for(&hub.host, hub.port) {
        Some(rule) => Some(format!("{} has {rule}", values.key("no-proxy"))),
        None if is_from_env && is_own_machine(&hub.host) => {
            Some("a proxy of the environment is never asked for this machine itself".to_owned())
        }
        None => None,
    };
    let mut proxy = match (proxy, &exempted_by) {
        // A chart may give the files to all clusters and the proxy to some.
        (None | Some(Ok(None)), _) => return Way::Straight,
        (Some(Ok(Some(proxy))), _) => proxy,
        // The variable is for every program of the machine, and no business of one that does not go that way.
        (Some(Err(problem)), Some(rule)) if is_from_env => {
            warnings.push(format!("{} {problem}; the hub is dialled straight all the same: {rule}", values.key("https-proxy")));
            return Way::Straight;
        }
        (Some(Err(problem)), _) => {
            values.fail("https-proxy", problem);
            return Way::Straight;
        }
    };
    if !hub.tls {
        values.fail("https-proxy", "is for wss:// only: the proxy would read the token and all traffic");
        return Way::Straight;
    }
    if matches!(proxy.credentials, ProxyCredentials::Fixed(_)) {
        if !is_from_env {
            warnings.push(
                "--https-proxy has a password, which all users of this machine see among its processes; \
                 --proxy-credentials takes it from a file"
                    .to_owned(),
            );
        }
        if file.is_some() {
            values.fail("proxy-credentials", "says the same as the URL of the proxy: give user and password in one of them");
        }
    }
    if let Some(path) = file {
        if let Err(problem) = connect::read_credentials(&Contents::read(host, std::slice::from_ref(&path)), &path) {
            values.fail("proxy-credentials", problem);
        }
        proxy.credentials = ProxyCredentials::File(path);
    }
    if !proxy.tls && !matches!(proxy.credentials, ProxyCredentials::None) {
        warnings
            .push("the proxy's password crosses the network in clear text, since the proxy is spoken to by http://".to_owned());
    }
    proxy.ca_cert = ca_cert;
    match exempted_by {
        Some(by) => Way::Exempted { by, from: proxy },
        None => Way::Proxy(proxy),
    }
}
