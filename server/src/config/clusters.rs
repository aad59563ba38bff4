//! The clusters file: a JSON list of `{"id", "token", "targetAddr", "alias"}` and what else a cluster may have.
//!
//! Keys are taken in any case and unknown ones are warned about, because files from the field rely on both; but not those
//! that look like a key that restricts a cluster. All else is strict: every mistake is told with its line, entry and key, and tokens are never echoed.

mod entry;
mod metadata;

use std::collections::BTreeMap;

use host::watched::{Contents, Unread};
use host::{FILE_BYTES_MAX, Host};
use proxy::flags::{self, ConfigError};
use proxy::impersonation::Impersonation;
use serde_json::value::RawValue;
use tunnel::id::ClusterId;

use crate::auth::{CertificateName, TokenDigest};
use entry::{Entry, Field};
pub(crate) use metadata::is_subdomain;

/// Where an agent's API server is, seen from the agent, unless its entry says otherwise.
pub const TARGET_DEFAULT: &str = "kubernetes.default.svc:443";

/// One cluster that may be reached.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its name in logs, metrics and the registry.
    pub id: ClusterId,
    /// Its name in paths, percent-decoded: `/tunnel/{route}/…`. Differs from the id only where an alias stands for an
    /// odd one.
    pub route: String,
    /// What an agent may present; at least one.
    pub tokens: Vec<TokenDigest>,
    /// Whose client certificate an agent must show beside a token; empty = the token is enough.
    pub certificates: Vec<CertificateName>,
    /// What a version 1 agent is asked to dial, as `host:port`.
    pub target_addr: String,
    /// As whom requests may ask to act; its agents have a list of their own, which must agree.
    pub impersonate: Impersonation,
    /// Passed to its Secret in Argo CD.
    pub labels: BTreeMap<String, String>,
    /// The same.
    pub annotations: BTreeMap<String, String>,
}

/// A clusters file that was read well.
#[derive(Debug, Default)]
pub struct Clusters {
    /// At least one; ids, routes and tokens are distinct.
    pub list: Vec<ClusterConfig>,
    /// For the log: what is odd, but no mistake.
    pub warnings: Vec<String>,
    /// Where tokens stand themselves, not their digests.
    pub plain_tokens: Vec<String>,
}

impl Clusters {
    /// Checks what is asked of certificates against whether agents are asked for theirs: where something else ends TLS, the
    /// server never sees one, and no agent of such a cluster could ever connect.
    ///
    /// # Errors
    /// Each cluster whose agents would be shut out.
    pub(crate) fn check_certificates(&self, place: &str, asks_for_certificates: bool) -> Result<(), Vec<ConfigError>> {
        let shut_out = self.list.iter().filter(|cluster| !asks_for_certificates && !cluster.certificates.is_empty());
        let problem =
            "needs --tls-client-ca: only where this server ends TLS itself (passthrough at a gateway) does it see certificates";
        let errors: Vec<_> =
            shut_out.map(|cluster| ConfigError::new(format!("{place}: {}.certificates", cluster.id), problem)).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Reads and checks the file at `path`, which `key` names.
///
/// # Errors
/// Every mistake found, each with file, line, entry and key.
pub fn load(host: &Host, key: &str, path: &str) -> Result<Clusters, Vec<ConfigError>> {
    judge(&format!("{key} {path}"), Contents::read(host, &[path.to_owned()]).of(path))
}

/// Checks what was read at `place`.
///
/// # Errors
/// As [`load`].
pub(crate) fn judge(place: &str, read: Result<&[u8], Unread>) -> Result<Clusters, Vec<ConfigError>> {
    let wrong = |problem: String| vec![ConfigError::new(place, problem)];
    let bytes = read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    parse(place, text)
}

/// Checks the text of a clusters file; `place` says where it stands.
///
/// # Errors
/// Every mistake found, each with place, line, entry and key.
pub fn parse(place: &str, text: &str) -> Result<Clusters, Vec<ConfigError>> {
    let wrong = |place: &str, problem: String| vec![ConfigError::new(place, problem)];
    if text.len() > FILE_BYTES_MAX {
        return Err(wrong(place, format!("has {} bytes, at most {FILE_BYTES_MAX} are read", text.len())));
    }
    if text.trim().is_empty() {
        return Err(wrong(place, "is empty, a JSON list of clusters is needed".to_owned()));
    }
    let json: &RawValue = serde_json::from_str(text).map_err(|error| {
        let words = error.to_string();
        let words = words.split(" at line ").next().unwrap_or_default();
        wrong(&format!("{place}:{}", error.line()), format!("is not JSON: {words}"))
    })?;
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(json.get()) else {
        return Err(wrong(place, "is not a JSON list of clusters".to_owned()));
    };
    if entries.is_empty() {
        return Err(wrong(place, "lists no cluster".to_owned()));
    }
    let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect();
    let (clusters, taken) = (Clusters::default(), BTreeMap::new());
    let mut reading = Reading { place, text, newlines, errors: Vec::new(), clusters, taken };
    for (index, entry) in entries.into_iter().enumerate() {
        reading.take(index, entry);
    }
    if reading.errors.is_empty() { Ok(reading.clusters) } else { Err(reading.errors) }
}

/// A reading of one file, to its end whatever is wrong on the way.
struct Reading<'a> {
    place: &'a str,
    text: &'a str,
    /// Where the text's lines end.
    newlines: Vec<usize>,
    errors: Vec<ConfigError>,
    clusters: Clusters,
    /// What must be distinct, as (kind, text), and the entry that has it.
    taken: BTreeMap<(&'static str, String), usize>,
}

impl Reading<'_> {
    fn take(&mut self, index: usize, json: &RawValue) {
        let Some(entry) = Entry::read(self, index, json) else { return };
        let line = entry.line;
        let target_addr = match entry.target {
            Field::Given(text, _) if !text.is_empty() => text,
            // The field's charts write what nobody has given as an empty text.
            Field::Given(..) | Field::Missing | Field::Wrong => TARGET_DEFAULT.to_owned(),
        };
        if let Err(problem) = flags::host_port(&target_addr) {
            self.fail(line, index, "targetAddr", problem);
        }
        let named = self.needed(line, index, "id", entry.id);
        let named = named.and_then(|(route, line)| Some((self.id(line, index, &route, entry.alias)?, route)));
        let may_lack_token = match &entry.tokens {
            Field::Given(more, _) => !more.is_empty(),
            Field::Missing => false,
            Field::Wrong => true,
        };
        let more_tokens = entry.tokens.given().unwrap_or_default();
        let token = match entry.token {
            Field::Missing if may_lack_token => None,
            token @ (Field::Given(..) | Field::Missing | Field::Wrong) => self.needed(line, index, "token", token),
        };
        let tokens = token.into_iter().chain(more_tokens);
        let tokens: Vec<_> = tokens.filter_map(|(token, line)| self.token(line, index, &token)).collect();
        if let Field::Given(names, line) = &entry.certificates
            && names.is_empty()
        {
            self.fail(*line, index, "certificates", "is empty; without the key no certificate is needed".to_owned());
        }
        let certificates = entry.certificates.given().unwrap_or_default();
        let certificates = certificates.into_iter().filter_map(|(name, line)| self.certificate(line, index, &name)).collect();
        let impersonate = match entry.impersonate {
            Field::Given(list, _) => list,
            Field::Missing | Field::Wrong => Impersonation::default(),
        };
        let labels = self.metadata(index, "labels", entry.labels, metadata::judge_labels);
        let annotations = self.metadata(index, "annotations", entry.annotations, metadata::judge_annotations);
        if let Some((id, route)) = named.filter(|_| !tokens.is_empty()) {
            let cluster = ClusterConfig { id, route, tokens, certificates, target_addr, impersonate, labels, annotations };
            self.clusters.list.push(cluster);
        }
    }

    fn needed<T>(&mut self, line: usize, index: usize, key: &str, field: Field<T>) -> Option<(T, usize)> {
        match field {
            Field::Given(value, line) => return Some((value, line)),
            Field::Wrong => {}
            Field::Missing => self.fail(line, index, key, "is missing".to_owned()),
        }
        None
    }

    fn id(&mut self, line: usize, index: usize, route: &str, alias: Field<String>) -> Option<ClusterId> {
        if route.is_empty() || route.contains('/') || route.chars().any(char::is_control) {
            let problem = format!("{route:?} cannot stand in a path: it is empty, has a slash or a control character");
            self.fail(line, index, "id", problem);
            return None;
        }
        // Paths are looked up by the id as it stands: it must be distinct beside an alias too.
        self.distinct(line, index, "id", route);
        let (key, text, line, hint) = match alias {
            Field::Given(alias, line) => ("alias", alias, line, ""),
            Field::Wrong => return None,
            Field::Missing => ("id", route.to_owned(), line, "; an \"alias\" may give it a good name"),
        };
        match text.parse() {
            Ok(id) => {
                self.distinct(line, index, "id", &text);
                Some(id)
            }
            Err(error) => {
                self.fail(line, index, key, format!("{error}{hint}"));
                None
            }
        }
    }

    fn token(&mut self, line: usize, index: usize, text: &str) -> Option<TokenDigest> {
        match TokenDigest::read(text) {
            Ok(token) => {
                self.distinct(line, index, "token", &token.hex());
                if !TokenDigest::is_digest(text) {
                    self.clusters.plain_tokens.push(format!("{}:{line}: [{index}].token", self.place));
                }
                Some(token)
            }
            Err(problem) => {
                self.fail(line, index, "token", problem);
                None
            }
        }
    }

    fn certificate(&mut self, line: usize, index: usize, text: &str) -> Option<CertificateName> {
        match text.parse() {
            Ok(name) => Some(name),
            Err(problem) => {
                self.fail(line, index, "certificates", format!("{text:?} {problem}"));
                None
            }
        }
    }

    fn metadata(
        &mut self,
        index: usize,
        key: &str,
        field: Field<BTreeMap<String, String>>,
        judge: impl Fn(&BTreeMap<String, String>) -> Vec<String>,
    ) -> BTreeMap<String, String> {
        let Field::Given(map, line) = field else { return BTreeMap::new() };
        judge(&map).into_iter().for_each(|problem| self.fail(line, index, key, problem));
        map
    }

    /// Adds a mistake when another entry has the same.
    fn distinct(&mut self, line: usize, index: usize, kind: &'static str, text: &str) {
        if let Some(other) = self.taken.insert((kind, text.to_owned()), index).filter(|other| *other != index) {
            let same = if kind == "token" { "token".to_owned() } else { format!("name {text:?}") };
            self.fail(line, index, kind, format!("has the same {same} as [{other}]"));
        }
    }

    fn fail(&mut self, line: usize, index: usize, key: &str, problem: String) {
        self.errors.push(ConfigError::new(format!("{}:{line}: [{index}].{key}", self.place), problem));
    }
}

#[cfg(test)]
mod tests {
    use proxy::flags::Mistakes;

    use super::*;

    #[test]
    fn keys_are_taken_in_any_case_and_unknown_ones_are_warned_about() {
        let text = r#"[{"ID": "edge-1", "Token": "t1", "targetaddr": "10.0.0.1:6443", "duplicates": "x"}, {"id": "edge-2", "token": "t2", "alias": null, "targetAddr": ""}]"#;
        let clusters = parse("CLUSTERS", text).expect("a good list");
        let seen: Vec<_> = clusters.list.iter().map(|c| (c.id.as_str(), c.route.as_str(), c.target_addr.as_str())).collect();
        assert_eq!(seen, [("edge-1", "edge-1", "10.0.0.1:6443"), ("edge-2", "edge-2", TARGET_DEFAULT)]);
        assert_eq!(clusters.warnings, ["CLUSTERS:1: [0].duplicates is no known key, it has no effect"]);
    }

    #[test]
    fn labels_and_annotations_are_taken_as_they_are() {
        let text = r#"[{"id": "a", "token": "t", "Labels": {"env": "prod"}, "annotations": {"example.com/note": "a b"}}]"#;
        let clusters = parse("CLUSTERS", text).expect("a good list");
        let pair = |map: &BTreeMap<String, String>| map.iter().map(|(key, value)| format!("{key}={value}")).collect::<String>();
        let cluster = &clusters.list[0];
        assert_eq!((pair(&cluster.labels), pair(&cluster.annotations)), ("env=prod".into(), "example.com/note=a b".into()));
        assert!(clusters.warnings.is_empty());
    }

    #[test]
    fn an_alias_gives_an_odd_id_a_good_name() {
        let clusters = parse("CLUSTERS", r#"[{"id": "Odd_Name", "alias": "odd-name", "token": "t"}]"#).expect("a good list");
        assert_eq!((clusters.list[0].id.as_str(), clusters.list[0].route.as_str()), ("odd-name", "Odd_Name"));
    }

    #[test]
    fn a_cluster_may_have_two_tokens_while_one_is_rotated() {
        let text = r#"[{"id": "a", "token": "old", "tokens": ["new", "old"]}, {"id": "b", "Tokens": ["1"], "token": null}]"#;
        let clusters = parse("CLUSTERS", text).expect("a good list");
        let digest = |token: &str| TokenDigest::of(&token.into());
        let tokens = |index: usize| clusters.list[index].tokens.clone();
        assert_eq!((tokens(0), tokens(1)), (["old", "new", "old"].map(digest).to_vec(), vec![digest("1")]));
        assert_eq!(parse("CLUSTERS", r#"[{"id": "a", "tokens": []}]"#).expect_err("no token").len(), 1);
    }

    #[test]
    fn every_mistake_is_told_with_its_entry_and_key() {
        let text = r#"[
            {"id": "Odd_Name", "token": "t0"},
            {"id": "edge-1", "token": ""},
            {"id": "edge-1", "token": "hush-hush"},
            {"id": "edge-2", "token": "hush-hush"},
            {"token": 7, "targetAddr": "nowhere"},
            {"id": "x", "alias": "Bad!", "token": "t5"},
            {"id": "edge-3", "alias": "edge-1", "token": "t6"},
            {"id": "a/b", "token": "hush\nhush"},
            {"id": "edge-4", "Id": "edge-5", "token": "t8"},
            "edge-6",
            {"id": "edge-7", "tokens": ["t11", 5]},
            {"id": "edge-8", "tokens": ["hush-hush"], "token": "t12"},
            {"id": "edge-9", "tokens": ["t13"], "Tokens": ["t14"]},
            {"id": "edge-10", "token": "t15",
             "token": "t16",
             "certificates": ["uri:", "spiffe://hub/edge-10", "cn:edge-10"]},
            {"id": "edge-11", "token": "sha256:abc", "certificates": "cn:x"},
            {"id": "edge-12", "token": "sha256:HUSH"},
            {"id": "edge-13", "token": "t18", "impersonate": {"users": ["system:*"]}},
            {"id": "edge-14", "token": "t19", "impersonate": {"user": ["jane"]}},
            {"id": "edge-15", "token": "t20", "impersonate": ["jane"]},
            {"id": "edge-16", "token": "t21", "certificates": null},
            {"id": "edge-17", "token": "t22", "Certificates": []},
            {"id": "edge-18", "token": "t23", "certificate": ["cn:x"], "impersonation": {}},
            {"id": "edge-19", "token": "t24", "certs": ["cn:x"], "impersonates": {}},
            {"id": "edge-20", "token": "t25", "client_certificates": ["cn:x"], "cetificates": ["cn:x"]},
            {"id": "edge-21", "token": "t26", "labels": {"env": "of the sea", "-": "x", "env/": "x"},
             "annotations": {"postern/hub": "x", "argocd.argoproj.io/skip-reconcile": "true"}},
            {"id": "edge-22", "token": "t27", "labels": {"tier": 1}, "annotations": ["x"]}
        ]"#
        .replace("HUSH", &TokenDigest::of(&"hush-hush".into()).hex());
        let errors = parse("--clusters c.json", &text).expect_err("mistakes");
        insta::assert_snapshot!("cluster_mistakes", Mistakes(&errors));
        assert!(!Mistakes(&errors).to_string().contains("hush"), "a token is never echoed");
    }

    #[test]
    fn what_is_no_list_of_clusters_is_refused_as_a_whole() {
        let too_long = " ".repeat(FILE_BYTES_MAX + 1);
        for bad in ["", " \n", "{}", "[]", "[{]", "null", too_long.as_str()] {
            assert_eq!(parse("CLUSTERS", bad).expect_err("no list").len(), 1);
        }
    }

    #[test]
    fn a_token_may_be_stored_as_its_digest() {
        let digest = TokenDigest::of(&"t".into());
        let text = format!(r#"[{{"id": "a", "token": "sha256:{}"}}]"#, digest.hex());
        assert_eq!(parse("CLUSTERS", &text).expect("a good list").list[0].tokens, [digest]);
    }

    #[test]
    fn a_file_of_four_thousand_clusters_is_read_in_a_moment() {
        let entry = |n: usize| {
            format!("{{\"id\": \"cluster-{n}\",\n \"tokens\": [\"sha256:{n:064x}\"],\n \"certificates\": [\"cn:{n}\"]}}")
        };
        let text = format!("[{}]", (0..4000).map(entry).collect::<Vec<_>>().join(",\n"));
        assert_eq!(parse("CLUSTERS", &text).expect("a good list").list.len(), 4000);
    }

    #[test]
    fn aliases_must_not_cross() {
        let text = r#"[{"id": "a", "alias": "b", "token": "1"}, {"id": "b", "alias": "a", "token": "2"}]"#;
        assert!(parse("CLUSTERS", text).is_err(), "/tunnel/a would be the cluster b");
    }
}
