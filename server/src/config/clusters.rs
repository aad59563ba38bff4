//! The clusters file: a JSON list of `{"id", "token", "targetAddr", "alias"}`.
//!
//! Keys are taken in any case and unknown ones are warned about, because files from the field rely on both. All else
//! is strict: every mistake is told with its entry and key, and tokens are never echoed.

use std::collections::BTreeMap;
use std::io;

use host::Host;
use proxy::flags::{self, ConfigError};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tunnel::id::ClusterId;

/// The longest clusters file: some four thousand clusters; more is surely another file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Where an agent's API server is, seen from the agent, unless its entry says otherwise.
pub const TARGET_DEFAULT: &str = "kubernetes.default.svc:443";

const TWICE: &str = "is given twice, in another spelling";

/// One cluster that may be reached.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its name in logs, metrics and the registry.
    pub id: ClusterId,
    /// Its name in paths, percent-decoded: `/tunnel/{route}/…`. Differs from the id only where an alias stands for an
    /// odd one.
    pub route: String,
    /// What an agent may present; at least one.
    pub tokens: Vec<SecretString>,
    /// What a version 1 agent is asked to dial, as `host:port`.
    pub target_addr: String,
}

/// A clusters file that was read well.
#[derive(Debug, Default)]
pub struct Clusters {
    /// At least one; ids, routes and tokens are distinct.
    pub list: Vec<ClusterConfig>,
    /// For the log: what is odd, but no mistake.
    pub warnings: Vec<String>,
}

/// Reads and checks the file at `path`, which `key` names.
///
/// # Errors
/// Every mistake found, each with file, entry and key.
pub fn load(host: &Host, key: &str, path: &str) -> Result<Clusters, Vec<ConfigError>> {
    judge(&format!("{key} {path}"), host.read_file(path))
}

/// Checks what was read at `place`.
///
/// # Errors
/// As [`load`].
pub(crate) fn judge(place: &str, read: io::Result<Vec<u8>>) -> Result<Clusters, Vec<ConfigError>> {
    let wrong = |problem: String| vec![ConfigError::new(place, problem)];
    let bytes = read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    parse(place, text)
}

/// Checks the text of a clusters file; `place` says where it stands.
///
/// # Errors
/// Every mistake found, each with place, entry and key.
pub fn parse(place: &str, text: &str) -> Result<Clusters, Vec<ConfigError>> {
    let wrong = |problem: String| vec![ConfigError::new(place, problem)];
    if text.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("has {} bytes, at most {FILE_BYTES_MAX} are read", text.len())));
    }
    let json: Value = serde_json::from_str(text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let Value::Array(entries) = json else {
        return Err(wrong("is not a JSON list of clusters".to_owned()));
    };
    if entries.is_empty() {
        return Err(wrong("lists no cluster".to_owned()));
    }
    let mut reading = Reading { place, errors: Vec::new(), clusters: Clusters::default(), taken: BTreeMap::new() };
    for (index, entry) in entries.into_iter().enumerate() {
        reading.take(index, entry);
    }
    if reading.errors.is_empty() { Ok(reading.clusters) } else { Err(reading.errors) }
}

struct Reading<'a> {
    place: &'a str,
    errors: Vec<ConfigError>,
    clusters: Clusters,
    /// What must be distinct, as (kind, text), and the entry that has it.
    taken: BTreeMap<(&'static str, String), usize>,
}

#[derive(Default)]
struct Entry {
    id: Field,
    token: Field,
    target: Field,
    alias: Field,
}

#[derive(Default)]
enum Field {
    #[default]
    Missing,
    /// Told already.
    Wrong,
    Text(String),
}

impl Reading<'_> {
    fn take(&mut self, index: usize, json: Value) {
        let Value::Object(mut fields) = json else {
            self.errors.push(ConfigError::new(format!("{}: [{index}]", self.place), "is not an object"));
            return;
        };
        let more_tokens = self.more_tokens(index, &mut fields);
        let entry = self.entry(index, fields);
        let target_addr = match entry.target {
            Field::Text(text) => text,
            Field::Missing | Field::Wrong => TARGET_DEFAULT.to_owned(),
        };
        if let Err(problem) = flags::host_port(&target_addr) {
            self.fail(index, "targetAddr", problem);
        }
        let route = self.needed(index, "id", entry.id);
        let named = route.and_then(|route| Some((self.id(index, &route, entry.alias)?, route)));
        let token = match (&entry.token, more_tokens.is_empty()) {
            (Field::Missing, false) => None,
            (Field::Missing, true) | (Field::Text(_) | Field::Wrong, _) => self.needed(index, "token", entry.token),
        };
        let tokens: Vec<_> = token.into_iter().chain(more_tokens).filter_map(|token| self.token(index, &token)).collect();
        if let Some((id, route)) = named.filter(|_| !tokens.is_empty()) {
            self.clusters.list.push(ClusterConfig { id, route, tokens, target_addr });
        }
    }

    /// The list `tokens`, which may stand beside `token` or for it.
    fn more_tokens(&mut self, index: usize, fields: &mut serde_json::Map<String, Value>) -> Vec<String> {
        let keys: Vec<_> = fields.keys().filter(|key| key.eq_ignore_ascii_case("tokens")).cloned().collect();
        let mut tokens = None;
        for key in keys {
            match fields.remove(&key) {
                None | Some(Value::Null) => {}
                Some(_) if tokens.is_some() => self.fail(index, &key, TWICE.to_owned()),
                Some(value) => {
                    tokens = Some(serde_json::from_value(value).unwrap_or_else(|_| {
                        self.fail(index, &key, "is not a list of strings".to_owned());
                        Vec::new()
                    }));
                }
            }
        }
        tokens.unwrap_or_default()
    }

    fn entry(&mut self, index: usize, fields: serde_json::Map<String, Value>) -> Entry {
        let mut entry = Entry::default();
        for (key, value) in fields {
            let slot = match key.to_ascii_lowercase().as_str() {
                "id" => &mut entry.id,
                "token" => &mut entry.token,
                "targetaddr" => &mut entry.target,
                "alias" => &mut entry.alias,
                _ => {
                    self.clusters.warnings.push(format!("{}: [{index}].{key} is no known key, it has no effect", self.place));
                    continue;
                }
            };
            match (&slot, value) {
                (Field::Text(_) | Field::Wrong, _) => self.fail(index, &key, TWICE.to_owned()),
                (Field::Missing, Value::String(text)) => *slot = Field::Text(text),
                // As in Go, where null leaves a field as it was.
                (Field::Missing, Value::Null) => {}
                (Field::Missing, Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                    *slot = Field::Wrong;
                    self.fail(index, &key, "is not a string".to_owned());
                }
            }
        }
        entry
    }

    fn needed(&mut self, index: usize, key: &str, field: Field) -> Option<String> {
        match field {
            Field::Text(text) => return Some(text),
            Field::Wrong => {}
            Field::Missing => self.fail(index, key, "is missing".to_owned()),
        }
        None
    }

    fn id(&mut self, index: usize, route: &str, alias: Field) -> Option<ClusterId> {
        if route.is_empty() || route.contains('/') || route.chars().any(char::is_control) {
            self.fail(index, "id", format!("{route:?} cannot stand in a path: it is empty, has a slash or a control character"));
            return None;
        }
        // Paths are looked up by the id as it stands: it must be distinct beside an alias too.
        self.distinct(index, "id", route);
        let (key, text, hint) = match alias {
            Field::Text(alias) => ("alias", alias, ""),
            Field::Wrong => return None,
            Field::Missing => ("id", route.to_owned(), "; an \"alias\" may give it a good name"),
        };
        match text.parse() {
            Ok(id) => {
                self.distinct(index, "id", &text);
                Some(id)
            }
            Err(error) => {
                self.fail(index, key, format!("{error}{hint}"));
                None
            }
        }
    }

    fn token(&mut self, index: usize, text: &str) -> Option<SecretString> {
        match flags::secret(text) {
            Ok(token) => {
                self.distinct(index, "token", token.expose_secret());
                Some(token)
            }
            Err(problem) => {
                self.fail(index, "token", problem);
                None
            }
        }
    }

    /// Adds a mistake when another entry has the same.
    fn distinct(&mut self, index: usize, kind: &'static str, text: &str) {
        if let Some(other) = self.taken.insert((kind, text.to_owned()), index).filter(|other| *other != index) {
            let same = if kind == "token" { "token".to_owned() } else { format!("name {text:?}") };
            self.fail(index, kind, format!("has the same {same} as [{other}]"));
        }
    }

    fn fail(&mut self, index: usize, key: &str, problem: String) {
        self.errors.push(ConfigError::new(format!("{}: [{index}].{key}", self.place), problem));
    }
}

#[cfg(test)]
mod tests {
    use proxy::flags::Mistakes;

    use super::*;

    #[test]
    fn keys_are_taken_in_any_case_and_unknown_ones_are_warned_about() {
        let text = r#"[{"ID": "edge-1", "Token": "t1", "targetaddr": "10.0.0.1:6443", "note": "x"}, {"id": "edge-2", "token": "t2", "alias": null}]"#;
        let clusters = parse("CLUSTERS", text).expect("a good list");
        let seen: Vec<_> = clusters.list.iter().map(|c| (c.id.as_str(), c.route.as_str(), c.target_addr.as_str())).collect();
        assert_eq!(seen, [("edge-1", "edge-1", "10.0.0.1:6443"), ("edge-2", "edge-2", TARGET_DEFAULT)]);
        assert_eq!(clusters.warnings, ["CLUSTERS: [0].note is no known key, it has no effect"]);
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
        let tokens = |index: usize| clusters.list[index].tokens.iter().map(ExposeSecret::expose_secret).collect::<Vec<_>>();
        assert_eq!((tokens(0), tokens(1)), (vec!["old", "new", "old"], vec!["1"]));
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
            {"id": "edge-9", "tokens": ["t13"], "Tokens": ["t14"]}
        ]"#;
        let errors = parse("--clusters c.json", text).expect_err("mistakes");
        insta::assert_snapshot!("cluster_mistakes", Mistakes(&errors));
        assert!(!Mistakes(&errors).to_string().contains("hush"), "a token is never echoed");
    }

    #[test]
    fn what_is_no_list_of_clusters_is_refused_as_a_whole() {
        let too_long = " ".repeat(FILE_BYTES_MAX + 1);
        for bad in ["", "{}", "[]", "[{]", "null", too_long.as_str()] {
            assert_eq!(parse("CLUSTERS", bad).expect_err("no list").len(), 1);
        }
    }

    #[test]
    fn aliases_must_not_cross() {
        let text = r#"[{"id": "a", "alias": "b", "token": "1"}, {"id": "b", "alias": "a", "token": "2"}]"#;
        assert!(parse("CLUSTERS", text).is_err(), "/tunnel/a would be the cluster b");
    }
}
