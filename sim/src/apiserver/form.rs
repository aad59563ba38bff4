//! The forms an object is shown in, as the `Accept` header asks: itself, its metadata alone, or a row of a table.

use http::HeaderMap;
use http::header::ACCEPT;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::{Cell, Kind};
use super::status::Status;

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Object,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`, each row with the object's metadata or (`includeObject=Object`) the whole of it.
    Table { whole: bool },
}

impl Form {
    /// The first form of the `Accept` header that is served.
    pub(crate) fn negotiate(headers: &HeaderMap, include_object: Option<&str>) -> Result<Self, Status> {
        let accepted: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accepted = accepted.join(",");
        if accepted.trim().is_empty() {
            return Ok(Self::Object);
        }
        accepted.split(',').find_map(|range| Self::of(range, include_object)).ok_or_else(Status::not_acceptable)
    }

    fn of(range: &str, include_object: Option<&str>) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            return None;
        }
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter = |name: &str| parameters.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        match (parameter("as"), parameter("g"), parameter("v")) {
            (None, _, _) => Some(Self::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Self::Table { whole: include_object == Some("Object") }),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                Some(Self::Metadata)
            }
            _ => None,
        }
    }

    /// One object, also of a watch event.
    pub(crate) fn one(self, kind: &Kind, object: &Value, now: Timestamp) -> Value {
        match self {
            Self::Object => object.clone(),
            Self::Metadata => metadata_only(object),
            Self::Table { whole } => {
                let revision = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                table(kind, &revision, std::iter::once(object), whole, now)
            }
        }
    }

    /// A list with its metadata.
    pub(crate) fn list<'a>(
        self,
        kind: &Kind,
        metadata: &Value,
        objects: impl Iterator<Item = &'a Value>,
        now: Timestamp,
    ) -> Value {
        match self {
            Self::Object => {
                let items: Vec<_> = objects.map(without_type).collect();
                json!({ "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": items })
            }
            Self::Metadata => {
                let items: Vec<_> = objects.map(metadata_only).collect();
                json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items })
            }
            Self::Table { whole } => table(kind, metadata, objects, whole, now),
        }
    }

    /// The object of a bookmark: nothing but a revision.
    pub(crate) fn bookmark(self, kind: &Kind, revision: u64) -> Value {
        let metadata = json!({ "resourceVersion": revision.to_string() });
        match self {
            Self::Object => json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata }),
            Self::Metadata => json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata }),
            Self::Table { .. } => {
                json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": [], "rows": [] })
            }
        }
    }
}

/// Items of a typed list carry no type of their own.
fn without_type(object: &Value) -> Value {
    let Some(fields) = object.as_object() else { return object.clone() };
    let fields = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion"));
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn metadata_only(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn table<'a>(kind: &Kind, metadata: &Value, objects: impl Iterator<Item = &'a Value>, whole: bool, now: Timestamp) -> Value {
    let column = |name: &str, format: &str, priority: u8| json!({ "name": name, "type": "string", "format": format, "description": "", "priority": priority });
    let mut columns = vec![column("Name", "name", 0)];
    columns.extend(kind.columns.iter().filter(|c| c.priority == 0).map(|c| column(c.name, "", 0)));
    columns.push(column("Age", "", 0));
    columns.extend(kind.columns.iter().filter(|c| c.priority > 0).map(|c| column(c.name, "", c.priority)));
    let rows: Vec<_> = objects
        .map(|object| {
            let mut cells = vec![object["metadata"]["name"].clone()];
            cells.extend(kind.columns.iter().filter(|c| c.priority == 0).map(|c| cell(&c.cell, object)));
            cells.push(age(object, now).into());
            cells.extend(kind.columns.iter().filter(|c| c.priority > 0).map(|c| cell(&c.cell, object)));
            json!({ "cells": cells, "object": if whole { object.clone() } else { metadata_only(object) } })
        })
        .collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows })
}

fn cell(cell: &Cell, object: &Value) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let containers = || object["status"]["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    match cell {
        Cell::Text(pointer) => object.pointer(pointer).and_then(Value::as_str).unwrap_or("<none>").into(),
        Cell::Number(pointer) => number(pointer).into(),
        Cell::Count(pointer) => match object.pointer(pointer) {
            Some(Value::Object(fields)) => fields.len().into(),
            Some(Value::Array(items)) => items.len().into(),
            _ => 0.into(),
        },
        Cell::Ratio(part, whole) => format!("{}/{}", number(part), number(whole)).into(),
        Cell::PodReady => {
            let ready = containers().iter().filter(|container| container["ready"] == true).count();
            format!("{ready}/{}", object["spec"]["containers"].as_array().map_or(0, Vec::len)).into()
        }
        Cell::PodPhase if object["metadata"]["deletionTimestamp"].is_string() => "Terminating".into(),
        Cell::PodPhase => object["status"]["phase"].as_str().unwrap_or("Unknown").into(),
        Cell::PodRestarts => containers().iter().filter_map(|container| container["restartCount"].as_u64()).sum::<u64>().into(),
        Cell::NodeReady => {
            let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
            let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            if ready { "Ready".into() } else { "NotReady".into() }
        }
        Cell::Ports => {
            let ports = object["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
            let texts: Vec<_> =
                ports.iter().map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"))).collect();
            if texts.is_empty() { "<none>".into() } else { texts.join(",").into() }
        }
    }
}

/// As `kubectl` counts ages: two units at most, the smaller only while the larger is a small number.
fn age(object: &Value, now: Timestamp) -> String {
    let created = object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let Some(created) = created else { return "<unknown>".to_owned() };
    let seconds = (now.as_second() - created.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::kinds;
    use super::*;

    #[test]
    fn the_first_form_that_is_served_wins() {
        for (accept, wanted) in [
            ("application/json", Some(Form::Object)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Form::Table { whole: false })),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some(Form::Object)),
            ("application/vnd.kubernetes.protobuf, */*", Some(Form::Object)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Form::Metadata)),
            ("application/vnd.kubernetes.protobuf", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::negotiate(&headers, None).ok(), wanted, "{accept}");
        }
        assert_eq!(Form::negotiate(&HeaderMap::new(), None), Ok(Form::Object));
    }

    #[test]
    fn a_table_has_a_cell_for_every_column() {
        for kind in kinds::KINDS {
            let object = json!({ "metadata": { "name": "a", "creationTimestamp": "1970-01-01T00:00:00Z" } });
            let table = Form::Table { whole: false }.one(kind, &object, Timestamp::UNIX_EPOCH);
            let columns = table["columnDefinitions"].as_array().map(Vec::len);
            assert_eq!(table["rows"][0]["cells"].as_array().map(Vec::len), columns, "{}", kind.plural);
        }
    }

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (150, "2m30s"),
            (300, "5m"),
            (3600, "60m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (900_000, "10d"),
        ] {
            let now = Timestamp::from_second(seconds).expect("in range");
            let object = json!({ "metadata": { "creationTimestamp": "1970-01-01T00:00:00Z" } });
            assert_eq!(age(&object, now), text);
        }
    }
}
