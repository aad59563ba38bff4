//! Labels and annotations of a cluster, as Kubernetes takes them; those that the server sets itself are not for a file.

use std::collections::BTreeMap;

use crate::argocd::secret;

/// The longest name in a key, and the longest value of a label (Kubernetes: labels and selectors).
const NAME_MAX: usize = 63;

/// The longest prefix of a key: a DNS subdomain (RFC 1123).
const PREFIX_MAX: usize = 253;

/// Bytes of all annotations of a cluster: half of what Kubernetes takes, so that others find room for theirs.
const ANNOTATIONS_MAX: usize = 128 * 1024;

/// What is wrong with a cluster's labels.
pub(super) fn judge_labels(labels: &BTreeMap<String, String>) -> Vec<String> {
    let of_value = |key: &str, value: &str| {
        let good = value.is_empty() || is_name(value);
        let rule = "at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends";
        (!good).then(|| format!("{key}: {value:?} is no value of a label: {rule}"))
    };
    let wrong = labels.iter().filter_map(|(key, value)| of_key(key, secret::is_own_label(key)).or_else(|| of_value(key, value)));
    wrong.collect()
}

/// What is wrong with a cluster's annotations.
pub(super) fn judge_annotations(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let wrong = annotations.keys().filter_map(|key| of_key(key, secret::is_own_annotation(key)));
    // Each key stands there a second time, with a comma, in the record of what came from the file.
    let n_bytes: usize = annotations.iter().map(|(key, value)| 2 * key.len() + 1 + value.len()).sum();
    let too_long = (n_bytes > ANNOTATIONS_MAX).then(|| format!("has {n_bytes} bytes, at most {ANNOTATIONS_MAX} are taken"));
    wrong.chain(too_long).collect()
}

fn of_key(key: &str, is_own: bool) -> Option<String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !is_name(name) {
        return Some(format!("{key:?} is no key: its name needs 1 to 63 letters, digits, '-', '_' or '.'"));
    }
    if !prefix.is_none_or(is_subdomain) {
        return Some(format!("{key:?} is no key: what stands before the slash must be a DNS name in lower case"));
    }
    is_own.then(|| format!("{key} is set by the server itself"))
}

/// The name in a key, or the value of a label.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= NAME_MAX && bytes.iter().all(|byte| inner(*byte)) && outer(bytes.first()) && outer(bytes.last())
}

/// A DNS subdomain (RFC 1123) as Kubernetes has it: labels of lower case, joined by dots.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= PREFIX_MAX && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        let long = "x".repeat(63);
        let labels =
            [("env", "prod"), ("example.com/Tier_1.a", ""), ("a", long.as_str()), (long.as_str(), "1"), ("9", "A.b-c_d")];
        assert!(judge_labels(&map(&labels)).is_empty());
        assert!(judge_annotations(&map(&[("example.com/note", "any text: ä\n"), ("n", "")])).is_empty());
    }

    #[test]
    fn what_kubernetes_would_refuse_is_told_with_its_key() {
        let (long, far) = ("x".repeat(64), format!("{}/a", "a".repeat(254)));
        let keys = ["", "-a", "a-", "a b", "a/b/c", "/a", "Up.example/a", "a..b/c", long.as_str(), far.as_str(), "ä"];
        for key in keys {
            assert_eq!(judge_labels(&map(&[(key, "v")])).len(), 1, "{key}");
            assert_eq!(judge_annotations(&map(&[(key, "v")])).len(), 1, "{key}");
        }
        for value in ["-a", "a.", "a b", "a/b", long.as_str(), "ä"] {
            let told = judge_labels(&map(&[("key", value)]));
            assert!(told.len() == 1 && told[0].starts_with("key: "), "{told:?}");
        }
        let (fits, exceeds) = ("x".repeat(ANNOTATIONS_MAX - 3), "x".repeat(ANNOTATIONS_MAX - 2));
        let n_mistakes = |value: &str| judge_annotations(&map(&[("a", value)])).len();
        assert_eq!([n_mistakes(&fits), n_mistakes(&exceeds)], [0, 1], "its key is there twice, and a comma");
    }

    #[test]
    fn what_is_the_servers_own_is_not_for_a_file() {
        for key in ["argocd.argoproj.io/secret-type", "app.kubernetes.io/managed-by"] {
            assert_eq!(judge_labels(&map(&[(key, "x")])), [format!("{key} is set by the server itself")]);
        }
        for key in ["argocd.argoproj.io/skip-reconcile", "postern/hub", "postern/anything"] {
            assert_eq!(judge_annotations(&map(&[(key, "x")])), [format!("{key} is set by the server itself")]);
        }
    }
}
