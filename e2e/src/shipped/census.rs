//! All objects of a cluster, to see what an installation leaves behind.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Place;

/// Objects that come and go by themselves: what happened, and what clusters count.
const FLEETING: [&str; 4] = ["events", "events.events.k8s.io", "componentstatuses", "leases.coordination.k8s.io"];

/// Every object of a cluster by kind, namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census(BTreeSet<String>);

impl Census {
    /// Counts all objects of all kinds that can be listed.
    pub fn take(place: &Place) -> Result<Self> {
        let kinds = place.admin.ok(&["api-resources", "--verbs=list", "-o", "name"])?;
        let kinds: Vec<_> = kinds.lines().filter(|kind| !FLEETING.contains(kind)).collect();
        let listed = place.admin.json(&[
            "get",
            &kinds.join(","),
            "--all-namespaces",
            "--ignore-not-found",
            "--show-managed-fields=false",
        ])?;
        let items = listed["items"].as_array().context("a list of objects")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |object: &Value| {
            let meta = &object["metadata"];
            format!(
                "{} {} {}/{}",
                text(&object["apiVersion"]),
                text(&object["kind"]),
                text(&meta["namespace"]),
                text(&meta["name"])
            )
        };
        Ok(Self(items.iter().map(name).collect()))
    }

    /// What is here and was not in `before`.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}
