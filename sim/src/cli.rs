//! The command line of `postern-sim`.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Write certificates into a folder.
    Certs { out: String, names: Vec<String> },
    /// Be an API server.
    ApiServer(ApiServerArgs),
    /// Play Argo CD's part at a real hub.
    Caller(CallerArgs),
}

/// How to play Argo CD's part.
#[derive(Debug, PartialEq)]
pub(crate) struct CallerArgs {
    /// `HOST:PORT` of the hub's internal listener.
    pub(crate) hub: String,
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) requests_per_second: u32,
}

/// How to be an API server.
#[derive(Debug, PartialEq)]
pub(crate) struct ApiServerArgs {
    pub(crate) addr: SocketAddr,
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) pods: usize,
    pub(crate) history_len: usize,
}

/// Reads a command line; help and version are errors that go to standard output.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let matches = clap().try_get_matches_from(args)?;
    let required = "clap checked that a subcommand is given";
    Ok(match matches.subcommand().expect(required) {
        ("certs", matches) => Command::Certs {
            out: text(matches, "out").unwrap_or_default(),
            names: matches.get_many("name").into_iter().flatten().cloned().collect(),
        },
        ("caller", matches) => Command::Caller(CallerArgs {
            hub: text(matches, "hub").unwrap_or_default(),
            cluster: text(matches, "cluster").unwrap_or_default(),
            namespace: text(matches, "namespace").unwrap_or_default(),
            requests_per_second: *matches.get_one("requests-per-second").expect("has a default"),
        }),
        (_, matches) => Command::ApiServer(ApiServerArgs {
            addr: *matches.get_one("addr").expect("has a default"),
            cert: text(matches, "cert"),
            key: text(matches, "key"),
            token_file: text(matches, "token-file"),
            pods: *matches.get_one("pods").expect("has a default"),
            history_len: *matches.get_one("history").expect("has a default"),
        }),
    })
}

fn text(matches: &ArgMatches, id: &str) -> Option<String> {
    matches.get_one::<String>(id).cloned()
}

fn clap() -> Clap {
    Clap::new("postern-sim")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A fake Kubernetes API server, and certificates to try Postern with on one machine")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(certs())
        .subcommand(apiserver())
        .subcommand(caller())
}

fn certs() -> Clap {
    Clap::new("certs")
        .about("Write an authority and the certificates of a pair on one machine")
        .long_about(
            "Write an authority and the certificates of a pair on one machine.\n\n\
             ca.pem, ca.key                 the authority\n\
             server.pem, server.key         for postern-server: localhost, 127.0.0.1, ::1\n\
             agent.pem, agent.key           for postern-agent: a client certificate, CN \"dev agent\"\n\
             apiserver.pem, apiserver.key   for postern-sim apiserver: localhost, 127.0.0.1, ::1\n\n\
             Files that are there are replaced. Good for ten years, for development only.",
        )
        .arg(Arg::new("out").long("out").value_name("DIR").required(true).help("Folder to write into, made if absent"))
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("A DNS name or address more under which both servers are reached; may be repeated"),
        )
}

fn apiserver() -> Clap {
    Clap::new("apiserver")
        .about("Be a Kubernetes API server, with pods that run nothing")
        .long_about(
            "Be a Kubernetes API server, with pods that run nothing.\n\n\
             get, watch, create, apply, patch, scale, delete, logs -f and exec (cat, echo, sh, sha256sum, sleep) work with kubectl. \
             Server-side apply, port-forward, cp and SPDY are refused. Everything is forgotten at the end.\n\n\
             Runs until SIGTERM or Ctrl-C. Logs JSON lines to standard error; the first one says where it listens.",
        )
        .arg(
            Arg::new("addr")
                .long("addr")
                .value_name("IP:PORT")
                .default_value("127.0.0.1:0")
                .value_parser(value_parser!(SocketAddr))
                .help("Where to listen; port 0 takes any free port"),
        )
        .arg(
            Arg::new("cert")
                .long("cert")
                .value_name("FILE")
                .requires("key")
                .help("Certificate for TLS, PEM; without it plain HTTP is spoken"),
        )
        .arg(Arg::new("key").long("key").value_name("FILE").requires("cert").help("The certificate's private key, PEM"))
        .arg(
            Arg::new("token-file")
                .long("token-file")
                .value_name("FILE")
                .help("The one bearer token that is accepted; an absent file is written with a fresh token. Without it all callers are served"),
        )
        .arg(
            Arg::new("pods")
                .long("pods")
                .value_name("N")
                .default_value("3")
                .value_parser(value_parser!(usize))
                .help("Pods web-0, web-1, … in the namespace default"),
        )
        .arg(
            Arg::new("history")
                .long("history")
                .value_name("N")
                .default_value("10000")
                .value_parser(value_parser!(usize))
                .help("Changes to remember; watches and pages that reach further back are answered 410"),
        )
}

fn caller() -> Clap {
    let arg = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Clap::new("caller")
        .about("Play Argo CD's part at a real hub: a cache of all kinds of a cluster, and a steady load beside it")
        .long_about(
            "Play Argo CD's part at a real hub: a cache of all kinds of a cluster, and a steady load beside it.\n\n\
             Lists and watches what discovery names, as Argo CD's cluster cache does, and beside that asks for objects and pages and \
             writes small patches, each with the persistence of client-go.\n\n\
             Runs until SIGTERM or Ctrl-C. Logs a JSON line every second that says what became of it all so far.",
        )
        .arg(arg("hub", "HOST:PORT").required(true).help("The hub's internal listener, which must speak plain HTTP"))
        .arg(arg("cluster", "ID").required(true).help("The cluster behind it"))
        .arg(
            arg("namespace", "NAME")
                .default_value("default")
                .help("A namespace there with a pod web-0 and the configmap kube-root-ca.crt, which the load reads and writes"),
        )
        .arg(
            arg("requests-per-second", "N")
                .default_value("10")
                .value_parser(value_parser!(u32).range(1..=1000))
                .help("The load's requests; none waits for another"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        clap().debug_assert();
    }

    #[test]
    fn an_api_server_has_defaults_for_everything() {
        let wanted = ApiServerArgs {
            addr: "127.0.0.1:0".parse().expect("an address"),
            cert: None,
            key: None,
            token_file: None,
            pods: 3,
            history_len: 10_000,
        };
        assert_eq!(parse(["postern-sim", "apiserver"].map(OsString::from)).ok(), Some(Command::ApiServer(wanted)));
    }

    #[test]
    fn certificates_take_any_number_of_names() {
        let command = ["postern-sim", "certs", "--out", "x", "--name", "hub", "--name", "198.18.1.2"].map(OsString::from);
        let names = vec!["hub".to_owned(), "198.18.1.2".to_owned()];
        assert_eq!(parse(command).ok(), Some(Command::Certs { out: "x".to_owned(), names }));
    }

    #[test]
    fn a_caller_needs_a_hub_and_a_cluster() {
        let command = ["postern-sim", "caller", "--hub", "hub:8080", "--cluster", "edge-1"].map(OsString::from);
        let wanted = CallerArgs {
            hub: "hub:8080".to_owned(),
            cluster: "edge-1".to_owned(),
            namespace: "default".to_owned(),
            requests_per_second: 10,
        };
        assert_eq!(parse(command).ok(), Some(Command::Caller(wanted)));
        assert!(parse(["postern-sim", "caller", "--hub", "hub:8080"].map(OsString::from)).is_err());
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        assert!(parse(["postern-sim", "apiserver", "--cert", "x"].map(OsString::from)).is_err());
    }
}
