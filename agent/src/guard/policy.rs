//! The customer's policy: what the cluster's own people allow, as they write it.
//!
//! Keys are those of Kubernetes RBAC where RBAC has them, and mean the same.

use std::fmt;

use proxy::file;
use proxy::flags::ConfigError;
use proxy::impersonation::Impersonation;
use serde::{Deserialize, Deserializer};

/// Rules of one kind. Each request is compared with each; 500 are some microseconds.
const RULES_MAX: usize = 500;

/// Words in one list of a rule: all resources of a large cluster and more.
const WORDS_MAX: usize = 1000;

/// The verbs of requests for a resource, as `RequestInfo` has them.
const RESOURCE_VERBS: [&str; 10] =
    ["*", "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"];

/// The verbs of requests for another path: methods.
const PATH_VERBS: [&str; 7] = ["*", "get", "head", "post", "put", "patch", "delete"];

/// What a policy file says; by default nothing beyond what always holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Policy {
    /// Nothing passes.
    pub(crate) frozen: bool,
    /// Only what changes nothing passes.
    pub(crate) read_only: bool,
    /// Whether callers may enter pods.
    pub(crate) exec: bool,
    /// Whether callers may have to do with Secrets.
    pub(crate) secrets: bool,
    /// Whom a request may impersonate.
    pub(crate) impersonate: Impersonation,
    /// When given, only what one of these matches passes.
    #[serde(deserialize_with = "given_rules")]
    pub(crate) allow: Option<Vec<Rule>>,
    /// What one of these matches does not pass, whatever is allowed.
    #[serde(deserialize_with = "rules")]
    pub(crate) deny: Vec<Rule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            frozen: false,
            read_only: false,
            exec: true,
            secrets: true,
            impersonate: Impersonation::default(),
            allow: None,
            deny: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads a policy file; `place` says where it stands.
    ///
    /// # Errors
    /// Its first mistake, with line and key.
    pub(crate) fn read(place: &str, bytes: &[u8]) -> Result<Self, ConfigError> {
        file::parse(place, bytes)
    }

    /// Whether it matters what a request is for.
    pub(super) fn restricts(&self) -> bool {
        self.read_only || !self.exec || !self.secrets || self.allow.is_some() || !self.deny.is_empty()
    }
}

/// What passes, in a line.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "what changes nothing" } else { "all" })?;
        if let Some(allow) = &self.allow {
            write!(f, " that one of {} rules allows", allow.len())?;
        }
        let exceptions = [(!self.exec, "no exec"), (!self.secrets, "no Secrets")];
        for (_, word) in exceptions.iter().filter(|(applies, _)| *applies) {
            write!(f, ", {word}")?;
        }
        if !self.deny.is_empty() {
            write!(f, ", nothing that one of {} rules denies", self.deny.len())?;
        }
        Ok(())
    }
}

/// Some requests. What a rule does not name it does not narrow down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Keys")]
pub(crate) struct Rule {
    pub(super) verbs: Option<Vec<String>>,
    pub(super) about: About,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    /// Resources of the API. `None` = any.
    Resources {
        groups: Option<Vec<String>>,
        /// `pods`, `pods/log`, `*/scale`, `*`.
        resources: Option<Vec<String>>,
        namespaces: Option<Vec<String>>,
        names: Option<Vec<String>>,
    },
    /// All else; a `*` at the end stands for any rest.
    Paths(Vec<String>),
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Keys {
    #[serde(deserialize_with = "given")]
    verbs: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    api_groups: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    resources: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    namespaces: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    resource_names: Option<Vec<String>>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "given")]
    non_resource_urls: Option<Vec<String>>,
}

impl TryFrom<Keys> for Rule {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { verbs, api_groups: groups, resources, namespaces, resource_names: names, non_resource_urls: paths } = keys;
        let is_about_resources = [&groups, &resources, &namespaces, &names].into_iter().any(Option::is_some);
        let known = match (is_about_resources, &paths) {
            (true, None) => RESOURCE_VERBS.as_slice(),
            (false, Some(_)) => PATH_VERBS.as_slice(),
            (true, Some(_)) => return Err("a rule has nonResourceURLs or keys of resources, not both".to_owned()),
            (false, None) => {
                return Err("a rule needs apiGroups, resources, namespaces or resourceNames, or else nonResourceURLs".to_owned());
            }
        };
        check("verbs", verbs.as_deref(), |verb| match known.contains(&verb) {
            true => Ok(()),
            false => Err(format!("{verb:?} is no verb of such a request; there are {}", known.join(", "))),
        })?;
        check("apiGroups", groups.as_deref(), |group| is_name(group, true))?;
        check("resources", resources.as_deref(), is_resource)?;
        check("namespaces", namespaces.as_deref(), |namespace| is_name(namespace, false))?;
        check("resourceNames", names.as_deref(), |name| is_name(name, false))?;
        check("nonResourceURLs", paths.as_deref(), is_path)?;
        let about = match paths {
            Some(paths) => About::Paths(paths),
            None => About::Resources { groups, resources, namespaces, names },
        };
        Ok(Self { verbs, about })
    }
}

/// A list is there for a reason, so an empty one is a slip; "any" is said by leaving the key out.
fn check(key: &str, words: Option<&[String]>, is_good: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    match words.map(<[String]>::len) {
        Some(0) => return Err(format!("{key} is empty; without the key a rule means any")),
        Some(WORDS_MAX..) => return Err(format!("{key} has {WORDS_MAX} words or more")),
        Some(_) | None => {}
    }
    words.unwrap_or_default().iter().try_for_each(|word| is_good(word).map_err(|problem| format!("{key}: {problem}")))
}

/// A name that can stand in a path; for groups also `*`, and the empty core group.
fn is_name(name: &str, is_group: bool) -> Result<(), String> {
    if is_group && matches!(name, "" | "*") {
        return Ok(());
    }
    if name.is_empty() || name.contains(['/', '*', '%']) || name.chars().any(char::is_whitespace) {
        return Err(format!("{name:?} is no name; a name is given exactly"));
    }
    Ok(())
}

fn is_resource(resource: &str) -> Result<(), String> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let good = match resource.split_once('/') {
        None => resource == "*" || is_word(resource),
        Some((resource, subresource)) => (resource == "*" || is_word(resource)) && is_word(subresource),
    };
    if good { Ok(()) } else { Err(format!("{resource:?} is no resource such as pods, pods/log, */scale or *")) }
}

fn is_path(path: &str) -> Result<(), String> {
    let fixed = path.strip_suffix('*').unwrap_or(path);
    let good = path == "*" || (fixed.starts_with('/') && !fixed.contains(['*', '%', '?', '#']) && !fixed.contains("//"));
    if good { Ok(()) } else { Err(format!("{path:?} is no path such as /version, /healthz/* or *")) }
}

/// A key with nothing after it is a mistake: it must not mean any.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

fn given_rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Rule>>, D::Error> {
    // `allow:` with nothing after it is a mistake; it is no way to allow all.
    rules(deserializer).map(Some)
}

fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let rules = Vec::<Rule>::deserialize(deserializer)?;
    match rules.len() {
        0..=RULES_MAX => Ok(rules),
        n => Err(serde::de::Error::custom(format!("{n} rules; {RULES_MAX} at most"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_rbac_and_missing_ones_restrict_nothing() {
        let policy = read(
            "frozen: false
readOnly: true
exec: false
secrets: false
impersonate:
  users: [\"system:serviceaccount:argocd:*\"]
  groups: [dev]
allow:
- verbs: [get, list]
  apiGroups: [\"\", apps]
  resources: [pods, pods/log, \"*/scale\"]
  namespaces: [shop]
  resourceNames: [web]
- nonResourceURLs: [/version, /healthz/*]
deny:
- resources: [\"*\"]
",
        );
        let policy = policy.expect("a good policy");
        assert!(policy.read_only && !policy.exec && !policy.secrets && !policy.frozen);
        assert_eq!((policy.allow.map(|rules| rules.len()), policy.deny.len()), (Some(2), 1));
        assert_eq!(read("{}").expect("a good policy"), Policy::default());
        assert!(!Policy::default().restricts());
    }

    #[test]
    fn a_mistake_is_told_with_line_and_key() {
        let mistakes = [
            "readonly: true",
            "readOnly: sometimes",
            "deny:\n- verbs: [delete]\n",
            "deny:\n- resources: [pods]\n  nonResourceURLs: [/x]\n",
            "exec: false\ndeny:\n- resources: [pods]\n- verbs: [read]\n  resources: [pods]\n",
            "allow:\n- resources: []\n",
            "allow:\n- resources: [\"pods/*\"]\n",
            "allow:\n- resources: [Pods]\n",
            "allow:\n- namespaces: [\"team-*\"]\n",
            "allow:\n- nonResourceURLs: [version]\n",
            "allow:\n- verb: get\n",
            "allow:\n- verbs: [list]\n  nonResourceURLs: [/version]\n",
            "impersonate: {users: [\"*\"]}",
            "impersonate: {uids: [a]}",
            "allow: 7",
            "",
            "~",
            "readOnly:",
            "exec: ~",
            "secrets: null",
            "allow:",
            "deny:",
            "deny:\n- ",
            "deny:\n- resources: [pods]\n  verbs:\n",
            "deny:\n- resources: [pods]\n  apiGroups: null\n",
            "deny:\n- namespaces: [a]\n  resources: ~\n",
            "allow:\n- resources: [pods]\n  namespaces:\n",
            "allow:\n- resources: [pods]\n  resourceNames:\n",
            "allow:\n- nonResourceURLs:\n",
            "allow:\n- resources: [~]\n",
        ];
        let told: Vec<_> = mistakes.iter().map(|text| read(text).expect_err(text).to_string()).collect();
        insta::assert_snapshot!("mistakes", told.join("\n"));
    }

    #[test]
    fn rules_and_words_have_limits() {
        let many = |n: usize, one: &str| vec![one; n].join(", ");
        assert!(read(&format!("deny: [{}]", many(RULES_MAX, "{resources: [a]}"))).is_ok());
        assert!(read(&format!("deny: [{}]", many(RULES_MAX + 1, "{resources: [a]}"))).is_err());
        assert!(read(&format!("deny: [{{resources: [{}]}}]", many(WORDS_MAX, "a"))).is_err());
    }

    #[test]
    fn allow_without_rules_is_not_the_same_as_no_allow() {
        assert!(read("allow: []").is_ok_and(|policy| policy.allow == Some(Vec::new())));
    }

    #[test]
    fn the_example_of_the_reference_is_a_good_policy() {
        let example = super::super::CHAPTER.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let policy = read(example.expect("an example")).expect("a good policy");
        assert!(policy.allow.is_some() && policy.deny.len() == 2);
    }

    fn read(text: &str) -> Result<Policy, ConfigError> {
        Policy::read("--guard g.yaml", text.as_bytes())
    }
}
