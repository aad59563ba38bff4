//! The query of a request as the API server reads it: `url.ParseQuery` of Go and the conversion to `ListOptions`.

use std::borrow::Cow;

use http::Method;

use super::{RequestInfo, unescaped};

/// Parameters of a list or a watch that are read. Go 1.25 and later take a query with more than 10,000 for an empty one, so
/// that a watch becomes a list; no client has a dozen. More cannot be read surely.
pub const QUERY_PARAMETERS_MAX: usize = 1000;

/// Whether a request could be a list or a watch, which its query decides, with more than [`QUERY_PARAMETERS_MAX`] parameters.
pub fn has_too_many_parameters(path: &str, query: Option<&str>) -> bool {
    let n_separators = query.map_or(0, |query| query.bytes().filter(|byte| *byte == b'&').count());
    // Only what has a name in its path, or is no resource, is read without the query.
    n_separators >= QUERY_PARAMETERS_MAX && matches!(RequestInfo::parse(&Method::GET, path, None).verb.as_str(), "list" | "watch")
}

/// What a query says of a list or a watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ListOptions {
    pub(super) watch: bool,
    /// The one object that a field selector leaves, empty if it may leave several.
    pub(super) name: String,
}

impl ListOptions {
    /// Where one part cannot be read, all parts but `watch` count as not given. Label selectors are not looked at: a request
    /// with a wrong one is answered with 400 whatever its name.
    pub(super) fn read(query: &str) -> Self {
        let watch = parameter(query, "watch").is_some_and(|text| is_true(&text));
        let is_number = |name: &str| parameter(query, name).is_none_or(|text| text.parse::<i64>().is_ok());
        let name = match parameter(query, "fieldSelector").map(|selector| selected_name(&selector)) {
            Some(Some(name)) if ["limit", "timeoutSeconds"].into_iter().all(is_number) => name,
            Some(_) | None => String::new(),
        };
        Self { watch, name }
    }
}

/// The first value of a query parameter. A pair with a wrong escape, or with a `;`, is none.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query.split('&').filter(|pair| !pair.contains(';'));
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find_map(|(key, value)| decoded(key).filter(|key| key == name).and_then(|_| decoded(value)))
}

/// Only a value of `false` or `0` is false (apimachinery, `Convert_Slice_string_To_bool`).
pub(super) fn is_true(text: &str) -> bool {
    !(text.eq_ignore_ascii_case("false") || text == "0")
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') { unescaped(&text.replace('+', " ")).map(|text| text.into_owned().into()) } else { unescaped(text) }
}

/// The object that a selector picks by `metadata.name`, empty if it picks none by name; `None` for what is no selector
/// (apimachinery, `fields.ParseSelector` and `RequiresExactMatch`).
fn selected_name(selector: &str) -> Option<String> {
    let mut terms = terms(selector);
    // As the API server does, before it takes the first.
    terms.sort_unstable();
    let mut name = None;
    for term in terms.into_iter().filter(|term| !term.is_empty()) {
        let at = term.char_indices().map(|(at, _)| at).find(|at| ["!=", "="].iter().any(|sign| term[*at..].starts_with(sign)))?;
        let (field, rest) = term.split_at(at);
        let (equal, value) = match rest.strip_prefix("!=") {
            Some(value) => (false, value),
            None => (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?),
        };
        let value = unescaped_value(value)?;
        if equal && field == "metadata.name" && name.is_none() {
            name = Some(value);
        }
    }
    let is_segment = |name: &String| name != "." && name != ".." && !name.contains(['/', '%']);
    Some(name.filter(is_segment).unwrap_or_default())
}

/// Splits at commas without a backslash before them.
fn terms(selector: &str) -> Vec<&str> {
    let (mut terms, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (at, character) in selector.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// `None` for an unknown escape, or a `=` or `,` without one.
fn unescaped_value(value: &str) -> Option<String> {
    let mut unescaped = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => unescaped.push(characters.next().filter(|escaped| matches!(escaped, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            _ => unescaped.push(character),
        }
    }
    Some(unescaped)
}
