//! What of the overview is asked for, and in which form.

use std::borrow::Cow;

use http::Request;
use http::header::ACCEPT;
use proxy::request::parameter;

use crate::registry::{Standing, State};

/// Bytes of a name to look for: the longest id of a cluster.
const NAME_BYTES_MAX: usize = 63;

/// For whom the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Html,
}

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) format: Format,
    pub(super) state: Option<State>,
    /// Part of a cluster's name; empty = any.
    pub(super) name: String,
    /// The whole name of one cluster.
    pub(super) cluster: Option<String>,
    /// Whether a page is shown anew by itself.
    pub(super) refreshes: bool,
}

impl Wanted {
    /// What a request asks for.
    ///
    /// # Errors
    /// Why it cannot be answered, for people.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, String> {
        let query = request.uri().query().unwrap_or_default();
        let given = |name| parameter(query, name).filter(|value| !value.is_empty());
        let format = match given("format").as_deref() {
            Some("html") => Format::Html,
            Some("json") => Format::Json,
            Some(_) => return Err("format is json or html".to_owned()),
            None if prefers_html(request) => Format::Html,
            None => Format::Json,
        };
        let state = given("state").map(|word| {
            let known = State::ALL.into_iter().find(|state| state.word() == word);
            known.ok_or_else(|| format!("state is one of {}", State::ALL.map(State::word).join(", ")))
        });
        let name = |name| given(name).map(Cow::into_owned).filter(|text| text.len() <= NAME_BYTES_MAX);
        Ok(Self {
            format,
            state: state.transpose()?,
            name: name("name").map(|name| name.to_lowercase()).unwrap_or_default(),
            cluster: name("cluster"),
            refreshes: given("refresh").as_deref() != Some("off"),
        })
    }

    pub(super) fn has(&self, standing: &Standing) -> bool {
        let id = standing.cluster.as_str();
        self.state.is_none_or(|state| state == standing.state)
            && id.to_lowercase().contains(&self.name)
            && self.cluster.as_ref().is_none_or(|cluster| cluster == id)
    }
}

/// Whether `Accept` likes HTML better than JSON (RFC 9110 section 12.5.1); who likes both alike is a program.
fn prefers_html<B>(request: &Request<B>) -> bool {
    let fields = request.headers().get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let accepted: Vec<(&str, f32)> = fields.flat_map(|field| field.split(',')).map(weighed).collect();
    let weight = |kinds: [&str; 3]| {
        // The most exact range counts.
        kinds.iter().find_map(|kind| accepted.iter().find(|(range, _)| range.eq_ignore_ascii_case(kind))).map_or(0.0, |(_, q)| *q)
    };
    weight(["text/html", "text/*", "*/*"]) > weight(["application/json", "application/*", "*/*"])
}

/// A media range and its weight.
fn weighed(member: &str) -> (&str, f32) {
    let mut parts = member.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q="))).and_then(|q| q.parse().ok());
    (range, weight.unwrap_or(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, accept: &str) -> Result<Wanted, String> {
        Wanted::of(&Request::get(target).header(ACCEPT, accept).body(()).expect("a request"))
    }

    #[test]
    fn a_browser_gets_the_page_and_a_program_json_unless_they_say_otherwise() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let accepts = [
            (browser, Format::Html),
            ("*/*", Format::Json),
            ("", Format::Json),
            ("application/json", Format::Json),
            ("text/html;q=0.5, application/json", Format::Json),
            ("text/html, application/json", Format::Json),
            ("application/json;q=0.1, text/*", Format::Html),
            ("text/html;q=0", Format::Json),
        ];
        for (accept, format) in accepts {
            assert_eq!(of("/clusters", accept).expect("a question").format, format, "{accept}");
        }
        assert_eq!(of("/clusters?format=json", browser).expect("a question").format, Format::Json);
        assert_eq!(of("/clusters?format=html", "*/*").expect("a question").format, Format::Html);
        assert!(of("/clusters?format=xml", "*/*").is_err());
    }

    #[test]
    fn a_filter_is_read_as_forms_send_it() {
        let wanted = of("/clusters?state=offline&name=Edge%2D+", "").expect("a question");
        assert_eq!((wanted.state, wanted.name.as_str(), wanted.refreshes), (Some(State::Offline), "edge- ", true));
        let wanted = of("/clusters?state=&name=&cluster=edge-1&refresh=off", "").expect("a question");
        assert_eq!(
            (wanted.state, wanted.name.as_str(), wanted.cluster.as_deref(), wanted.refreshes),
            (None, "", Some("edge-1"), false)
        );
        assert_eq!(of("/clusters?state=dead", ""), Err("state is one of unhealthy, offline, unknown, healthy".to_owned()));
    }
}
