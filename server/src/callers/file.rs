//! The callers file: YAML, with every mistake told by its line and key; tokens are never echoed.

use std::collections::{BTreeMap, BTreeSet};

use host::watched::Contents;
use ipnet::IpNet;
use proxy::flags::ConfigError;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use tunnel::id::ClusterId;

use super::policy::{Known, Pattern, Policy, Rule};
use crate::auth::TokenDigest;
use crate::forward::ANONYMOUS;

/// The file's chapter of REFERENCE.md.
pub(crate) const CHAPTER: &str = include_str!("chapter.md");

/// What verbs there are: those of resources, and the methods of other paths (Kubernetes \"Authorization\").
const VERBS: [&str; 14] = [
    "*",
    "create",
    "delete",
    "deletecollection",
    "get",
    "head",
    "list",
    "options",
    "patch",
    "post",
    "proxy",
    "put",
    "update",
    "watch",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    callers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    #[serde(default)]
    tokens: Vec<Spanned<String>>,
    #[serde(default)]
    certificates: Vec<Spanned<String>>,
    #[serde(default)]
    networks: Vec<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Allowed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    clusters: Vec<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    verbs: Option<Vec<Spanned<String>>>,
}

/// A key with nothing after it is a mistake: it must not mean all.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Spanned<String>>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

/// Checks what was read of the file at `path`.
///
/// # Errors
/// Every mistake found, each with file, line and key.
pub(super) fn judge(path: &str, contents: &Contents) -> Result<Policy, Vec<ConfigError>> {
    let place = format!("--callers {path}");
    let bytes = contents.of(path).map_err(|unread| vec![ConfigError::new(&place, format!("cannot be read: {unread}"))])?;
    parse(&place, bytes)
}

/// Checks the text of a callers file; `place` says where it stands.
///
/// # Errors
/// As [`judge`].
pub(super) fn parse(place: &str, bytes: &[u8]) -> Result<Policy, Vec<ConfigError>> {
    let file: File = proxy::file::parse(place, bytes).map_err(|error| vec![error])?;
    let mut reading = Reading { place, errors: Vec::new(), taken: BTreeMap::new() };
    let callers = file.callers.into_iter().enumerate().map(|(index, entry)| reading.caller(index, entry)).collect();
    if reading.errors.is_empty() { Ok(Policy::new(callers)) } else { Err(reading.errors) }
}

struct Reading<'a> {
    place: &'a str,
    errors: Vec<ConfigError>,
    /// What must be distinct, as (kind, text), and the caller that has it.
    taken: BTreeMap<(&'static str, String), usize>,
}

impl Reading<'_> {
    fn caller(&mut self, index: usize, entry: Entry) -> Known {
        let at = format!("callers[{index}]");
        let Entry { name, tokens, certificates, networks, allow } = entry;
        if tokens.is_empty() && certificates.is_empty() && networks.is_empty() {
            self.fail(&name, &at, "has no tokens, certificates or networks by which it could be known".to_owned());
        }
        self.name(index, &name);
        Known {
            name: name.value.as_str().into(),
            n_plain_tokens: tokens.iter().filter(|token| !TokenDigest::is_digest(&token.value)).count(),
            tokens: self.each(index, "tokens", tokens, |text| TokenDigest::read(text).map(|digest| (digest.hex(), digest))),
            certificates: self.each(index, "certificates", certificates, |text| text.parse().map(|name| (text.to_owned(), name))),
            networks: self.each(index, "networks", networks, |text| network(text).map(|network| (network.to_string(), network))),
            rules: allow.into_iter().enumerate().map(|(n, rule)| self.rule(&format!("{at}.allow[{n}]"), rule)).collect(),
        }
    }

    fn name(&mut self, index: usize, name: &Spanned<String>) {
        let key = format!("callers[{index}].name");
        // The rule of clusters' ids, since a caller's name stands where they do: in labels and log lines.
        if name.value.parse::<ClusterId>().is_err() {
            let problem = format!(
                "{:?} is not 1-{} characters of a-z, 0-9, '.' and '-' with a letter or digit at each end",
                name.value,
                ClusterId::LEN_MAX
            );
            self.fail(name, &key, problem);
        }
        if name.value == ANONYMOUS {
            self.fail(name, &key, format!("{ANONYMOUS:?} is what who is not known is called"));
        }
        self.distinct(index, "name", name.value.clone(), name, &key);
    }

    /// What `read` makes of each text, and of each a spelling by which two that are the same are known.
    fn each<T>(
        &mut self,
        index: usize,
        kind: &'static str,
        texts: Vec<Spanned<String>>,
        read: impl Fn(&str) -> Result<(String, T), String>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let key = format!("callers[{index}].{kind}[{n}]");
            match read(&text.value) {
                Ok((spelling, value)) => {
                    self.distinct(index, kind, spelling, text, &key);
                    values.push(value);
                }
                Err(problem) => self.fail(text, &key, problem),
            }
        }
        values
    }

    fn rule(&mut self, at: &str, rule: Allowed) -> Rule {
        let mut clusters = Vec::new();
        for (n, text) in rule.clusters.iter().enumerate() {
            match pattern(&text.value) {
                Ok(pattern) => clusters.push(pattern),
                Err(problem) => self.fail(text, &format!("{at}.clusters[{n}]"), problem),
            }
        }
        let Some(verbs) = rule.verbs else { return Rule { clusters, verbs: None } };
        for (n, verb) in verbs.iter().enumerate() {
            if !VERBS.contains(&verb.value.as_str()) {
                self.fail(verb, &format!("{at}.verbs[{n}]"), format!("{:?} is none of {}", verb.value, VERBS.join(", ")));
            }
        }
        let verbs: BTreeSet<_> = verbs.into_iter().map(|verb| verb.value).collect();
        Rule { clusters, verbs: (!verbs.contains("*")).then_some(verbs) }
    }

    /// Adds a mistake when another caller has the same.
    fn distinct(&mut self, index: usize, kind: &'static str, spelling: String, text: &Spanned<String>, key: &str) {
        if let Some(other) = self.taken.insert((kind, spelling), index).filter(|other| *other != index) {
            self.fail(text, key, format!("callers[{other}] has the same"));
        }
    }

    fn fail(&mut self, at: &Spanned<String>, key: &str, problem: String) {
        self.errors.push(proxy::file::mistake(self.place, at, key, problem));
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is no network such as 10.0.0.0/8 or fd00::/8");
    let network: IpNet = text.parse().map_err(|_| wrong())?;
    if network != network.trunc() {
        return Err(format!("{text:?} has bits behind its prefix; {} is meant, or an address with /32", network.trunc()));
    }
    Ok(network)
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let wrong = || format!("{text:?} is no cluster's id, nor the beginning of one and a *");
    match text.strip_suffix('*') {
        Some(beginning) if beginning.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-')) => {
            Ok(Pattern::Beginning(beginning.to_owned()))
        }
        Some(_) => Err(wrong()),
        None => text.parse().map(|id: ClusterId| Pattern::Exactly(id.to_string())).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proxy::flags::Mistakes;

    use super::*;

    const PLACE: &str = "--callers c.yaml";

    #[test]
    fn the_example_of_the_reference_is_a_good_file() {
        let example = CHAPTER.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```"));
        parse(PLACE, example.expect("an example").0.as_bytes()).map(drop).expect("a good file");
    }

    #[test]
    fn json_is_taken_too_and_a_list_without_callers_lets_nobody_in() {
        parse(PLACE, br#"{"callers": [{"name": "a", "tokens": ["x"]}]}"#).map(drop).expect("a good file");
        parse(PLACE, b"callers: []").map(drop).expect("a good file");
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_key() {
        let text = r#"callers:
- name: Argo CD
  tokens: ["hush-hush", "sha256:hush", ""]
- name: b
  tokens:
  - hush-hush
  certificates: ["cn:", "argocd", "uri:hub", "cn:b"]
  networks: ["10.0.0.1/8", "10.0.0.0", "fd00::/8"]
  allow:
  - clusters: ["edge-*", "*-1", "Edge", ""]
    verbs: ["get", "exec", "*"]
- name: c
- name: b
  certificates: ["cn:b"]
  networks:
    - "fd00::/8"
"#;
        let Err(errors) = parse(PLACE, text.as_bytes()) else { panic!("mistakes") };
        insta::assert_snapshot!("caller_mistakes", Mistakes(&errors));
        assert!(!Mistakes(&errors).to_string().contains("hush"), "a token is never echoed");
    }

    #[test]
    fn a_token_and_its_digest_are_the_same() {
        let digest = TokenDigest::of_bytes(b"hush").hex();
        let text = format!("callers:\n- name: a\n  tokens: [hush]\n- name: b\n  tokens: ['sha256:{digest}']\n");
        let Err(errors) = parse(PLACE, text.as_bytes()) else { panic!("a mistake") };
        assert_eq!(
            Mistakes(&errors).to_string(),
            "configuration error: --callers c.yaml:5: callers[1].tokens[0]: callers[0] has the same"
        );
    }

    #[test]
    fn what_is_no_callers_file_is_refused_as_a_whole() {
        let bad = [
            "",
            "[]",
            "callers:",
            "callers: 7",
            "calers: []",
            "callers: [\n",
            "callers:\n- name: a\n  token: hush\n",
            "callers:\n- name: a\n  tokens: hush\n",
            "callers:\n- name: a\n  tokens: [[hush]]\n",
            "callers:\n- name: a\n  tokens: [x]\n  allow:\n  - verbs: [get]\n",
            "callers:\n- name: a\n  tokens: [x]\n  allow:\n  - clusters: [a]\n    verbs:\n",
            "callers:\n- name: a\n  tokens: [x]\n  allow:\n  - {clusters: [a], verbs: null}\n",
            "callers:\n- tokens: [hush]\n",
            "callers: []\n---\ncallers: []\n",
        ];
        let told = bad.map(|text| match parse(PLACE, text.as_bytes()) {
            Ok(_) => panic!("{text:?} was taken"),
            Err(errors) => format!("{text:?}\n  {}\n", Mistakes(&errors)),
        });
        insta::assert_snapshot!("no_callers_file", told.concat());
        assert!(told.iter().all(|told| !told.lines().skip(1).any(|line| line.contains("hush"))), "a token is never echoed");
    }
}
