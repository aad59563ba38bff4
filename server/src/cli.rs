//! The command line: flags as people write them, and what becomes of them.

mod health;
pub(crate) mod kubeconfig;

use std::net::SocketAddr;
use std::time::Duration;

use host::Host;
use host::watched::Contents;
use proxy::audit::{self, AuditConfig};
use proxy::flags::{self, ConfigError, Env, Flag, Page, Section, Values};
use proxy::traces;

use crate::argocd as registration;
use crate::config::{ArgoCdConfig, InternalTls, ServerConfig, TlsFiles, argocd, clusters};
use crate::front_door::refusal::KINDS;
use crate::metrics::{self, METRICS};
use crate::overview;
use crate::trust;
use crate::{auth, callers};

const VERSION: &str = concat!("postern-server ", env!("CARGO_PKG_VERSION"), "\n");

const GENERAL: Section = Section {
    title: "General",
    flags: &[
        Flag::value("log-level", "LEVEL", "How much is logged: debug, info, warn or error").default("info"),
        Flag::value("worker-threads", "N", "Threads that serve, 0 = one for every two CPUs").default("0"),
        Flag::switch("version", "Print the version and exit"),
        Flag::switch("help", "Print this text and exit"),
    ],
};

const INTERNAL_ADDR: Flag = Flag::value(
    "internal-addr",
    "ADDR",
    "Internal listener, where Argo CD and kubectl arrive: /tunnel/ID/..., /clusters, /healthz, /readyz, /metrics",
)
.default(":8080");

const TRUSTED_PROXIES: &str = "Load balancers, each as proxy:CIDR (must begin every connection with a PROXY header, version 1 or 2) or xff:CIDR (believed about X-Forwarded-For); direct = there are none. Until then nothing is limited by address";

/// The flags of the server itself.
pub(crate) const FLAGS: &[Section] = &[
    Section {
        title: "Listeners",
        flags: &[
            Flag::value(
                "addr",
                "ADDR",
                "Public listener, where agents arrive: /connect, /healthz; without a host, all interfaces",
            )
            .default(":8443"),
            INTERNAL_ADDR,
            Flag::value("ops-addr", "ADDR", "A listener of its own for health and metrics; they then leave the internal one"),
        ],
    },
    Section {
        title: "Clusters",
        flags: &[Flag::value(
            "clusters",
            "FILE",
            "JSON list of {\"id\", \"token\", \"targetAddr\", \"alias\"}, read again when it changes; the environment variable holds the JSON itself",
        )
        .env("CLUSTERS")],
    },
    Section {
        title: "Callers",
        flags: &[Flag::value(
            "callers",
            "FILE",
            "YAML file that says who may reach which clusters with which verbs, read again when it changes; without it anybody on the internal listener reaches every cluster",
        )],
    },
    Section {
        title: "TLS (PEM files, read again when they change)",
        flags: &[
            Flag::value("tls-cert", "FILE", "Certificate chain of both listeners; turns TLS on"),
            Flag::value("tls-key", "FILE", "Its private key"),
            Flag::value("tls-client-ca", "FILE", "CA that must have signed every client certificate; turns mutual TLS on"),
            Flag::value("revoked-certs", "FILE", "SHA-256 fingerprints of client certificates that are good no longer, one in a line"),
            Flag::value("internal-tls-cert", "FILE", "Certificate chain of the internal listener, if it has its own"),
            Flag::value("internal-tls-key", "FILE", "Its private key"),
            Flag::value(
                "internal-tls-client-ca",
                "FILE",
                "CA of callers' certificates, if not tls-client-ca; with --callers a caller may have none and show a token",
            ),
            Flag::value(
                "internal-tls",
                "MODE",
                "Internal listener with a certificate: optional (TLS and plain HTTP on one port), require or off",
            )
            .default("optional"),
        ],
    },
    Section {
        title: "Limits (sizes such as 64KiB or 128MiB, times such as 500ms or 1m30s)",
        flags: &[
            Flag::value(
                "rate-limit",
                "N",
                "Proxied requests per second, 0 = no limit; over it a request waits up to 1s, then 429",
            )
            .default("0"),
            Flag::value("cluster-rate-limit", "N", "Proxied requests per second of each cluster, 0 = no limit").default("0"),
            Flag::value("caller-rate-limit", "N", "The same of each caller; all three together make a request wait up to 1s").default("0"),
            Flag::value("caller-streams-max", "N", "Requests of one caller at once, 0 = no limit; beyond it 429").default("0"),
            Flag::value("trusted-proxies", "WAY:CIDR", TRUSTED_PROXIES),
            Flag::value(
                "connections-per-address",
                "N",
                "Connections of one IPv4 address or IPv6 /64 on each listener, sessions of agents aside, 0 = no limit; more are closed. Needs trusted-proxies",
            )
            .default("0"),
            Flag::value("request-body-max", "SIZE", "Longest request body; beyond it 413").default("128MiB"),
            Flag::value("upload-idle-timeout", "TIME", "How long an upload may pause, 0 = no limit; beyond it 400").default("5m"),
            Flag::value("response-header-timeout", "TIME", "How long an API server may take to begin its answer, 0 = no limit")
                .default("0"),
            Flag::value("streams-max", "N", "Requests at once through one tunnel").default("1024"),
            Flag::value("session-budget", "SIZE", "Memory for the bytes of one tunnel").default("64MiB"),
            Flag::value("process-budget", "SIZE", "Memory for the bytes of all tunnels").default("1GiB"),
        ],
    },
    Section {
        title: "Health",
        flags: &[Flag::value(
            "probe-interval",
            "TIME",
            "How often each tunnel's API server is asked for its version, 0 = never: then nobody knows whether it answers",
        )
        .default("5s")],
    },
    Section {
        title: "Interruptions",
        flags: &[
            Flag::value("park-max", "TIME", "How long a request waits for a tunnel that was just lost, 0 = not at all")
                .default("10s"),
            Flag::value(
                "leave",
                "TIME",
                "After SIGTERM, how long all is served as before while /readyz/self says no, so that a Service takes this server out; then the drain begins",
            )
            .default("0"),
            Flag::value("drain", "TIME", "Then, how long running requests may go on").default("30s"),
        ],
    },
    argocd::FLAGS,
    traces::FLAGS,
    audit::FLAGS,
    GENERAL,
];

const PAGE: Page = Page {
    name: "postern-server",
    about: "The hub's end of Postern: agents dial in, Argo CD and kubectl reach their clusters through it.",
    usage: "[FLAGS]\n       postern-server check [FLAGS]\n       postern-server health [FLAGS]\n       postern-server kubeconfig ID [FLAGS]\n       postern-server token\n       postern-server audit verify [FLAGS] FILE...",
    after: "Flags may be written -addr=:8443, -addr :8443 or with two dashes; they win over the environment.

A first server, for one cluster:
  echo '[{\"id\": \"edge-1\", \"token\": \"change-me\"}]' > clusters.json
  postern-server --clusters clusters.json --tls-cert hub.pem --tls-key hub.key
  postern-server kubeconfig edge-1 > edge-1.kubeconfig
  kubectl --kubeconfig edge-1.kubeconfig get pods

Exit codes: 0 done, 1 health or audit verify found something, 64 configuration, 66 a file of audit verify, 69 address not available, 70 a bug, 77 not permitted.
",
};

const CHECK_PAGE: Page = Page {
    name: "postern-server check",
    about: "Says whether a server would start with this configuration, and what is odd about it. Binds and dials nothing.",
    usage: "--clusters FILE [FLAGS OF THE SERVER]",
    after: "Every mistake is told with its file, line and key, as a start tells it; beyond that rules of callers that match no
cluster, clusters that no caller may reach, tokens in plain text, certificates that end soon.

Exit codes: 0 a server would start, 64 it would not.
",
};

const JUST_HELP: Section = Section { title: "General", flags: &[Flag::switch("help", "Print this text and exit")] };

const TOKEN_FLAGS: &[Section] = &[JUST_HELP];

const TOKEN_PAGE: Page = Page {
    name: "postern-server token",
    about: "Makes a random token for an agent or a caller, and what may stand for it in the clusters or callers file.",
    usage: "",
    after: "Who reads the digest cannot present the token.
",
};

/// What the command line asks for.
pub type Command = proxy::program::Command<ServerConfig>;

/// Reads the command line (without the program's name), the environment and the files that they name.
///
/// # Errors
/// Every mistake found, each with its key.
pub fn parse(args: impl IntoIterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command, Vec<ConfigError>> {
    let mut args = args.into_iter().peekable();
    match args.peek().map(String::as_str) {
        Some("kubeconfig") => kubeconfig::parse(args.skip(1), env, host),
        Some("token") => parse_token(args.skip(1), env, host),
        Some("reference") => Ok(Command::Print(reference())),
        Some(_) | None => parse_run(args, env, host),
    }
}

pub use health::parse as parse_health;

/// REFERENCE.md: everything that can be configured, generated from the tables that are the parser.
fn reference() -> String {
    format!(
        "# postern-server: reference

Generated by `postern-server reference`; `cargo xtask tidy --fix` writes it anew.

## Flags

Written `-addr=:8443`, `-addr :8443` or with two dashes. The command line wins over the environment, which wins over the
default; an empty environment variable counts as not set. All mistakes are told at once, each with its key.

{}{}## Clusters

A JSON list, at most 1 MiB, of objects with these keys, in any case. Unknown keys are warned about and have no
effect, but one that looks like a slip of `certificates` or `impersonate` is a mistake.

| key | default | meaning |
|---|---|---|
| `id` | | the cluster's name in paths: `/tunnel/ID/`; 1-63 of `a-z`, `0-9`, `.` and `-`, alphanumeric at each end |
| `token` | | what its agents present; no two clusters have the same. `sha256:` and the 64 hexadecimal digits of its SHA-256 stand for it, so that the file holds no secret |
| `tokens` | `[]` | a list of more tokens, beside `token` or for it: while one is rotated, old and new are both good |
| `certificates` | | whose client certificate an agent must show beside a token: `uri:` and a URI of its subject alternative names, or `cn:` and its common name; one of the list is enough. Without the key the token is; `null` and an empty list are mistakes. Needs `--tls-client-ca`, and TLS that ends at this server: a gateway in front of it must pass it through |
| `impersonate` | | as whom requests may ask to act: `{{\"users\": [], \"groups\": []}}`, each by its exact name, or users by `system:serviceaccount:NAMESPACE:*`. Nobody by default. The agent's `--guard` must allow the same |
| `labels` | `{{}}` | labels of its Secret in Argo CD, with `--argocd-namespace` |
| `annotations` | `{{}}` | the same of annotations |
| `targetAddr` | `{}` | what a version 1 agent is asked to dial |
| `alias` | | the name in logs and metrics for an `id` that breaks the rule above |

An empty list is a mistake, so the last cluster is revoked by giving it another token. What came by environment stays for the
life of the process.

## Files that change

Every file that is named above is looked at four times a second and taken whole once two looks agree, so within half a second
and a moment: replace a file, for one that is written in place may be taken half. The kubelet may need a minute or more to bring a changed Secret or ConfigMap, and never changes what is mounted
with `subPath`. New connections are judged by the new files, and sessions that would not be let in any longer end at once: those of a
cluster or token that is gone, of a certificate that is revoked or whose CA is trusted no longer. Nobody else notices. Files with mistakes are
refused whole with a line in the log for each and a metric, and what was there before stays. A file is at most 1 MiB.

`revoked-certs` has one certificate in a line, by the SHA-256 of its DER in hexadecimal, with or without colons, as
`openssl x509 -noout -fingerprint -sha256` prints it; what follows a `#` is for people. It needs one line at least, which may be a comment.

{}
{}{}{}",
        flags::markdown(FLAGS),
        subcommands(),
        clusters::TARGET_DEFAULT,
        callers::CHAPTER,
        audit::CHAPTER,
        registration::CHAPTER,
        operation(),
    )
}

/// What the program does beside serving.
fn subcommands() -> String {
    format!(
        "## postern-server check

{} Takes the flags of the server. Exit codes: 0 a server would start, 64 it would not.

## postern-server health

{} Exit codes: 0 it does, 1 it does not.

{}## postern-server kubeconfig ID

{}

{}## postern-server token

{}

",
        CHECK_PAGE.about,
        health::PAGE.about,
        flags::markdown(health::FLAGS),
        kubeconfig::PAGE.about,
        flags::markdown(kubeconfig::FLAGS),
        TOKEN_PAGE.about,
    )
}

/// What can be seen of a server that runs: the rest of REFERENCE.md.
fn operation() -> String {
    format!(
        "{}
## Metrics

Scraped from `/metrics` as OpenMetrics; counters end in `_total`. Beside these: `build_info` and `process_*`.

| name | labels | meaning |
|---|---|---|
{}
## Refusals

Every \"no\" under `/tunnel/` that is the server's own: a Kubernetes `Status` whose cause, and the `reason` of the metric
`refusals`, is the first column.

| cause | status | when | `Retry-After` |
|---|---|---|---|
{}
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | `health` found that it is not; `audit verify` that a log is not as it was written |
| 64 | the configuration, or a file that it names, has mistakes |
| 66 | `audit verify` cannot read a file |
| 69 | an address cannot be listened on |
| 70 | a bug in Postern |
| 77 | an address may not be listened on |
| 130, 143 | a second SIGINT or SIGTERM cut the drain short |
",
        overview::CHAPTER,
        [
            &METRICS[..],
            &audit::METRICS,
            &registration::METRICS,
            &metrics::health::METRICS,
            &host::watched::METRICS,
            &host::tls::METRICS,
            &host::TRACE_METRICS
        ]
        .concat()
        .iter()
        .map(|(name, labels, meaning)| format!("| `{name}` | {labels} | {meaning} |\n"))
        .collect::<String>(),
        KINDS
            .iter()
            .map(|kind| format!("| `{}` | {} | {} | {} |\n", kind.label, kind.status.as_u16(), kind.when, kind.retry))
            .collect::<String>(),
    )
}

fn parse_run(args: impl Iterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command, Vec<ConfigError>> {
    let mut values = Values::parse(FLAGS, args, env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(PAGE.help(FLAGS)));
    }
    if values.get("version", flags::switch) == Some(true) {
        return Ok(Command::Print(VERSION.to_owned()));
    }
    let Reading { config, warnings, mistakes } = read(values, env, host);
    if mistakes.is_empty() { Ok(Command::Run { config: Box::new(config), warnings }) } else { Err(mistakes) }
}

/// What the flags come to.
#[derive(Debug)]
pub struct Reading {
    /// Complete, if there are no mistakes.
    pub config: ServerConfig,
    /// What is odd.
    pub warnings: Vec<String>,
    /// Every mistake found, each with its key.
    pub mistakes: Vec<ConfigError>,
}

/// Reads the command line of the check (without its word).
///
/// # Errors
/// None: mistakes are what is asked for.
pub fn parse_check(
    args: impl Iterator<Item = String>,
    env: Env<'_>,
    host: &Host,
) -> Result<proxy::program::Command<Reading>, Vec<ConfigError>> {
    let mut values = Values::parse(FLAGS, args, env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(proxy::program::Command::Print(CHECK_PAGE.help(FLAGS)));
    }
    Ok(proxy::program::Command::Run { config: Box::new(read(values, env, host)), warnings: Vec::new() })
}

fn read(mut values: Values, env: Env<'_>, host: &Host) -> Reading {
    let mut warnings = Vec::new();
    let mut config = ServerConfig::default();
    values.read("addr", flags::address, &mut config.addr);
    values.read("internal-addr", flags::address, &mut config.internal_addr);
    values.read("ops-addr", flags::optional(flags::address), &mut config.ops_addr);
    read_callers(&mut values, host, &mut config);
    read_tls(&mut values, host, &mut config);
    read_clusters(&mut values, env, host, &mut config, &mut warnings);
    values.read("rate-limit", flags::count, &mut config.rate_limit);
    values.read("cluster-rate-limit", flags::count, &mut config.cluster_rate_limit);
    values.read("caller-rate-limit", flags::count, &mut config.caller_rate_limit);
    values.read("caller-streams-max", flags::count, &mut config.caller_streams_max);
    if config.callers_file.is_none() && (config.caller_rate_limit > 0 || config.caller_streams_max > 0) {
        let why = "one that asks for much leaves nothing to the others";
        warnings.push(format!("without --callers all callers share --caller-rate-limit and --caller-streams-max: {why}"));
    }
    read_sources(&mut values, &mut config, &mut warnings);
    values.read("request-body-max", flags::size, &mut config.request_body_max);
    let idle: Option<Duration> = values.get("upload-idle-timeout", flags::duration);
    config.upload_idle_max = idle.filter(|idle| !idle.is_zero());
    let timeout: Option<Duration> = values.get("response-header-timeout", flags::duration);
    config.response_header_timeout = timeout.filter(|timeout| !timeout.is_zero());
    let probes: Option<Duration> = values.get("probe-interval", flags::duration);
    config.probe_interval = probes.filter(|interval| !interval.is_zero());
    values.read("streams-max", flags::positive, &mut config.streams_max);
    values.read("session-budget", flags::size, &mut config.session_budget);
    values.read("process-budget", flags::size, &mut config.process_budget);
    if config.process_budget < config.session_budget {
        values.fail("process-budget", "is smaller than session-budget");
    }
    values.read("park-max", flags::duration, &mut config.park_max);
    values.read("leave", flags::duration, &mut config.leave);
    values.read("drain", flags::duration, &mut config.drain_max);
    config.argocd = ArgoCdConfig::read(&mut values, host, config.leave, &mut warnings);
    config.audit = AuditConfig::read(&mut values, host, &mut warnings);
    config.process.read(&mut values);
    config.traces = traces::read(&mut values, host);
    refuse_equal_listeners(&mut values, &config);
    let mistakes = values.finish(()).err().unwrap_or_default();
    Reading { config, warnings, mistakes }
}

fn read_sources(values: &mut Values, config: &mut ServerConfig, warnings: &mut Vec<String>) {
    values.read("trusted-proxies", str::parse, &mut config.trusted_proxies);
    values.read("connections-per-address", flags::count, &mut config.connections_per_address);
    if config.connections_per_address > 0 && !values.is_given("trusted-proxies") {
        let why = "an address may be a whole fleet; name the load balancers, or say direct where there are none";
        warnings.push(format!("--connections-per-address has no effect without --trusted-proxies: {why}"));
    }
}

fn read_clusters(values: &mut Values, env: Env<'_>, host: &Host, config: &mut ServerConfig, warnings: &mut Vec<String>) {
    let from_env = values.is_from_env("clusters");
    let Some(text) = values.get("clusters", flags::path) else {
        if !values.is_given("clusters") {
            values.fail("clusters", "no clusters are given: name a file, or put the JSON into the environment variable CLUSTERS");
        }
        return;
    };
    let result = if from_env {
        clusters::parse("CLUSTERS", &text)
    } else {
        if env("CLUSTERS").is_some_and(|json| !json.is_empty()) {
            warnings.push("CLUSTERS is set and has no effect, because --clusters is given".to_owned());
        }
        config.clusters_file = Some(text.clone());
        clusters::load(host, "--clusters", &text)
    };
    let place = if from_env { "CLUSTERS".to_owned() } else { format!("--clusters {text}") };
    let asks = config.asks_for_certificates();
    match result.and_then(|clusters| clusters.check_certificates(&place, asks).map(|()| clusters)) {
        Ok(clusters) => {
            config.clusters = clusters.list;
            warnings.extend(clusters.warnings);
        }
        Err(errors) => values.fail_all(errors),
    }
}

fn read_callers(values: &mut Values, host: &Host, config: &mut ServerConfig) {
    config.callers_file = values.get("callers", flags::optional(flags::path)).flatten();
    if let Some(path) = &config.callers_file {
        values.fail_all(callers::read(host, path).err().unwrap_or_default());
    }
}

fn read_tls(values: &mut Values, host: &Host, config: &mut ServerConfig) {
    let mut file = |name| values.get(name, flags::optional(flags::readable(host))).flatten();
    let (cert, key, client_ca) = (file("tls-cert"), file("tls-key"), file("tls-client-ca"));
    let (own_cert, own_key, own_ca) = (file("internal-tls-cert"), file("internal-tls-key"), file("internal-tls-client-ca"));
    let has_cert = need_pair(values, "tls-cert", "tls-key");
    let has_own_cert = need_pair(values, "internal-tls-cert", "internal-tls-key");
    if !has_cert && values.is_given("tls-client-ca") {
        values.fail("tls-client-ca", "needs --tls-cert and --tls-key");
    }
    if !has_cert && !has_own_cert && values.is_given("internal-tls-client-ca") {
        values.fail("internal-tls-client-ca", "needs --internal-tls-cert and --internal-tls-key, or --tls-cert and --tls-key");
    }
    let pair = cert.zip(key);
    let own_pair = own_cert.zip(own_key).or_else(|| pair.clone().filter(|_| own_ca.is_some()));
    // A certificate of its own is no reason to believe everybody.
    let own_ca = own_ca.or_else(|| client_ca.clone());
    config.tls = pair.map(|(cert, key)| TlsFiles { cert, key, client_ca, client_required: true });
    let client_required = config.callers_file.is_none();
    config.internal_tls_files = own_pair.map(|(cert, key)| TlsFiles { cert, key, client_ca: own_ca, client_required });
    read_revoked(values, host, config);
    let cert_given = has_cert || has_own_cert;
    let mode = values.get("internal-tls", |text| match text {
        "off" => Ok(InternalTls::Off),
        "optional" => Ok(InternalTls::Optional),
        "require" => Ok(InternalTls::Require),
        other => Err(format!("{other:?} is not one of optional, require, off")),
    });
    config.internal_tls = match (mode, cert_given) {
        (Some(InternalTls::Require), false) => {
            values.fail("internal-tls", "require needs --tls-cert and --tls-key, or the internal listener's own");
            InternalTls::Off
        }
        (Some(mode), true) => mode,
        (Some(InternalTls::Off | InternalTls::Optional), false) | (None, _) => InternalTls::Off,
    };
}

fn read_revoked(values: &mut Values, host: &Host, config: &mut ServerConfig) {
    config.revoked_certs = values.get("revoked-certs", flags::optional(flags::path)).flatten();
    let Some(path) = &config.revoked_certs else { return };
    let read = Contents::read(host, std::slice::from_ref(path));
    if let Err(errors) = trust::judge_revoked(path, &read) {
        values.fail_all(errors);
    }
    if !values.is_given("tls-client-ca") && !values.is_given("internal-tls-client-ca") {
        values
            .fail("revoked-certs", "needs --tls-client-ca or --internal-tls-client-ca: without it no client certificate is seen");
    }
}

/// Whether the certificate is given; neither it nor its key goes without the other.
pub(crate) fn need_pair(values: &mut Values, cert: &'static str, key: &'static str) -> bool {
    match (values.is_given(cert), values.is_given(key)) {
        (true, false) => values.fail(key, format!("is needed with --{cert}")),
        (false, true) => values.fail(cert, format!("is needed with --{key}")),
        (true, true) | (false, false) => {}
    }
    values.is_given(cert)
}

/// Binding the second would fail with "address in use", which tells less.
fn refuse_equal_listeners(values: &mut Values, config: &ServerConfig) {
    let listeners = [("addr", Some(config.addr)), ("internal-addr", Some(config.internal_addr)), ("ops-addr", config.ops_addr)];
    for (index, (name, addr)) in listeners.iter().enumerate() {
        let same = |(_, other): &&(&str, Option<SocketAddr>)| other == addr && addr.is_some_and(|addr| addr.port() != 0);
        if let Some((other, _)) = listeners[..index].iter().find(same) {
            values.fail(name, format!("is the same address as --{other}"));
        }
    }
}

fn parse_token(args: impl Iterator<Item = String>, env: Env<'_>, host: &Host) -> Result<Command, Vec<ConfigError>> {
    let mut values = Values::parse(TOKEN_FLAGS, args, env);
    if values.get("help", flags::switch) == Some(true) {
        return Ok(Command::Print(TOKEN_PAGE.help(TOKEN_FLAGS)));
    }
    values.finish(Command::Print(auth::fresh_token(host)))
}

#[cfg(test)]
mod tests;
