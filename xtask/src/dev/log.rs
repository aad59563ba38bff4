//! JSON log lines as people read them: who, when, how bad, what, and the rest as key=value.

use serde_json::{Map, Value};

/// What stands elsewhere in the line, or says where in the source it comes from.
const NOT_FIELDS: [&str; 6] = ["timestamp", "level", "message", "target", "span", "spans"];

/// One line of a child named `who`; what is no JSON object stays as it is.
pub(crate) fn readable(who: &str, line: &str) -> String {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else { return format!("{who:<6} {line}") };
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut readable = format!("{who:<6} {} {:<5} {}", clock(text("timestamp")), text("level"), text("message"));
    let of_event = event.iter().filter(|(key, _)| !NOT_FIELDS.contains(&key.as_str()));
    for (key, value) in of_event.chain(of_spans(&event)) {
        readable.push_str(&format!(" {key}={}", plain(value)));
    }
    readable
}

/// The fields of the spans around an event, the innermost last.
fn of_spans(event: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let spans = event.get("spans").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    spans.flatten().filter(|(key, _)| *key != "name")
}

/// `12:03:04.567` of an RFC 3339 timestamp.
fn clock(timestamp: &str) -> &str {
    timestamp.split_once('T').map_or(timestamp, |(_, time)| time.get(..12).unwrap_or(time))
}

/// A value without quotes where none are needed, in one line always.
fn plain(value: &Value) -> String {
    let bare = |text: &&str| !text.is_empty() && !text.contains([' ', '"', '=', '\n', '\r']);
    value.as_str().filter(bare).map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_becomes_one_readable_line() {
        let line = r#"{"timestamp":"2026-01-02T12:03:04.567891Z","level":"INFO","message":"request","code":200,"path":"/a b","target":"server::forward"}"#;
        assert_eq!(readable("server", line), r#"server 12:03:04.567 INFO  request code=200 path="/a b""#);
    }

    #[test]
    fn fields_of_spans_are_told_too_and_their_names_are_not() {
        let line = r#"{"timestamp":"2026-01-02T12:03:04Z","level":"WARN","message":"lost","spans":[{"name":"session","cluster":"dev"}],"span":{"name":"session","cluster":"dev"}}"#;
        assert_eq!(readable("agent", line), "agent  12:03:04Z WARN  lost cluster=dev");
    }

    #[test]
    fn a_line_break_in_a_value_stays_inside_its_line() {
        let line = r#"{"level":"ERROR","message":"broken","error":"a\nb"}"#;
        assert_eq!(readable("sim", line).lines().count(), 1);
    }

    #[test]
    fn words_of_a_panic_pass_as_they_are() {
        assert_eq!(readable("agent", "thread 'main' panicked"), "agent  thread 'main' panicked");
        assert_eq!(readable("sim", "42"), "sim    42");
    }
}
