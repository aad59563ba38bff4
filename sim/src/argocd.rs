//! Argo CD as a caller: lists in pages, a watch for each kind.

use std::ops::Deref;

use anyhow::Context;
use http::StatusCode;
use serde_json::Value;

use crate::caller::{Answer, Caller};

/// The page size of Argo CD's cluster cache.
const PAGE: usize = 500;

/// Argo CD's application controller.
#[derive(Clone)]
pub struct ArgoCd(Caller);

impl ArgoCd {
    pub(crate) fn new(caller: Caller) -> Self {
        Self(caller)
    }

    /// Lists everything under `path` in pages; how many items there are, and the version to watch from.
    pub async fn list(&self, cluster: &str, path: &str) -> anyhow::Result<(usize, String)> {
        let mut n_items = 0;
        let mut next = String::new();
        loop {
            let page = self.get(cluster, &format!("{path}?limit={PAGE}{next}")).await?.expect(StatusCode::OK)?;
            let page: Value = serde_json::from_slice(&page.body).context("a list that is no JSON")?;
            n_items += page["items"].as_array().context("a list without items")?.len();
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                Some(_) | None => {
                    return Ok((n_items, page["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()));
                }
            }
        }
    }

    /// Watches `path` from a version on; with an empty one, from a snapshot of what is there.
    pub async fn watch(&self, cluster: &str, path: &str, version: &str) -> anyhow::Result<Answer> {
        let answer = self.get(cluster, &format!("{path}?watch=true&resourceVersion={version}")).open().await?;
        anyhow::ensure!(answer.status == StatusCode::OK, "the watch got {}", answer.status);
        Ok(answer)
    }
}

impl Deref for ArgoCd {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}
