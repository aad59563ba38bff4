//! ArgoCdConfig: whose cluster Secrets the server keeps in Argo CD, and its flags.

use std::time::Duration;

use host::Host;
use host::tls::ClientFiles;
use proxy::flags::{self, Flag, HostPort, Section, Values};

/// Where Kubernetes puts the files of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a cluster may be without a session beyond the time in which a server leaves: an agent that was refused waits up to a minute
/// before it dials again, and may be refused once more. What is shorter would take clusters for gone that are about to come back, all of
/// them in a rollout.
const REDIAL_MAX: Duration = Duration::from_secs(120);

/// In a rollout two servers run with files of different age, and the older one takes what is new for what is gone: what is shorter
/// could end before it does.
const RETENTION_MIN: Duration = Duration::from_secs(300);

/// Room for a namespace and a name of Kubernetes with a slash between them.
const HUB_BYTES_MAX: usize = 63 + 1 + 253;

/// What the namespace turns on.
#[derive(Debug, Clone)]
pub struct ArgoCdConfig {
    /// Where the Secrets are kept.
    pub namespace: String,
    /// The internal listener as Argo CD reaches it, without a slash at its end.
    pub url: String,
    /// Names this hub in the Secrets: whoever has another name keeps its hands off them. The URL, unless a name is given that
    /// outlives it.
    pub hub: String,
    /// What Argo CD believes of the internal listener and what it shows there; may be empty.
    pub files: ClientFiles,
    /// The bearer token that it shows.
    pub token_file: Option<String>,
    /// How long a cluster is offline before Argo CD is told to leave it alone; `None` = it never is.
    pub skip_after: Option<Duration>,
    /// Clusters that come back are given back to Argo CD within this time, each at a moment of its own.
    pub return_spread: Duration,
    /// How long the Secret of a cluster stays that is configured no longer.
    pub retention: Duration,
    /// The API server of the hub.
    pub api: ApiServer,
}

/// How the hub's API server is reached.
#[derive(Debug, Clone)]
pub struct ApiServer {
    /// Its place.
    pub addr: HostPort,
    /// CA that signed its certificate; `None` = it is spoken to plainly, which no flag asks for.
    pub ca: Option<String>,
    /// The server's own token for it, read anew for each connection.
    pub token_path: String,
}

/// The flags.
pub(crate) const FLAGS: Section = Section {
    title: "Argo CD: its cluster Secrets kept by the server",
    flags: &[
        Flag::value("argocd-namespace", "NS", "Namespace of Argo CD; turns it on: one Secret there for each cluster"),
        Flag::value("argocd-url", "URL", "Internal listener as Argo CD reaches it; /tunnel/ID is appended"),
        Flag::value(
            "argocd-hub",
            "NAME",
            "What its Secrets call this hub, so that those of another are left alone; by default the URL, and then a hub whose URL changes leaves its Secrets behind",
        ),
        Flag::value(
            "argocd-ca-cert",
            "FILE",
            "CA of the internal listener, for Argo CD to believe; without it, its own trust roots",
        ),
        Flag::value("argocd-client-cert", "FILE", "Client certificate for Argo CD to show"),
        Flag::value("argocd-client-key", "FILE", "Its private key"),
        Flag::value("argocd-token-file", "FILE", "Bearer token for Argo CD to show, one of those in the callers file"),
        Flag::value(
            "argocd-skip-after",
            "TIME",
            "How long a cluster is offline before Argo CD is told to leave it alone until it is back, at least --leave plus 2m; 0 = never",
        )
        .default("0"),
        Flag::value(
            "argocd-return-spread",
            "TIME",
            "Clusters that are back are given back to Argo CD within this time, each at a moment of its own",
        )
        .default("1m"),
        Flag::value("argocd-retention", "TIME", "How long the Secret of a cluster stays that is configured no longer, at least 5m")
            .default("24h"),
        Flag::value("argocd-api-server", "HOST:PORT", "API server of the cluster in which Argo CD runs")
            .default("kubernetes.default.svc:443"),
        Flag::value("argocd-api-ca-cert", "FILE", "Its CA").default("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
        Flag::value("argocd-api-token-path", "FILE", "The server's token for it, read anew for each connection")
            .default("/var/run/secrets/kubernetes.io/serviceaccount/token"),
    ],
};

impl ArgoCdConfig {
    /// Registration in `namespace` of clusters at `url`, with what the flags have by default.
    pub fn new(namespace: &str, url: &str) -> Self {
        let addr = HostPort { host: "kubernetes.default.svc".to_owned(), port: 443 };
        Self {
            namespace: namespace.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
            hub: url.trim_end_matches('/').to_owned(),
            files: ClientFiles::default(),
            token_file: None,
            skip_after: None,
            // What fifty clusters take to warm Argo CD's cache one after the other, at about a second each.
            return_spread: Duration::from_secs(60),
            // Somebody looks at it again the next day.
            retention: Duration::from_secs(24 * 3600),
            api: ApiServer {
                addr,
                ca: Some(format!("{SERVICE_ACCOUNT}/ca.crt")),
                token_path: format!("{SERVICE_ACCOUNT}/token"),
            },
        }
    }

    /// What the flags ask for, of a server that takes `leave` to leave; mistakes are left in `values`.
    pub(crate) fn read(values: &mut Values, host: &Host, leave: Duration, warnings: &mut Vec<String>) -> Option<Self> {
        let namespace = values.get("argocd-namespace", flags::optional(namespace)).flatten();
        let url = values.get("argocd-url", flags::optional(crate::cli::kubeconfig::read_url)).flatten();
        let Some(namespace) = namespace else {
            if !values.is_given("argocd-namespace") {
                let others = FLAGS.flags.iter().map(Flag::name).filter(|name| *name != "argocd-namespace");
                let given: Vec<_> = others.filter(|name| values.is_given(name)).collect();
                given.into_iter().for_each(|name| values.fail(name, "needs --argocd-namespace"));
            }
            return None;
        };
        if !values.is_given("argocd-url") {
            values.fail("argocd-url", "is needed with --argocd-namespace");
        }
        let mut config = Self::new(&namespace, &url.unwrap_or_default());
        values.read("argocd-hub", hub, &mut config.hub);
        config.read_credentials(values, host, warnings);
        let skip_after = values.get("argocd-skip-after", |text| match flags::duration(text)? {
            Duration::ZERO => Ok(None),
            short if short < leave + REDIAL_MAX => Err(format!(
                "{text:?} is shorter than --leave plus 2m: an agent may take as long to come back, and 0 turns it off"
            )),
            time => Ok(Some(time)),
        });
        config.skip_after = skip_after.flatten();
        values.read("argocd-return-spread", flags::duration, &mut config.return_spread);
        let retention = |text: &str| match flags::duration(text)? {
            short if short < RETENTION_MIN => Err(format!(
                "{text:?} is shorter than 5m: in a rollout a server with an older clusters file could delete what a newer one registered"
            )),
            time => Ok(time),
        };
        values.read("argocd-retention", retention, &mut config.retention);
        values.read("argocd-api-server", flags::host_port, &mut config.api.addr);
        let ca = |text: &str| flags::path(text).and_then(|path| flags::readable(host)(&path)).map(Some);
        values.read("argocd-api-ca-cert", ca, &mut config.api.ca);
        values.read("argocd-api-token-path", flags::path, &mut config.api.token_path);
        Some(config)
    }

    fn read_credentials(&mut self, values: &mut Values, host: &Host, warnings: &mut Vec<String>) {
        let mut file = |name| values.get(name, flags::optional(flags::readable(host))).flatten();
        let (ca, cert, key) = (file("argocd-ca-cert"), file("argocd-client-cert"), file("argocd-client-key"));
        self.token_file = file("argocd-token-file");
        crate::cli::need_pair(values, "argocd-client-cert", "argocd-client-key");
        self.files = ClientFiles { ca, identity: cert.zip(key), insecure: false };
        if self.is_https() || self.url.is_empty() {
            return;
        }
        for name in ["argocd-ca-cert", "argocd-client-cert"] {
            if values.is_given(name) {
                values.fail(name, "needs an https --argocd-url: there are no certificates over plain http");
            }
        }
        if self.token_file.is_some() {
            warnings.push("--argocd-url is plain http: Argo CD's token crosses the network in clear text".to_owned());
        }
    }

    /// The flag that names one of the files for Argo CD.
    pub(crate) fn flag_of(&self, path: &str) -> &'static str {
        let identity = self.files.identity.as_ref();
        let named = [
            ("argocd-client-key", identity.map(|(_, key)| key)),
            ("argocd-client-cert", identity.map(|(cert, _)| cert)),
            ("argocd-token-file", self.token_file.as_ref()),
        ];
        let named = named.into_iter().find(|(_, named)| named.is_some_and(|named| named == path));
        named.map_or("argocd-ca-cert", |(flag, _)| flag)
    }

    /// Whether Argo CD speaks TLS to the internal listener.
    pub(crate) fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }
}

/// What an annotation holds and a log line shows: a word.
fn hub(text: &str) -> Result<String, String> {
    let good = (1..=HUB_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err(format!("is no word of 1 to {HUB_BYTES_MAX} visible ASCII characters")) }
}

/// A DNS label (RFC 1123), as names of namespaces are.
fn namespace(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no name of a namespace")) }
}
