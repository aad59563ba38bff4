//! `postern-server health`: its command line.

use host::tls::ClientFiles;
use host::{Host, HttpUrl};
use proxy::flags::{self, ConfigError, Env, Flag, Page, Section, Values};
use proxy::health::{Question, READY};
use proxy::program::Command;

use super::{INTERNAL_ADDR, JUST_HELP, need_pair};
use crate::config::ServerConfig;

/// Its flags.
pub(super) const FLAGS: &[Section] = &[
    Section {
        title: "Whom to ask",
        flags: &[
            READY,
            INTERNAL_ADDR,
            Flag::value("ops-addr", "ADDR", "Listener of health and metrics, where the server has one of its own"),
            Flag::value(
                "url",
                "URL",
                "Anything else by http or https that answers 2xx where all is well, such as /tunnel/ID/version",
            ),
        ],
    },
    Section {
        title: "With --url",
        flags: &[
            Flag::value("ca-file", "FILE", "CA that signed its certificate; else the machine's own roots"),
            Flag::value("token-file", "FILE", "Bearer token of a caller"),
            Flag::value("client-cert", "FILE", "Client certificate, PEM"),
            Flag::value("client-key", "FILE", "Its private key, PEM"),
        ],
    },
    JUST_HELP,
];

/// Its help.
pub(super) const PAGE: Page = Page {
    name: "postern-server health",
    about: "Asks the server on this machine whether it lives (/healthz) or is ready (/readyz/self): a probe where there is no shell.",
    usage: "[--ready] [FLAGS]\n       postern-server health --url URL [FLAGS]",
    after: "It speaks plain HTTP to the listener of health: where --internal-tls is require, give the server an --ops-addr.

As the exec probe of a container, and as proof that a cluster can be reached:
  postern-server health --ready --ops-addr :8082
  postern-server health --url http://postern-internal:8080/tunnel/edge-1/version

Exit codes: 0 it does, 1 it does not, 64 configuration.
",
};

/// Reads its command line (without its word).
///
/// # Errors
/// Every mistake found, each with its key.
pub fn parse(args: impl Iterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command<Question>, Vec<ConfigError>> {
    let mut values = Values::parse(FLAGS, args, env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(PAGE.help(FLAGS)));
    }
    let path = if values.get("ready", flags::switch) == Some(true) { "/readyz/self" } else { "/healthz" };
    let mut addr = ServerConfig::default().internal_addr;
    values.read("internal-addr", flags::address, &mut addr);
    values.read("ops-addr", flags::address, &mut addr);
    let mut question = Question::to_listener(addr, path);
    values.read("url", str::parse::<HttpUrl>, &mut question.url);
    for other in ["ready", "internal-addr", "ops-addr"].into_iter().filter(|_| values.is_given("url")).collect::<Vec<_>>() {
        if values.is_given(other) {
            values.fail(other, "says whom to ask, and so does --url: give one of them");
        }
    }
    for needs in ["ca-file", "token-file", "client-cert", "client-key"] {
        if values.is_given(needs) && !values.is_given("url") {
            values.fail(needs, "needs --url: the listener of health is asked for nothing");
        }
    }
    let mut file = |name| values.get(name, flags::readable(host));
    let (ca, cert, key) = (file("ca-file"), file("client-cert"), file("client-key"));
    need_pair(&mut values, "client-cert", "client-key");
    question.tls = ClientFiles { ca, identity: cert.zip(key), insecure: false };
    question.token = values.get("token-file", |path| flags::secret_file(host, path));
    values.finish(Command::Run { config: Box::new(question), warnings: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> Result<String, String> {
        let args = words.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match parse(args.into_iter(), &|_| None, &Host::real()) {
            Ok(Command::Run { config, .. }) => Ok(config.url.to_string()),
            Ok(Command::Print(text)) => Ok(text),
            Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn the_listener_of_health_is_asked_on_this_machine_unless_a_url_says_otherwise() {
        assert_eq!(asked("").as_deref(), Ok("http://127.0.0.1:8080/healthz"));
        assert_eq!(asked("--ready --internal-addr :80").as_deref(), Ok("http://127.0.0.1:80/readyz/self"));
        assert_eq!(asked("--ready --ops-addr [::1]:8082").as_deref(), Ok("http://[::1]:8082/readyz/self"));
        let url = "https://hub.example:8080/tunnel/edge-1/version";
        assert_eq!(asked(&format!("--url {url}")).as_deref(), Ok(url));
        assert!(asked(&format!("--url {url} --ready")).is_err_and(|told| told.starts_with("--ready: ")));
        assert!(asked("--token-file /etc/hostname").is_err_and(|told| told.contains("needs --url")));
        assert!(asked("--url hub.example").is_err_and(|told| told.starts_with("--url: ")));
    }
}
