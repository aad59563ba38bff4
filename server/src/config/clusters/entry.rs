//! One entry as it is written: its keys in any case, each with its line.

use std::collections::BTreeMap;
use std::fmt;

use proxy::flags::ConfigError;
use proxy::impersonation::Impersonation;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Reading;

/// What stands under one key.
#[derive(Default)]
pub(super) enum Field<T> {
    #[default]
    Missing,
    /// Told already.
    Wrong,
    /// And its line.
    Given(T, usize),
}

impl<T> Field<Vec<T>> {
    /// The members of a list, each with the line of the list.
    pub(super) fn given(self) -> Option<Vec<(T, usize)>> {
        match self {
            Self::Given(list, line) => Some(list.into_iter().map(|member| (member, line)).collect()),
            Self::Missing | Self::Wrong => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Entry {
    /// Where it begins.
    pub(super) line: usize,
    pub(super) id: Field<String>,
    pub(super) token: Field<String>,
    pub(super) tokens: Field<Vec<String>>,
    pub(super) certificates: Field<Vec<String>>,
    pub(super) target: Field<String>,
    pub(super) alias: Field<String>,
    pub(super) impersonate: Field<Impersonation>,
    pub(super) labels: Field<BTreeMap<String, String>>,
    pub(super) annotations: Field<BTreeMap<String, String>>,
}

impl Entry {
    /// Reads an entry, with every mistake told; `None` when it is no object.
    pub(super) fn read(reading: &mut Reading<'_>, index: usize, json: &RawValue) -> Option<Self> {
        let mut entry = Self { line: reading.line(json), ..Self::default() };
        let Ok(Pairs(pairs)) = serde_json::from_str(json.get()) else {
            reading.errors.push(ConfigError::new(format!("{}:{}: [{index}]", reading.place, entry.line), "is not an object"));
            return None;
        };
        for (key, value) in pairs {
            let line = reading.line(value);
            let read = match key.to_ascii_lowercase().as_str() {
                "id" => take(&mut entry.id, value, line, "a string"),
                "token" => take(&mut entry.token, value, line, "a string"),
                "tokens" => take(&mut entry.tokens, value, line, "a list of strings"),
                "certificates" if value.get() == "null" => {
                    entry.certificates = Field::Wrong;
                    Err("is null; without the key no certificate is needed".to_owned())
                }
                "certificates" => take(&mut entry.certificates, value, line, "a list of strings"),
                "targetaddr" => take(&mut entry.target, value, line, "a string"),
                "alias" => take(&mut entry.alias, value, line, "a string"),
                "impersonate" => take(&mut entry.impersonate, value, line, "an object such as {\"users\": [], \"groups\": []}")
                    .map_err(|problem| with_cause::<Impersonation>(problem, value)),
                "labels" => take(&mut entry.labels, value, line, "an object of strings"),
                "annotations" => take(&mut entry.annotations, value, line, "an object of strings"),
                other if let Some(meant) = meant(other) => Err(format!("is no known key; did you mean {meant}?")),
                _ => {
                    let place = reading.place;
                    let warning = format!("{place}:{line}: [{index}].{key} is no known key, it has no effect");
                    reading.clusters.warnings.push(warning);
                    Ok(())
                }
            };
            if let Err(problem) = read {
                reading.fail(line, index, &key, problem);
            }
        }
        Some(entry)
    }
}

/// The key that restricts a cluster, if this one in lower case looks like a slip of it: it must not go unnoticed.
fn meant(key: &str) -> Option<&'static str> {
    let key: String = key.chars().filter(char::is_ascii_alphabetic).collect();
    let key = key.strip_suffix('s').unwrap_or(&key);
    let is_like = |start: &str, end: &str| key.starts_with(start) || key.ends_with(end);
    if is_like("certif", "ficate") || key == "cert" {
        Some("certificates")
    } else {
        is_like("imperson", "sonate").then_some("impersonate")
    }
}

fn take<T: DeserializeOwned>(field: &mut Field<T>, json: &RawValue, line: usize, what: &str) -> Result<(), String> {
    // As in Go, where null leaves a field as it was.
    if json.get() == "null" {
        return Ok(());
    }
    let (value, problem) = match (&field, serde_json::from_str(json.get())) {
        (Field::Given(..) | Field::Wrong, _) => return Err("is given twice, in the same or another spelling".to_owned()),
        (Field::Missing, Ok(value)) => (Field::Given(value, line), Ok(())),
        (Field::Missing, Err(_)) => (Field::Wrong, Err(format!("is not {what}"))),
    };
    *field = value;
    problem
}

/// What is wrong inside a value that holds no secret.
fn with_cause<T: DeserializeOwned>(problem: String, json: &RawValue) -> String {
    match serde_json::from_str::<T>(json.get()) {
        Ok(_) => problem,
        Err(error) => format!("{problem}: {}", error.to_string().split(" at line ").next().unwrap_or_default()),
    }
}

impl Reading<'_> {
    /// The line of a part of the text.
    fn line(&self, part: &RawValue) -> usize {
        let offset = (part.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.newlines.partition_point(|newline| *newline < offset)
    }
}

/// The members of an object in their order, the same key twice when it is there twice.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
