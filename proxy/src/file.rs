//! Policy files: YAML (and so JSON) into types, with one message for the first mistake: file, line and key.

use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

use crate::flags::ConfigError;

/// Reads `bytes` as one document of `T`; `place` says where they stand, such as `--guard /etc/guard.yaml`.
///
/// Types should be `deny_unknown_fields`: a key with a slip in it must not go unnoticed. An empty document is a mistake too:
/// it is what a write that broke off leaves behind.
///
/// # Errors
/// What is wrong, with the line and the key.
pub fn parse<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ConfigError::new(place, "is not UTF-8"))?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(ConfigError::new(place, "is empty; {} says that there is nothing to say"));
    }
    let mut key = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            key = error.path().to_string();
            error.into_inner()
        })
    });
    parsed.map_err(|error| {
        let line = error.location().map(|location| format!(":{}", location.line())).unwrap_or_default();
        // The inside of a `Spanned` is no key of the file.
        let key = key.strip_suffix(".value").unwrap_or(&key);
        let key = if matches!(key, "" | "." | "?") { String::new() } else { format!(": {key}") };
        let words = error.without_snippet().to_string();
        // The place is told already, and its options are not its user's.
        let words = words.split(" at line ").next().unwrap_or(&words).split(", set DuplicateKeyPolicy").next().unwrap_or(&words);
        ConfigError::new(format!("{place}{line}{key}"), words)
    })
}

/// A mistake in a value that could be read, at its line. `key` is written as in `callers[0].name`.
pub fn mistake<T>(place: &str, value: &Spanned<T>, key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::new(format!("{place}:{}: {key}", value.defined.line()), problem)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Policy {
        rules: Vec<Rule>,
        #[serde(default)]
        read_only: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        verb: Spanned<String>,
    }

    fn told(text: &str) -> String {
        parse::<Policy>("--guard g.yaml", text.as_bytes()).map_or_else(|error| error.to_string(), |_| "good".to_owned())
    }

    #[test]
    fn a_mistake_names_file_line_and_key() {
        let told: Vec<_> = [
            "rules:\n- verb: get\nreadOnly: true\n",
            "{\"rules\": [{\"verb\": \"get\"}]}",
            "",
            "# nothing\n",
            "rules:\n- verb: get\nreadonly: true\n",
            "rules:\n- verb: get\n- verbs: list\n",
            "rules:\n- verb: [get]\n",
            "rules: 7\n",
            "rules:\n- verb: get\nreadOnly: perhaps\n",
            "readOnly: true\n",
            "rules: [\n",
            "[1, 2]",
            "rules:\n- verb: get\nrules: []\n",
            "\u{0}\u{1}binary",
        ]
        .map(told)
        .to_vec();
        insta::assert_snapshot!(told.join("\n"));
        let error = parse::<Policy>("--guard g.yaml", b"\xff\xfe").expect_err("no text");
        assert_eq!(error.to_string(), "--guard g.yaml: is not UTF-8");
    }

    #[test]
    fn a_value_knows_its_line() {
        let policy: Policy = parse("g.yaml", b"rules:\n- verb: get\n\n- verb: brew\n").expect("a good file");
        assert!(!policy.read_only);
        let error = mistake("g.yaml", &policy.rules[1].verb, "rules[1].verb", "is no verb");
        assert_eq!(error.to_string(), "g.yaml:4: rules[1].verb: is no verb");
    }
}
