//! `postern-server kubeconfig`: its command line.

use host::Host;
use proxy::flags::{self, ConfigError, Env, Flag, Page, Section, Values};

use super::{Command, INTERNAL_ADDR, JUST_HELP, need_pair};
use crate::config::ServerConfig;
use crate::kubeconfig::{Credential, kubeconfig};

/// Its flags.
pub(super) const FLAGS: &[Section] = &[
    Section {
        title: "Hub",
        flags: &[
            Flag::value(
                "url",
                "URL",
                "Internal listener as kubectl reaches it; by default the loopback address with the port of internal-addr",
            ),
            Flag::value("ca-file", "FILE", "CA that signed its certificate, for an https URL"),
            INTERNAL_ADDR,
        ],
    },
    Section {
        title: "Caller (is put into the kubeconfig; needs an https URL, since kubectl presents nothing over plain http)",
        flags: &[
            Flag::value("token-file", "FILE", "Bearer token, one of those in the callers file"),
            Flag::value("client-cert", "FILE", "Client certificate, PEM"),
            Flag::value("client-key", "FILE", "Its private key, PEM"),
        ],
    },
    JUST_HELP,
];

/// Its help.
pub(super) const PAGE: Page = Page {
    name: "postern-server kubeconfig",
    about: "Prints a kubeconfig that leads to the cluster ID through the hub.",
    usage: "ID [FLAGS]",
    after: "Example:
  postern-server kubeconfig edge-1 --url https://hub.example:8080 --ca-file ca.pem > edge-1.kubeconfig
",
};

/// Reads its command line (without its word).
pub(super) fn parse(args: impl Iterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command, Vec<ConfigError>> {
    let mut values = Values::parse(FLAGS, args, env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(PAGE.help(FLAGS)));
    }
    let cluster = values.next_word().filter(|word| !word.is_empty() && !word.contains('/')).unwrap_or_default();
    if cluster.is_empty() {
        values.fail_all([ConfigError::new("kubeconfig", "needs the id of a cluster: postern-server kubeconfig ID")]);
    }
    let mut internal = ServerConfig::default().internal_addr;
    values.read("internal-addr", flags::address, &mut internal);
    if internal.ip().is_unspecified() {
        internal.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut url = format!("http://{internal}");
    values.read("url", read_url, &mut url);
    let ca = values.get("ca-file", |path| host.read_file(path).map_err(|error| format!("{path} cannot be read: {error}")));
    let credential = read_credential(&mut values, host, &url);
    values.finish(Command::Print(kubeconfig(&cluster, &url, ca.as_deref(), &credential)))
}

/// What a caller of the kubeconfig presents.
fn read_credential(values: &mut Values, host: &Host, url: &str) -> Credential {
    let token = values.get("token-file", |path| flags::secret_file(host, path));
    let mut pem = |name| values.get(name, |path| host.read_file(path).map_err(|error| format!("{path} cannot be read: {error}")));
    let (cert, key) = (pem("client-cert"), pem("client-key"));
    need_pair(values, "client-cert", "client-key");
    for name in ["token-file", "client-cert"] {
        if values.is_given(name) && !url.starts_with("https:") {
            values.fail(name, "needs an https --url: kubectl presents nothing over plain http");
        }
    }
    Credential { token, certificate: cert.zip(key) }
}

pub(crate) fn read_url(text: &str) -> Result<String, String> {
    // Whoever writes a password there does not want to read it in a log.
    if text.contains('@') {
        return Err("is no URL of a listener: it has a user or password, and neither belongs there".to_owned());
    }
    let good = text.parse::<host::HttpUrl>().is_ok() && !text.contains('#');
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no URL such as http://127.0.0.1:8080")) }
}
