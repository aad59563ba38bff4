//! The command line: flags as people write them, and what becomes of them.

mod health;
mod network;

use std::time::Duration;

use host::Host;
use host::watched::Contents;
use proxy::audit::{self, AuditConfig};
use proxy::flags::{self, ConfigError, Env, Flag, Page, Section, Values};
use proxy::traces;
use secrecy::SecretString;

use crate::config::{AgentConfig, ClientIdentity, ServerUrl, TargetTls, TunnelToken};
use crate::connect;
use crate::doctor;
use crate::guard;
use crate::metrics::METRICS;

const VERSION: &str = concat!("postern-agent ", env!("CARGO_PKG_VERSION"), "\n");

const HEALTH_ADDR: Flag =
    Flag::value("health-addr", "ADDR", "Listener for /healthz, /readyz and /metrics; empty turns it off").default(":8081");

/// The flags of the agent.
pub(crate) const FLAGS: &[Section] = &[
    Section {
        title: "Hub",
        flags: &[
            Flag::value("server", "URL", "WebSocket URL of the hub: wss://hub.example/connect").env("SERVER_URL"),
            Flag::value("token", "TOKEN", "What this agent presents to the hub; better given by environment").env("TOKEN"),
            Flag::value("token-file", "FILE", "A file with the token in its place, read again when it changes"),
            Flag::value("server-ca-cert", "FILE", "CA that signed the hub's certificate; else the machine's own roots"),
            Flag::value("client-cert", "FILE", "Certificate chain to present to the hub, for mutual TLS"),
            Flag::value("client-key", "FILE", "Its private key"),
            Flag::switch("allow-insecure-server", "Allow ws://, which shows the token and all traffic to the network"),
            Flag::value("max-retry", "TIME", "Longest wait before dialling a hub again that said no").default("60s"),
            Flag::value("session-max-age", "TIME", "Renew the tunnel at this age, before a middlebox cuts it, 0 = never")
                .default("0"),
        ],
    },
    network::SECTION,
    Section {
        title: "API server",
        flags: &[
            Flag::value("target", "HOST:PORT", "The only place that requests are sent to").default("kubernetes.default.svc:443"),
            Flag::value("ca-cert", "FILE", "CA that signed its certificate")
                .default("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
            Flag::value("sa-token-path", "FILE", "Token that requests carry")
                .default("/var/run/secrets/kubernetes.io/serviceaccount/token"),
            Flag::switch("insecure", "Do not verify its certificate"),
            Flag::switch("plain-target", "Speak plain HTTP to it"),
        ],
    },
    Section {
        title: "Guard: the word of this cluster's own people",
        flags: &[
            Flag::value("guard", "FILE", "Policy of what passes, read again when it changes; without one all passes"),
            Flag::value("state-dir", "DIR", "Take orders (freeze, unfreeze, status) at DIR/admin.sock and keep a freeze in DIR"),
        ],
    },
    Section {
        title: "Limits (sizes such as 64KiB or 128MiB, times such as 500ms or 1m30s)",
        flags: &[
            Flag::value("max-conns", "N", "Requests at once").default("1024"),
            Flag::value("session-budget", "SIZE", "Memory for the bytes of one tunnel").default("64MiB"),
            Flag::value("process-budget", "SIZE", "Memory for the bytes of all tunnels").default("128MiB"),
            Flag::value("drain", "TIME", "After SIGTERM, how long running requests may go on").default("30s"),
        ],
    },
    traces::FLAGS,
    audit::FLAGS,
    Section {
        title: "General",
        flags: &[
            HEALTH_ADDR,
            Flag::value("log-level", "LEVEL", "How much is logged: debug, info, warn or error").default("info"),
            Flag::value("worker-threads", "N", "Threads that serve, 0 = one for every two CPUs").default("0"),
            Flag::switch("version", "Print the version and exit"),
            Flag::switch("help", "Print this text and exit"),
        ],
    },
];

const PAGE: Page = Page {
    name: "postern-agent",
    about: "The cluster's end of Postern: dials out to the hub and sends what comes back to the API server.",
    usage: "--server URL --token TOKEN [FLAGS]\n       postern-agent health [FLAGS]\n       postern-agent audit verify [FLAGS] FILE...",
    after: "Flags may be written -target=host:443, -target host:443 or with two dashes; they win over the
environment. Files in PEM and tokens are read again when they change.

Inside a cluster, where the service account's files are in their place:
  TOKEN=change-me postern-agent --server wss://hub.example/connect

Orders to a running agent that has a state directory:
  postern-agent freeze --state-dir DIR     refuse everything at once, also after a restart
  postern-agent unfreeze --state-dir DIR   end that
  postern-agent status --state-dir DIR     say what keeps it frozen

What stands in its way, step by step, with the same flags and without disturbing one that runs:
  postern-agent doctor [FLAGS] [--idle-up-to TIME]

Exit codes: 0 done, 1 doctor, health or audit verify found something, 64 configuration, 66 a file of audit verify, 69 address or agent not available, 70 a bug, 74 not written, 77 not permitted.
",
};

/// What the command line asks for.
pub type Command = proxy::program::Command<AgentConfig>;

/// Reads the command line (without the program's name), the environment and the files that they name.
///
/// # Errors
/// Every mistake found, each with its key.
pub fn parse(args: impl IntoIterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command, Vec<ConfigError>> {
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|first| first == "reference") {
        return Ok(Command::Print(reference()));
    }
    let env = environment(env);
    let mut values = Values::parse(FLAGS, args, &env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(PAGE.help(FLAGS)));
    }
    if values.get("version", flags::switch) == Some(true) {
        return Ok(Command::Print(VERSION.to_owned()));
    }
    read(values, host).map(|(config, warnings)| Command::Run { config: Box::new(config), warnings })
}

/// The environment as flags see it.
pub(crate) fn environment<'a>(env: Env<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    network::with_lower_case(env)
}

/// What the flags of an agent come to, and what is odd about them.
///
/// # Errors
/// Every mistake found, each with its key.
pub(crate) fn read(mut values: Values, host: &Host) -> Result<(AgentConfig, Vec<String>), Vec<ConfigError>> {
    let mut warnings = Vec::new();
    let server = read_server(&mut values, &mut warnings);
    let token = read_token(&mut values, host, &mut warnings);
    // With a part missing the rest is still read, for its mistakes.
    let (server, token) =
        (server.unwrap_or_else(unusable_server), token.unwrap_or_else(|| TunnelToken::Fixed(SecretString::default())));
    let mut config = AgentConfig::new(server, token);
    read_hub(&mut values, host, &mut config);
    network::read(&mut values, host, &mut config, &mut warnings);
    read_target(&mut values, host, &mut config, &mut warnings);
    read_guard(&mut values, host, &mut config);
    values.read("max-conns", flags::positive, &mut config.streams_max);
    values.read("session-budget", flags::size, &mut config.session_budget);
    values.read("process-budget", flags::size, &mut config.process_budget);
    if config.process_budget < config.session_budget {
        values.fail("process-budget", "is smaller than session-budget");
    }
    values.read("drain", flags::duration, &mut config.drain_max);
    values.read("health-addr", flags::optional(flags::address), &mut config.health_addr);
    config.audit = AuditConfig::read(&mut values, host, &mut warnings);
    config.process.read(&mut values);
    config.traces = traces::read(&mut values, host);
    values.finish((config, warnings))
}

pub use health::parse as parse_health;

/// REFERENCE.md: everything that can be configured, generated from the table that is the parser.
fn reference() -> String {
    format!(
        "# postern-agent: reference

Generated by `postern-agent reference`; `cargo xtask tidy --fix` writes it anew.

## Flags

Written `-target=host:443`, `-target host:443` or with two dashes. The command line wins over the environment, which wins
over the default; an empty environment variable counts as not set. All mistakes are told at once, each with its key.

{}## postern-agent health

{} Exit codes: 0 it does, 1 it does not.

{}{}{}{}## Metrics

Scraped from `/metrics` of the health listener as OpenMetrics; counters end in `_total`. Beside these: `build_info` and `process_*`.

| name | labels | meaning |
|---|---|---|
{}
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | the doctor found that a step fails; `health` that it is not; `audit verify` that a log is not as it was written |
| 64 | the configuration, or a file that it names, has mistakes |
| 66 | `audit verify` cannot read a file |
| 69 | an address cannot be listened on; no agent takes the order |
| 70 | a bug in Postern |
| 74 | an order could not be written down |
| 77 | an address may not be listened on; the order may not be given |
| 130, 143 | a second SIGINT or SIGTERM cut the drain short |

A hub that cannot be reached or says no ends nothing: the agent dials again for ever, and is not ready meanwhile.
",
        flags::markdown(FLAGS),
        health::PAGE.about,
        flags::markdown(health::FLAGS),
        doctor::chapter(),
        guard::CHAPTER,
        audit::CHAPTER,
        [&METRICS[..], &audit::METRICS, &host::watched::METRICS, &host::tls::METRICS, &host::TRACE_METRICS]
            .concat()
            .iter()
            .map(|(name, labels, meaning)| format!("| `{name}` | {labels} | {meaning} |\n"))
            .collect::<String>(),
    )
}

fn read_server(values: &mut Values, warnings: &mut Vec<String>) -> Option<ServerUrl> {
    if !values.is_given("server") {
        values.fail("server", "is needed, or the environment variable SERVER_URL: wss://hub.example/connect");
    }
    let allow_plain = values.get("allow-insecure-server", flags::switch) == Some(true);
    let server: ServerUrl = values.get("server", str::parse)?;
    match (server.tls, allow_plain) {
        (true, _) => {}
        (false, true) => warnings.push("the hub is dialled without TLS: the network sees the token and all traffic".to_owned()),
        (false, false) => values.fail("server", "ws:// is not encrypted; use wss://, or allow it with --allow-insecure-server"),
    }
    Some(server)
}

fn read_token(values: &mut Values, host: &Host, warnings: &mut Vec<String>) -> Option<TunnelToken> {
    let fixed = values.get("token", flags::secret);
    let file = values.get("token-file", flags::optional(flags::path)).flatten();
    match file {
        Some(path) => {
            if values.is_from_env("token") {
                warnings.push("TOKEN is set and has no effect, because --token-file is given".to_owned());
            } else if values.is_given("token") {
                values.fail("token-file", "says the same as --token: give one of them");
            }
            match connect::read_token(&Contents::read(host, std::slice::from_ref(&path)), &path) {
                Ok(_) => Some(TunnelToken::File(path)),
                Err(problem) => {
                    values.fail("token-file", problem);
                    None
                }
            }
        }
        None => {
            if !values.is_given("token") {
                values.fail("token", "is needed, or the environment variable TOKEN, or --token-file");
            }
            fixed.map(TunnelToken::Fixed)
        }
    }
}

/// Stands in for a server that was not given, or wrongly; never run on.
fn unusable_server() -> ServerUrl {
    ServerUrl { tls: true, host: String::new(), port: 0, path: String::new() }
}

fn read_hub(values: &mut Values, host: &Host, config: &mut AgentConfig) {
    values.read("server-ca-cert", flags::optional(flags::readable(host)), &mut config.server_ca_cert);
    let cert = values.get("client-cert", flags::optional(flags::readable(host))).flatten();
    let key = values.get("client-key", flags::optional(flags::readable(host))).flatten();
    match (values.is_given("client-cert"), values.is_given("client-key")) {
        (true, false) => values.fail("client-key", "is needed with --client-cert"),
        (false, true) => values.fail("client-cert", "is needed with --client-key"),
        (true, true) | (false, false) => {}
    }
    config.client_identity = cert.zip(key).map(|(cert, key)| ClientIdentity { cert, key });
    values.read("max-retry", flags::duration, &mut config.retry_max);
    let age: Option<Duration> = values.get("session-max-age", flags::duration);
    config.session_age_max = age.filter(|age| !age.is_zero());
}

fn read_target(values: &mut Values, host: &Host, config: &mut AgentConfig, warnings: &mut Vec<String>) {
    values.read("target", flags::host_port, &mut config.target);
    let plain = values.get("plain-target", flags::switch) == Some(true);
    let insecure = values.get("insecure", flags::switch) == Some(true);
    if plain {
        config.target_tls = TargetTls::Plain;
    } else if insecure {
        config.target_tls = TargetTls::Unverified;
        warnings.push("the API server's certificate is not verified".to_owned());
    } else if let Some(ca_cert) = values.get("ca-cert", flags::readable(host)) {
        config.target_tls = TargetTls::Verified { ca_cert };
    }
    values.read("sa-token-path", flags::path, &mut config.sa_token_path);
    // Not a mistake: the kubelet may write it a moment later.
    if let Err(error) = host.read_file(&config.sa_token_path) {
        warnings.push(format!("--sa-token-path {} cannot be read: {error}; requests fail until it can", config.sa_token_path));
    }
}

fn read_guard(values: &mut Values, host: &Host, config: &mut AgentConfig) {
    values.read("guard", flags::optional(flags::readable(host)), &mut config.guard);
    if let Some(Err(mistake)) = config.guard.as_deref().map(|path| guard::read(host, path)) {
        values.fail_all([mistake]);
    }
    values.read("state-dir", flags::optional(flags::path), &mut config.state_dir);
}

#[cfg(test)]
mod tests;
