//! Argo CD as a caller: lists in pages, a watch for each kind, a cache of what they tell, and a steady load.

mod cache;
mod limiter;
mod outside;
mod steady;

use std::ops::Deref;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use serde_json::Value;

pub use cache::{ClusterCache, Counts};
pub use outside::Outside;
pub use steady::{Load, Outcome};

use crate::caller::{Answer, Caller, Reply};

/// The page size of Argo CD's cluster cache.
pub const PAGE: usize = 500;

/// Argo CD's application controller.
#[derive(Clone)]
pub struct ArgoCd(Caller);

impl ArgoCd {
    pub(crate) fn new(caller: Caller) -> Self {
        Self(caller)
    }

    /// The same over other connections, also of another protocol.
    pub fn over(&self, protocol: crate::caller::Protocol) -> Self {
        Self(self.0.over(protocol))
    }

    /// The same with another identity, say.
    pub fn with(&self, change: impl FnOnce(&Caller) -> Caller) -> Self {
        Self(change(&self.0))
    }

    /// Lists everything under `path` in pages; how many items there are, and the version to watch from.
    pub async fn list(&self, cluster: &str, path: &str) -> anyhow::Result<(usize, String)> {
        let (mut n_items, mut version) = (0, String::new());
        let mut next = Some(String::new());
        while let Some(token) = next {
            let page = Page::of(self.get(cluster, &Page::target(path, &token)).await?)?;
            n_items += page.items.len();
            (version, next) = (page.version, page.next);
        }
        Ok((n_items, version))
    }

    /// Watches `path` from a version on; with an empty one, from a snapshot of what is there.
    pub async fn watch(&self, cluster: &str, path: &str, version: &str) -> anyhow::Result<Answer> {
        let answer = self.get(cluster, &format!("{path}?watch=true&resourceVersion={version}")).open().await?;
        anyhow::ensure!(answer.status == StatusCode::OK, "the watch got {}", answer.status);
        Ok(answer)
    }

    /// Starts a cache of all kinds of a cluster, over connections of its own; it is warm when [`ClusterCache::n_warm`]
    /// says so.
    pub fn cache(&self, cluster: &str) -> ClusterCache {
        ClusterCache::start(&self.0, cluster)
    }

    /// Starts a load of one request every so often (see [`crate::story::rps`]) on a cluster: objects, pages, small patches.
    pub fn steady(&self, cluster: &str, every: Duration) -> Load {
        Load::start(&self.0, cluster, "default", every)
    }
}

impl Deref for ArgoCd {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// One page of a list.
struct Page {
    items: Vec<Value>,
    version: String,
    /// Where the next page begins, if there is one.
    next: Option<String>,
}

impl Page {
    fn target(path: &str, token: &str) -> String {
        if token.is_empty() { format!("{path}?limit={PAGE}") } else { format!("{path}?limit={PAGE}&continue={token}") }
    }

    fn of(reply: Reply) -> anyhow::Result<Self> {
        let mut page: Value = serde_json::from_slice(&reply.expect(StatusCode::OK)?.body).context("a list that is no JSON")?;
        let text = |field: &str| page["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (version, next) = (text("resourceVersion"), Some(text("continue")).filter(|token| !token.is_empty()));
        let Value::Array(items) = page["items"].take() else { anyhow::bail!("a list without items") };
        Ok(Self { items, version, next })
    }
}
