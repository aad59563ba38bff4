//! LIST: selectors, pages that all show one revision, and the refusal of revisions that are gone or not there yet.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::form::Form;
use super::kinds::Kind;
use super::query::Query;
use super::select::Selector;
use super::status::Status;
use super::store::{Compacted, ObjectKey, Store};

/// What of a kind is listed or watched.
pub(crate) struct Scope {
    pub(crate) kind: &'static Kind,
    /// One namespace; all of them if absent.
    pub(crate) namespace: Option<String>,
    pub(crate) selector: Selector,
}

/// Where the next page begins, and at which revision all pages are read.
#[derive(Clone)]
struct Continue {
    /// None reads every page as it is when it is asked for.
    revision: Option<u64>,
    after: ObjectKey,
}

impl Scope {
    pub(crate) fn contains(&self, object: &Value) -> bool {
        let namespace = object["metadata"]["namespace"].as_str();
        self.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted)) && self.selector.matches(object)
    }
}

/// The page that `query` asks for.
///
/// With `gone` the history counts as forgotten.
pub(crate) fn list(store: &Store, scope: &Scope, query: &Query, form: Form, now: Timestamp, gone: bool) -> Result<Value, Status> {
    let page = query.get("continue").map(Continue::parse).transpose()?;
    let asked = asked_revision(query)?;
    if let Some(asked) = asked.filter(|asked| *asked > store.revision()) {
        return Err(Status::revision_too_large(asked, store.revision()));
    }
    let revision = match (&page, query.get("resourceVersionMatch")) {
        (Some(_), Some(_)) => return Err(Status::bad_request("resourceVersionMatch is forbidden when continue is provided")),
        (Some(page), None) => page.revision.unwrap_or(store.revision()),
        (None, Some("Exact")) => asked
            .filter(|revision| *revision > 0)
            .ok_or_else(|| Status::bad_request("resourceVersionMatch: Exact needs a resourceVersion"))?,
        (None, Some("NotOlderThan") | None) => store.revision(),
        (None, Some(other)) => return Err(Status::bad_request(format!("resourceVersionMatch: Unsupported value: {other:?}"))),
    };
    let named = page.as_ref().is_some_and(|page| page.revision.is_some()) || query.get("resourceVersionMatch") == Some("Exact");
    let objects = if gone && named { Err(Compacted) } else { store.objects_at(scope.kind, revision) };
    let objects = objects.map_err(|Compacted| match &page {
        Some(page) => Status::continue_expired(Continue { revision: None, ..page.clone() }.to_text()),
        None => Status::expired("The resourceVersion for the provided list is too old."),
    })?;
    let in_scope: Vec<_> = objects
        .iter()
        .filter(|(key, _)| page.as_ref().is_none_or(|page| **key > page.after))
        .filter(|(_, object)| scope.contains(object))
        .collect();
    let limit = query.number("limit")?.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = if limit == 0 { usize::MAX } else { limit };

    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if in_scope.len() > limit {
        let after = in_scope[limit - 1].0.clone();
        metadata["continue"] =
            Continue { revision: page.as_ref().map_or(Some(revision), |page| page.revision), after }.to_text().into();
        if scope.selector.is_empty() {
            metadata["remainingItemCount"] = (in_scope.len() - limit).into();
        }
    }
    Ok(form.list(scope.kind, &metadata, in_scope.into_iter().take(limit).map(|(_, object)| &**object), now))
}

/// The `resourceVersion` of a list or watch.
pub(crate) fn asked_revision(query: &Query) -> Result<Option<u64>, Status> {
    let parse = |text: &str| text.parse().map_err(|_| Status::bad_request(format!("invalid resource version {text:?}")));
    query.get("resourceVersion").map(parse).transpose()
}

impl Continue {
    fn parse(text: &str) -> Result<Self, Status> {
        let value: Option<Value> = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        value
            .and_then(|value| {
                let text = |field: &str| value[field].as_str().map(str::to_owned);
                Some(Self { revision: value["revision"].as_u64(), after: (text("namespace")?, text("name")?) })
            })
            .ok_or_else(|| Status::bad_request("continue key is not valid"))
    }

    fn to_text(&self) -> String {
        let (namespace, name) = &self.after;
        URL_SAFE_NO_PAD.encode(json!({ "revision": self.revision, "namespace": namespace, "name": name }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::*;

    #[test]
    fn pages_together_are_the_list_at_the_first_pages_revision() {
        let mut store = store(5, 100);
        let first = ask(&store, "limit=2").expect("a page");
        assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["c0", "c1"], &json!(3)));

        put(&mut store, "c2x");
        store.remove(configmaps(), &("default".to_owned(), "c3".to_owned()));
        let second = ask(&store, &format!("limit=2&continue={}", token(&first))).expect("a page");
        let third = ask(&store, &format!("limit=2&continue={}", token(&second))).expect("a page");
        assert_eq!((names(&second), names(&third)), (vec!["c2", "c3"], vec!["c4"]));
        assert_eq!(third["metadata"].get("continue"), None);
        assert_eq!(first["metadata"]["resourceVersion"], third["metadata"]["resourceVersion"]);
    }

    #[test]
    fn a_page_whose_revision_is_forgotten_is_410() {
        let mut store = store(3, 2);
        let first = ask(&store, "limit=1").expect("a page");
        (0..3).for_each(|_| put(&mut store, "new"));
        let refused = ask(&store, &format!("limit=1&continue={}", token(&first))).expect_err("a refusal");
        assert_eq!(refused.code(), 410);
        let rest = ask(&store, &format!("continue={}", token(&refused.to_json()))).expect("the rest as it is now");
        assert_eq!(names(&rest), ["c1", "c2", "new"]);
    }

    #[test]
    fn revisions_that_cannot_be_served_are_refused() {
        let store = store(2, 100);
        for (query, wanted) in [
            ("resourceVersion=seven", 400),
            ("resourceVersion=999", 504),
            ("continue=nonsense", 400),
            ("resourceVersionMatch=Exact", 400),
            ("limit=many", 400),
        ] {
            assert_eq!(code(ask(&store, query)), wanted, "{query}");
        }
        for query in ["resourceVersion=0", "resourceVersion=2", "resourceVersion=0&resourceVersionMatch=NotOlderThan", "limit=0"]
        {
            assert_eq!(ask(&store, query).map(|list| names(&list).len()), Ok(2), "{query}");
        }
        let exact = ask(&store, "resourceVersion=2&resourceVersionMatch=Exact").expect("remembered");
        assert_eq!(names(&exact), ["c0"]);
    }

    fn store(n: usize, history_len: usize) -> Store {
        let mut store = Store::new(history_len);
        (0..n).for_each(|i| put(&mut store, &format!("c{i}")));
        store
    }

    fn put(store: &mut Store, name: &str) {
        let object = json!({ "metadata": { "name": name, "namespace": "default" } });
        store.put(configmaps(), ("default".to_owned(), name.to_owned()), object);
    }

    fn configmaps() -> &'static Kind {
        kinds::by_plural("configmaps").expect("a row")
    }

    fn ask(store: &Store, query: &str) -> Result<Value, Status> {
        let scope = Scope { kind: configmaps(), namespace: Some("default".to_owned()), selector: Selector::default() };
        list(store, &scope, &Query::parse(Some(query)), Form::Object, Timestamp::UNIX_EPOCH, false)
    }

    fn names(list: &Value) -> Vec<&str> {
        list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
    }

    fn token(list: &Value) -> &str {
        list["metadata"]["continue"].as_str().expect("more pages")
    }

    fn code(result: Result<Value, Status>) -> u16 {
        result.expect_err("a refusal").code()
    }
}
